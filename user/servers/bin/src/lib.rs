//! The common part of all servers of names: they announce that they are ready, and answer one request after the other.

#![no_std]

extern crate alloc;

pub mod disks;
pub mod virtio;

use alloc::vec::Vec;

use quire_fs::request::{Answer, ROOM, Request, TEXT_MAX, lengths};
use quire_rt::abi::ipc::{AttachedHandle, Attachments};
use quire_rt::abi::names::{TRANSFER_MAX, op};
use quire_rt::ipc::{self, Message, Patience, Received, Receiver, What};
use quire_rt::{Errno, eprintln, io};

/// The descriptor whose end init waits for.
const READY: i32 = 3;

/// Announces that the server is mounted, and serves until it cannot receive any more; returns the exit status. `answer`
/// gets the sender's badge, the request, and the maximum length of a text in the answer.
pub fn serve(name: &str, receiver: Receiver, answer: impl FnMut(u64, &Request<'_>, usize) -> Answer) -> i32 {
    serve_and_rest(name, receiver, &mut { answer })
}

/// A server that has work to do when no request has arrived for a while.
pub trait Serve {
    /// Answers a request; see [`serve`].
    fn answer(&mut self, badge: u64, request: &Request<'_>, room: usize) -> Answer;
    /// How long it waits for the next request before [`Serve::rest`] is called.
    fn patience(&self) -> Patience {
        Patience::Endless
    }
    /// Called when no request has arrived in that time.
    fn rest(&mut self) {}
}

impl<F: FnMut(u64, &Request<'_>, usize) -> Answer> Serve for F {
    fn answer(&mut self, badge: u64, request: &Request<'_>, room: usize) -> Answer {
        self(badge, request, room)
    }
}

/// As [`serve`].
pub fn serve_and_rest(name: &str, receiver: Receiver, server: &mut impl Serve) -> i32 {
    let _ = io::close(READY);
    let mut texts = Vec::new();
    let mut received = receiver.receive(server.patience());
    loop {
        received = match received.map(|received| received.what) {
            Ok(What::Call { badge, message }) => {
                let done = one(&message, &mut texts, |request, room| server.answer(badge, request, room));
                send(receiver, &done.unwrap_or_else(Answer::error), server.patience())
            }
            Ok(_) | Err(Errno::EINTR) => receiver.receive(server.patience()),
            Err(Errno::ETIMEDOUT) => {
                server.rest();
                receiver.receive(server.patience())
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                return 1;
            }
        }
    }
}

fn one(
    message: &Message,
    texts: &mut Vec<u8>,
    answer: impl FnOnce(&Request<'_>, usize) -> Answer,
) -> Result<Answer, Errno> {
    let (path, text) = lengths(message.label, &message.words)?;
    let len = path + text;
    if texts.len() < len {
        // (It never grows beyond the longest request.)
        texts.try_reserve_exact(len - texts.len()).map_err(|_| Errno::ENOMEM)?;
        texts.resize(len, 0);
    }
    let texts = &mut texts[..len];
    // (Windows of the kernel's calls are always resident; a page of another caller may be missing.)
    if !texts.is_empty() && ipc::read_window(0, 0, 0, texts)? != texts.len() {
        return Err(Errno::EFAULT);
    }
    let request = Request::new(message.label, &message.words, texts)?;
    let room = match request.op {
        op::READDIR => (request.mode as usize).min(ROOM),
        op::READ => (request.mode as usize).min(TRANSFER_MAX),
        _ => TEXT_MAX,
    };
    let answer = answer(&request, room);
    if !answer.text.is_empty() && ipc::write_window(0, 1, 0, &answer.text)? != answer.text.len() {
        return Err(Errno::EFAULT);
    }
    Ok(answer)
}

/// Answers the call, and receives the next one.
fn send(receiver: Receiver, answer: &Answer, patience: Patience) -> Result<Received, Errno> {
    let message = Message { label: answer.label, words: answer.words };
    let Some((number, rights)) = answer.handle else {
        return receiver.reply_receive(&message, patience);
    };
    let mut attachments = Attachments::default();
    attachments.handles[0] = AttachedHandle { number, rights };
    // (If the handle cannot be lent, because the caller is not the kernel, the call has not been answered yet.)
    match receiver.reply_carrying_receive(&message, &attachments, patience) {
        Err(error @ (Errno::EBADF | Errno::EMFILE | Errno::EPERM | Errno::ENOMEM)) => {
            receiver.reply_receive(&Message { label: error.to_ret() as u64, ..Message::default() }, patience)
        }
        received => received,
    }
}
