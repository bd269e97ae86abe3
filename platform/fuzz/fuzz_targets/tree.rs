//! Any bytes as a device tree: no panic, no hang, and a board that passes its validation.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quire_platform::tree::{Board, salvage};

fuzz_target!(|bytes: &[u8]| {
    let _ = salvage(bytes);
    if let Ok(board) = Board::from_tree(bytes) {
        assert_eq!(board.validate(), Ok(()));
        for warning in &board.warnings {
            assert!(!warning.to_string().is_empty());
        }
        for uart in &board.uarts {
            assert!(board.uart(&uart.path).is_some() || !uart.path.starts_with('/'));
        }
    }
});
