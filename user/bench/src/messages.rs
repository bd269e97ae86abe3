//! Rows about messages: a call and its answer between two address spaces, and within one. Linux has no such calls.

use quire_rt::abi::flags::{Clone, sig};
use quire_rt::abi::{PAGE_SIZE, ipc::rights, nr};
use quire_rt::ipc::{self, Message, Patience, Receiver, Sender, What};
use quire_rt::{Errno, arch, io, process};

use crate::measure::{Outcome, Sheet, call};
use crate::{Row, row};

pub const ROWS: &[Row] = &[
    row("ipc.call", |sheet| {
        served(sheet, |sender| process::fork().map(|pid| (pid == 0).then(|| client(sheet, sender))))
    }),
    row("ipc.call_local", |sheet| served(sheet, |sender| beside(sheet, sender))),
];

/// Calls, and answers, that a row makes.
const CALLS: usize = 5000;

/// Serves a client, which `start` starts and which ends with a message of label 0.
fn served(sheet: &Sheet, start: impl FnOnce(Sender) -> Outcome<Option<()>>) -> Outcome {
    let _ = sheet;
    let endpoint = Receiver::new()?;
    let sender = endpoint.sender(1)?;
    ipc::grant(sender.0, rights::SEND)?;
    start(sender)?;
    let mut next = endpoint.receive(Patience::Endless)?;
    while let What::Call { message, .. } = next.what
        && message.label != 0
    {
        next = endpoint.reply_receive(&message, Patience::Endless)?;
    }
    ipc::reply(&Message::default())?;
    let _ = process::wait4(-1, 0);
    ipc::close(sender.0)?;
    ipc::close(endpoint.0)
}

fn client(sheet: &Sheet, sender: Sender) {
    let message = Message::new(1, &[1, 2, 3, 4]);
    let measured = sheet.each(CALLS, "", || sender.call(&message).map(drop));
    io::flush();
    let told = sender.call(&Message::default());
    process::exit_now(measured.and(told).is_err().into())
}

/// The name and the handle for a client in this address space.
static mut CLIENT: Option<(&'static Sheet, Sender)> = None;

/// A client that is a process of its own in this address space: what differs is the switch of spaces alone.
fn beside(sheet: &Sheet, sender: Sender) -> Outcome<Option<()>> {
    #[repr(C, align(16))]
    struct Stack([u8; 16 * PAGE_SIZE]);
    static mut STACK: Stack = Stack([0; 16 * PAGE_SIZE]);
    extern "C" fn enter(_: usize) -> ! {
        // SAFETY: written before this child began, and by nobody since.
        if let Some((sheet, sender)) = unsafe { CLIENT } {
            client(sheet, sender);
        }
        loop {
            let _ = call(nr::EXIT_GROUP, [1]);
        }
    }
    let flags = Clone::VM.bits() as usize | sig::CHLD as usize;
    let nowhere = core::ptr::null_mut();
    // SAFETY: one child at a time uses the stack, which is 16-byte aligned, and the record, which lives until the child has
    // ended: this row waits for it. `enter` does not return, and these flags store no number anywhere.
    let answer = unsafe {
        CLIENT = Some((core::mem::transmute::<&Sheet, &'static Sheet>(sheet), sender));
        arch::clone_thread(flags, (&raw mut STACK).add(1) as usize, nowhere, 0, nowhere, enter, 0)
    };
    Errno::from_ret(answer).map(|_| None)
}
