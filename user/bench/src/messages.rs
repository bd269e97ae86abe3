//! Rows about messages: a call and its answer between two address spaces, and within one. Linux has no such calls.

use quire_rt::abi::flags::{Clone, sig};
use quire_rt::abi::ipc::{AttachedHandle, Attachments, Window, rights};
use quire_rt::abi::{PAGE_SIZE, nr};
use quire_rt::ipc::{self, Message, Patience, Received, Receiver, Sender, What};
use quire_rt::{Errno, arch, io, process};

use crate::measure::{Outcome, Sheet, call};
use crate::{Row, row};

pub const ROWS: &[Row] = &[
    row("ipc.call", |sheet| {
        served(sheet, |sender| process::fork().map(|pid| (pid == 0).then(|| client(sheet, sender))))
    }),
    row("ipc.call_handle", |sheet| with_handles(sheet, client_of_handles, accepts)),
    row("ipc.answer_handle", |sheet| with_handles(sheet, client_of_objects, brings)),
    row("ipc.call_window", |sheet| with_handles(sheet, client_of_windows, reads)),
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
    end(sender, measured);
}

/// Ends a client.
fn end(sender: Sender, measured: Outcome) {
    io::flush();
    let told = sender.call(&Message::default());
    process::exit_now(measured.and(told).is_err().into())
}

/// Calls of the rows with handles, each of which leaves one in a table.
const MOVES: usize = 1900;
/// Handles for these calls, those beside the measurement too.
const MADE: usize = MOVES + 8;

fn make(endpoint: Receiver) -> [u32; MADE] {
    [(); MADE].map(|()| endpoint.sender(2).map_or(0, |sender| sender.0))
}

/// Serves a client in another address space: each call of label 1 by `answer`, which gets a handle that was made
/// before.
fn with_handles(sheet: &Sheet, client: fn(&Sheet, Sender), answer: fn(Receiver, u32) -> Outcome<Received>) -> Outcome {
    let endpoint = Receiver::new()?;
    let sender = endpoint.sender(1)?;
    ipc::grant(sender.0, rights::SEND)?;
    if process::fork()? == 0 {
        client(sheet, sender);
    }
    let made = make(endpoint);
    let mut left = made.iter();
    let mut next = endpoint.receive(Patience::Endless)?;
    while let What::Call { message, .. } = next.what
        && message.label != 0
    {
        next = answer(endpoint, left.next().copied().unwrap_or(0))?;
    }
    ipc::reply(&Message::default())?;
    let _ = process::wait4(-1, 0);
    // All numbers that were in use: those that were made, and those that came.
    (0..2 * MADE as u32 + 16).for_each(|n| {
        let number = endpoint.0 + n;
        if number != sender.0 && number != endpoint.0 {
            let _ = ipc::close(number);
        }
    });
    ipc::close(sender.0)?;
    ipc::close(endpoint.0)
}

fn carrying(number: u32) -> Attachments {
    let mut attachments = Attachments::default();
    attachments.handles[0] = AttachedHandle { number, rights: rights::SEND };
    attachments
}

fn client_of_handles(sheet: &Sheet, sender: Sender) {
    let message = Message::new(1, &[1, 2, 3, 4]);
    let made = Receiver::new().map_or([0; MADE], make);
    let mut left = made.iter();
    let measured = sheet.each(MOVES, "", || {
        let attachments = carrying(left.next().copied().unwrap_or(0));
        // SAFETY: it carries no windows.
        unsafe { sender.call_carrying(&message, &attachments, 0) }.map(drop)
    });
    end(sender, measured);
}

fn accepts(endpoint: Receiver, _: u32) -> Outcome<Received> {
    ipc::accept(0)?;
    endpoint.reply_receive(&Message::default(), Patience::Endless)
}

fn client_of_objects(sheet: &Sheet, sender: Sender) {
    let message = Message::new(1, &[1, 2, 3, 4]);
    let measured = sheet.each(MOVES, "", || sender.call_for(&message, 1).map(drop));
    end(sender, measured);
}

fn brings(endpoint: Receiver, number: u32) -> Outcome<Received> {
    endpoint.reply_carrying_receive(&Message::default(), &carrying(number), Patience::Endless)
}

fn client_of_windows(sheet: &Sheet, sender: Sender) {
    let message = Message::new(1, &[1, 2, 3, 4]);
    let page = Page([1; PAGE_SIZE]);
    let mut attachments = Attachments::default();
    attachments.windows[0] =
        Window { start: page.0.as_ptr().addr() as u64, len: PAGE_SIZE as u64, access: Window::READ };
    // SAFETY: the page is only read.
    let measured = sheet.each(MOVES, "", || unsafe { sender.call_carrying(&message, &attachments, 0) }.map(drop));
    end(sender, measured);
}

#[repr(align(4096))]
struct Page([u8; PAGE_SIZE]);

fn reads(endpoint: Receiver, _: u32) -> Outcome<Received> {
    static mut TO: Page = Page([0; PAGE_SIZE]);
    let to = &raw mut TO;
    // SAFETY: this process has one thread, and nothing else refers to the page.
    ipc::read_window(0, 0, 0, unsafe { &mut (*to).0 })?;
    endpoint.reply_receive(&Message::default(), Patience::Endless)
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
    // SAFETY: one child at a time uses the stack, which is 16-byte aligned, and the record, which lives until the child
    // has ended: this row waits for it. `enter` does not return, and these flags store no number anywhere.
    let answer = unsafe {
        CLIENT = Some((core::mem::transmute::<&Sheet, &'static Sheet>(sheet), sender));
        arch::clone_thread(flags, (&raw mut STACK).add(1) as usize, nowhere, 0, nowhere, enter, 0)
    };
    Errno::from_ret(answer).map(|_| None)
}
