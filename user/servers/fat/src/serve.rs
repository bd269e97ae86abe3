//! Requests and their answers.

use quire_abi::Errno;
use quire_abi::names::op;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::End;

use crate::disk::Disk;
use crate::tree::Tree;

impl<D: Disk> Tree<D> {
    /// Handles a request. `room` is the size of window 1.
    pub fn serve(&mut self, request: &Request<'_>, room: usize) -> Answer {
        self.try_serve(request, room).unwrap_or_else(Answer::error)
    }

    fn try_serve(&mut self, request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
        let start = self.inner.get_mut().nodes.slot(request.directory);
        // For a file that is open, nothing else reports that it is gone.
        let is_of_file = matches!(request.op, op::READ | op::WRITE | op::CUT | op::SYNC);
        let start = start.ok_or(if is_of_file { Errno::ESTALE } else { Errno::ENOENT })?;
        if request.has_no_path() {
            return match request.op {
                op::READDIR => self.readdir(start, request.argument, room),
                op::PATH => self.path(start),
                op::STATFS => self.statfs(),
                op::READ => self.read(start, request.argument, room),
                op::WRITE => self.write(start, request),
                op::CUT => self.cut(start, request.argument).map(|()| Answer::default()),
                op::SYNC => self.sync().map(|()| Answer::default()),
                _ => Err(Errno::ENOTTY),
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
            op::LOOKUP => self.found(end.node.ok_or(Errno::ENOENT)?),
            op::OPEN => self.open(request, end),
            op::PARENT => self.parent_of(request, end),
            op::MKDIR => self.mkdir(request, end),
            op::SYMLINK | op::SOCKET | op::LINK => self.no_link(request, end),
            op::UNLINK => self.remove(request, end),
            op::RENAME => self.rename(request, end),
            op::READLINK => end.node.map_or(Err(Errno::ENOENT), |_| Err(Errno::EINVAL)),
            op::SET => self.set(request, end),
            op::ACCESS => self.access(request, end),
            _ => Err(Errno::ENOSYS),
        }
    }
}
