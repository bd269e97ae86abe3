//! Requests and their answers.

use quire_abi::Errno;
use quire_abi::names::op;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::End;

use crate::objects::Objects;
use crate::tree::Tree;

impl<O: Objects> Tree<O> {
    /// Handles a request. `room` is the size of window 1; `memory` returns the machine's memory and the free part of
    /// it, in pages.
    pub fn serve(&mut self, request: &Request<'_>, room: usize, memory: impl FnOnce() -> (u64, u64)) -> Answer {
        self.try_serve(request, room, memory).unwrap_or_else(Answer::error)
    }

    fn try_serve(
        &mut self,
        request: &Request<'_>,
        room: usize,
        memory: impl FnOnce() -> (u64, u64),
    ) -> Result<Answer, Errno> {
        let start = self.table.slot(request.directory).ok_or(Errno::ENOENT)?;
        if request.has_no_path() {
            return match request.op {
                op::READDIR => self.readdir(start, request.argument, room),
                op::PATH => self.path(start),
                op::STATFS => Ok(self.statfs(memory())),
                _ => Err(Errno::EINVAL),
            };
        }
        let end = match self.end(request.identity, start, request.path, request.follow())? {
            Ok(end) => end,
            Err(answer) => return Ok(answer),
        };
        self.at_end(request, &end)
    }

    fn at_end(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        if !request.is_for_name() && request.op != op::OPEN {
            self.check_slash(end)?;
        }
        match request.op {
            op::LOOKUP => self.lookup(end),
            op::OPEN => self.open(request, end),
            op::PARENT => self.parent_of(request, end),
            op::MKDIR => self.mkdir(request, end),
            op::SYMLINK => self.symlink(request, end),
            op::SOCKET => self.socket(request, end),
            op::LINK => self.link_to(request, end),
            op::UNLINK => self.remove(request, end),
            op::RENAME => self.rename(request, end),
            op::READLINK => self.readlink(end),
            op::SET => self.set(request, end),
            op::ACCESS => self.access(request, end),
            _ => Err(Errno::ENOSYS),
        }
    }
}
