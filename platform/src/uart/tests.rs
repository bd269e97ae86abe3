//! The drivers on memory that behaves like a port that is stuck in one state.

use core::cell::Cell;
use core::fmt::Write;

use super::*;

/// Registers that keep their values, word by word.
struct Bench {
    words: &'static [Cell<u32>; 64],
}

impl Bench {
    fn new(kind: UartKind, preset: &[(usize, u32)]) -> (Self, Uart) {
        let words: &'static [Cell<u32>; 64] = Box::leak(Box::new([const { Cell::new(0) }; 64]));
        for (offset, value) in preset {
            words[offset / 4].set(*value);
        }
        // SAFETY: the words live for ever, may be written through shared references, and are 256 bytes.
        let uart = unsafe { Uart::new(kind, NonNull::from(words).cast()) };
        (Self { words }, uart)
    }

    fn word(&self, offset: usize) -> u32 {
        self.words[offset / 4].get()
    }
}

#[test]
fn pl011_is_set_up() {
    let (bench, mut uart) = Bench::new(UartKind::Pl011, &[(0x24, 7), (0x30, 0xffff), (0x38, 0x7ff)]);
    uart.init(Rate::Keep);
    assert_eq!((bench.word(0x24), bench.word(0x2c), bench.word(0x30)), (7, 0x70, 0x301));
    assert_eq!((bench.word(0x38), bench.word(0x44)), (0, 0x7ff));
    uart.init(Rate::Set { clock: 48_000_000, baud: 115_200 });
    assert_eq!((bench.word(0x24), bench.word(0x28)), (26, 3));
    uart.set_receive_interrupt(true);
    assert_eq!(bench.word(0x38), 0x50);
    uart.set_receive_interrupt(false);
    assert_eq!(bench.word(0x38), 0);
}

#[test]
fn pl011_passes_over_damaged_bytes() {
    let (_bench, mut uart) = Bench::new(UartKind::Pl011, &[(0x18, 1 << 4)]);
    assert_eq!(uart.get(), None);
    let (bench, mut uart) = Bench::new(UartKind::Pl011, &[(0, 0x141)]);
    assert_eq!(uart.get(), None, "a framing error, for ever");
    bench.words[0].set(0x41);
    assert_eq!(uart.get(), Some(b'A'));
}

#[test]
fn a_full_port_is_given_up() {
    for (kind, status, full, ready) in [(UartKind::Pl011, 0x18, 1 << 5, 0), (UartKind::MiniUart, 0x14, 0, 1 << 5)] {
        let (bench, mut uart) = Bench::new(kind, &[(status, full)]);
        assert!(!uart.put(b'x') && !uart.put(b'y'));
        assert_eq!(bench.word(0), 0, "nothing was written");
        bench.words[status / 4].set(ready);
        assert!(uart.put(b'z'), "{kind:?} goes on when the port does");
        assert_eq!(bench.word(0), u32::from(b'z'));
    }
}

#[test]
fn mini_uart_is_set_up() {
    let (bench, mut uart) = Bench::new(UartKind::MiniUart, &[(0x14, 1 << 6 | 1 << 5 | 1), (0x28, 541)]);
    uart.init(Rate::Keep);
    assert_eq!((bench.word(0x04), bench.word(0x0c), bench.word(0x20), bench.word(0x28)), (0, 3, 3, 541));
    uart.init(Rate::Set { clock: 500_000_000, baud: 115_200 });
    assert_eq!(bench.word(0x28), 542);
    uart.set_receive_interrupt(true);
    assert_eq!(bench.word(0x04), 0xd);
    assert!(uart.flush());
    assert_eq!(write!(uart, "a\n"), Ok(()));
    assert_eq!(uart.get(), Some(b'\n'), "the last byte that was sent stands in the same register");
}

#[test]
fn the_mini_uart_is_switched_on_and_its_neighbours_stay() {
    let words: &[Cell<u32>; 2] = Box::leak(Box::new([Cell::new(7), Cell::new(4)]));
    // SAFETY: the words live for ever and may be written through shared references.
    unsafe { MiniUart::switch_on(NonNull::from(words).cast()) };
    assert_eq!((words[0].get(), words[1].get()), (7, 5));
}
