//! Who may do what with a file or directory: owner, group, others and root, as in POSIX. Servers decide by these rules,
//! and so does the kernel where it answers in a server's place.

/// Access: searching a directory, or executing a file.
pub const EXECUTE: u32 = 1;
/// Access: writing.
pub const WRITE: u32 = 2;
/// Access: reading.
pub const READ: u32 = 4;

/// The one who asks for access.
pub trait Who {
    /// The user, for access to files.
    fn user(&self) -> u32;
    /// The group, for access to files.
    fn group(&self) -> u32;
    /// Whether `group` is one of the supplementary groups.
    fn is_also_in(&self, group: u32) -> bool;

    /// Whether it is root.
    fn is_root(&self) -> bool {
        self.user() == 0
    }

    /// Whether `group` is the group or one of the supplementary ones.
    fn is_in(&self, group: u32) -> bool {
        self.group() == group || self.is_also_in(group)
    }
}

/// An identity of which only the user and the group are known, and no supplementary groups.
#[derive(Clone, Copy, Debug)]
pub struct Identity(pub (u32, u32));

impl Who for Identity {
    fn user(&self) -> u32 {
        self.0.0
    }
    fn group(&self) -> u32 {
        self.0.1
    }
    fn is_also_in(&self, _: u32) -> bool {
        false
    }
}

/// A file's owner, group, type and permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Type and permissions.
    pub mode: u32,
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
}

impl Owned {
    /// Whether `who` may access the file in all of the ways that `wanted` names. Root may do everything, except that it
    /// may execute a file only if somebody has permission to.
    pub fn permits(&self, who: &impl Who, wanted: u32) -> bool {
        use crate::layout::mode::{DIR, FMT};
        if who.is_root() {
            let is_dir = self.mode & FMT == DIR;
            return wanted & EXECUTE == 0 || is_dir || self.mode & 0o111 != 0;
        }
        let shift = if who.user() == self.user {
            6
        } else if who.is_in(self.group) {
            3
        } else {
            0
        };
        self.mode >> shift & wanted == wanted
    }

    /// Whether `who` is the file's owner, or root.
    pub fn is_owned_by(&self, who: &impl Who) -> bool {
        who.is_root() || who.user() == self.user
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::mode::{DIR, REG};

    struct Caller(u32, u32, u32);

    impl Who for Caller {
        fn user(&self) -> u32 {
            self.0
        }
        fn group(&self) -> u32 {
            self.1
        }
        fn is_also_in(&self, group: u32) -> bool {
            self.2 == group
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let file = Owned { mode: REG | 0o704, user: 1, group: 2 };
        assert!(file.permits(&Caller(1, 2, 2), READ | WRITE | EXECUTE));
        // The group has fewer rights than others.
        assert!(!file.permits(&Caller(3, 2, 9), READ) && !file.permits(&Caller(3, 9, 2), READ));
        assert!(file.permits(&Caller(3, 9, 9), READ) && !file.permits(&Caller(3, 9, 9), READ | WRITE));
    }

    #[test]
    fn root_may_all_but_execute_what_nobody_may() {
        let root = Caller(0, 0, 0);
        assert!(Owned { mode: REG, user: 1, group: 1 }.permits(&root, READ | WRITE));
        assert!(!Owned { mode: REG | 0o666, user: 0, group: 0 }.permits(&root, EXECUTE));
        assert!(Owned { mode: REG | 0o001, user: 0, group: 0 }.permits(&root, EXECUTE));
        assert!(Owned { mode: DIR, user: 1, group: 1 }.permits(&root, EXECUTE));
    }
}
