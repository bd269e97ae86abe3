//! Operations, one by one.

mod common;

use common::Asked;
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::mode;
use quire_abi::names::{Change, KEPT, LINK, NOTHING, UP, list, op};

#[test]
fn paths_end_where_they_lead() {
    let mut fs = Asked::new();
    fs.mkdir("a").unwrap();
    fs.mkdir("a/b/").unwrap();
    let file = fs.create("a/b/f").unwrap();
    for path in ["a/b/f", "a//b/./f", "./a/b/../b/f", "a/b/../../a/b/f"] {
        assert_eq!(fs.lookup(path), Ok(file), "{path}");
    }
    assert_eq!(fs.lookup("").unwrap().number, 0);
    assert_eq!(fs.lookup("a/b/f/"), Err(Errno::ENOTDIR));
    assert_eq!(fs.lookup("a/b/f/x"), Err(Errno::ENOTDIR));
    assert_eq!(fs.lookup("a/x/f"), Err(Errno::ENOENT));
    assert_eq!(fs.lookup(&"n".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert_eq!(fs.ask(99, "a", 0, 0, b""), Err(Errno::ENOSYS));
}

#[test]
fn a_walk_stops_at_links_and_above_the_root() {
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    fs.symlink("to/there", "d/l").unwrap();
    let directory = fs.lookup("d").unwrap().number;
    let stopped = fs.raw(op::LOOKUP, "d/l/x", 0, 0, b"", false);
    assert_eq!((stopped.label, stopped.words[..3].to_vec()), (LINK, vec![directory, 3, 8]));
    assert_eq!(stopped.text, b"to/there");
    let link = fs.raw(op::LOOKUP, "d/l", 0, 0, b"", false);
    assert_eq!((link.label, &link.text[..]), (KEPT, &b"to/there"[..]));
    assert_eq!(fs.raw(op::LOOKUP, "d/none", 0, 0, b"", false).label, NOTHING);
    assert_eq!(fs.raw(op::LOOKUP, "d/l", 0, 0, b"", true).label, LINK);
    assert_eq!(fs.raw(op::LOOKUP, "d/l/", 0, 0, b"", false).label, LINK);
    let up = fs.raw(op::LOOKUP, "d/../../x", 0, 0, b"", false);
    assert_eq!((up.label, up.words[1]), (UP, 7));
}

#[test]
fn numbers_of_what_is_gone_are_unknown() {
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    fs.start = fs.lookup("d").unwrap().number;
    fs.create("f").unwrap();
    fs.unlink("f").unwrap();
    let old = std::mem::replace(&mut fs.start, 0);
    fs.rmdir("d").unwrap();
    fs.mkdir("d").unwrap();
    assert_ne!(fs.lookup("d").unwrap().number, old);
    fs.start = old;
    assert_eq!(fs.create("f"), Err(Errno::ENOENT));
    assert_eq!(fs.list(old, 0, 300), Err(Errno::ENOENT));
    assert_eq!(fs.ask(op::PATH, "", 0, 0, b""), Err(Errno::ENOENT));
}

#[test]
fn sockets_are_nodes_and_nothing_else() {
    let mut fs = Asked::new();
    fs.ask(op::SOCKET, "s", 0, 0o755, b"").unwrap();
    let node = fs.lookup("s").unwrap();
    assert_eq!((node.mode, node.links), (mode::SOCK | 0o755, 1));
    assert_eq!(fs.ask(op::SOCKET, "s", 0, 0o755, b""), Err(Errno::EEXIST));
    assert_eq!(fs.ask(op::SOCKET, "t/", 0, 0o755, b""), Err(Errno::ENOENT));
    assert_eq!(fs.open("s", Open::RDWR, 0), Err(Errno::ENXIO));
    fs.unlink("s").unwrap();
    assert_eq!(fs.lookup("s"), Err(Errno::ENOENT));
}

#[test]
fn open_has_linux_s_errors() {
    let mut fs = Asked::new();
    fs.create("f").unwrap();
    fs.mkdir("d").unwrap();
    fs.symlink("f", "l").unwrap();
    let none = Open::empty();
    assert_eq!(fs.create("f"), Err(Errno::EEXIST));
    assert_eq!(fs.create("d/"), Err(Errno::EISDIR));
    assert_eq!(fs.create("f/"), Err(Errno::EISDIR));
    assert_eq!(fs.create("."), Err(Errno::EEXIST));
    assert_eq!(fs.open("f", Open::CREAT | Open::DIRECTORY, 0), Err(Errno::EINVAL));
    assert_eq!(fs.open("l", Open::DIRECTORY | Open::NOFOLLOW, 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.open("f/", Open::PATH, 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.create("n/"), Err(Errno::EISDIR));
    assert_eq!(fs.create("l"), Err(Errno::EEXIST));
    assert_eq!(fs.open("n", none, 0), Err(Errno::ENOENT));
    assert_eq!(fs.open("l", none, 0), Err(Errno::ELOOP));
    assert!(fs.open("l", Open::PATH, 0).is_ok_and(|node| node.mode & mode::FMT == mode::LNK));
    assert_eq!(fs.open("f", Open::DIRECTORY, 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.open("d", Open::WRONLY, 0), Err(Errno::EISDIR));
    assert_eq!(fs.open("d", Open::CREAT, 0), Err(Errno::EISDIR));
    assert_eq!(fs.open("d", Open::TRUNC, 0), Err(Errno::EISDIR));
    assert!(fs.open("d", Open::DIRECTORY, 0).is_ok());
    assert_eq!(fs.open("d", Open::from_bits_retain(0o20200002), 0o600), Err(Errno::EOPNOTSUPP));
}

#[test]
fn permissions_are_asked_on_the_way_and_at_the_end() {
    let mut fs = Asked::new();
    fs.mkdir("shut").unwrap();
    fs.create("shut/f").unwrap();
    fs.create("roots").unwrap();
    let set = |fs: &mut Asked, path: &str, change: Change| {
        let text = quire_abi::layout::bytes_of(&change).to_vec();
        fs.ask(op::SET, path, 0, 0, &text).map(drop)
    };
    let to = |mode| Change { what: Change::MODE, mode, ..Change::default() };
    set(&mut fs, "shut", to(0o700)).unwrap();
    fs.mkdir("sticky").unwrap();
    set(&mut fs, "sticky", to(0o1777)).unwrap();
    fs.create("sticky/roots").unwrap();
    fs.mkdir("group").unwrap();
    set(&mut fs, "group", to(0o2775)).unwrap();
    set(&mut fs, "group", Change { what: Change::GROUP, group: 50, ..Change::default() }).unwrap();
    fs.who = (7, 7);
    assert_eq!(fs.lookup("shut/f"), Err(Errno::EACCES));
    assert_eq!(fs.open("roots", Open::WRONLY, 0), Err(Errno::EACCES));
    assert_eq!(fs.open("roots", Open::TRUNC, 0), Err(Errno::EACCES));
    assert!(fs.open("roots", Open::empty(), 0).is_ok());
    assert_eq!(fs.create("new"), Err(Errno::EACCES));
    assert_eq!(fs.unlink("sticky/roots"), Err(Errno::EPERM));
    assert_eq!(fs.rename("sticky/roots", "sticky/other", 0), Err(Errno::EPERM));
    fs.create("sticky/own").unwrap();
    assert_eq!(fs.rename("sticky/own", "sticky/roots", 0), Err(Errno::EPERM));
    fs.unlink("sticky/own").unwrap();
    assert_eq!(fs.create("group/f"), Err(Errno::EACCES));
    // A further group counts.
    fs.tree.objects.groups.push(50);
    fs.create("group/f").unwrap();
    fs.mkdir("group/d").unwrap();
    assert_eq!(fs.lookup("group/d").unwrap().mode & 0o7777, 0o2755);
    let made: Vec<_> = fs.tree.objects.objects.values().map(|stat| (stat.uid, stat.gid)).collect();
    assert!(made.contains(&(7, 50)));
    assert_eq!(set(&mut fs, "group", to(0o777)), Err(Errno::EPERM));
    assert_eq!(fs.ask(op::ACCESS, "roots", 2, 0, b""), Err(Errno::EACCES));
    assert!(fs.ask(op::ACCESS, "roots", 4, 0, b"").is_ok());
}

#[test]
fn a_list_meets_what_stays_once() {
    let mut fs = Asked::new();
    for n in 0..100 {
        fs.create(&format!("f{n}")).unwrap();
    }
    let (mut met, mut place) = (Vec::new(), 0);
    loop {
        let (names, next) = fs.list(0, place, 200).unwrap();
        if names.is_empty() {
            break;
        }
        for (name, _) in names {
            if let Some(n) = name.strip_prefix('f') {
                // Others come and go meanwhile.
                fs.unlink(&name).unwrap();
                let _ = fs.create(&format!("g{n}"));
                met.push(n.parse::<u32>().unwrap());
            }
            assert!(met.len() <= 100);
        }
        place = next;
    }
    assert_eq!(met, (0..100).collect::<Vec<_>>());
    let is_end = |fs: &mut Asked, place, room| fs.raw(op::READDIR, "", place, room, b"", false).words[list::IS_END];
    assert_eq!((is_end(&mut fs, 0, 200), is_end(&mut fs, u64::MAX, 200)), (0, 1));
    assert_eq!(fs.list(0, 0, 23), Err(Errno::EINVAL));
    assert_eq!(fs.list(0, u64::MAX, 4000).unwrap().0, []);
}

#[test]
fn a_path_is_where_the_directory_is_now() {
    let mut fs = Asked::new();
    fs.mkdir("a").unwrap();
    fs.mkdir("a/b").unwrap();
    fs.mkdir("c").unwrap();
    let b = fs.lookup("a/b").unwrap().number;
    let path = |fs: &mut Asked| {
        fs.start = b;
        let text = fs.ask(op::PATH, "", 0, 0, b"").unwrap().text;
        fs.start = 0;
        String::from_utf8(text).unwrap()
    };
    assert_eq!(path(&mut fs), "/a/b");
    fs.rename("a/b", "c/d", 0).unwrap();
    assert_eq!(path(&mut fs), "/c/d");
    assert_eq!(fs.ask(op::PATH, "", 0, 0, b"").unwrap().text, b"/");
}

#[test]
fn a_file_has_a_path_as_long_as_it_has_a_name() {
    let mut fs = Asked::new();
    fs.mkdir("a").unwrap();
    fs.mkdir("a/b").unwrap();
    fs.create("a/b/f").unwrap();
    let file = fs.lookup("a/b/f").unwrap().number;
    let path = |fs: &mut Asked| {
        fs.start = file;
        let path = fs.ask(op::PATH, "", 0, 0, b"").map(|answer| String::from_utf8(answer.text).unwrap());
        fs.start = 0;
        path
    };
    assert_eq!(path(&mut fs).as_deref(), Ok("/a/b/f"));
    fs.rename("a/b/f", "g", 0).unwrap();
    assert_eq!(path(&mut fs).as_deref(), Ok("/g"));
    fs.unlink("g").unwrap();
    assert_eq!(path(&mut fs), Err(Errno::ENOENT));
}

#[test]
fn names_of_no_use_for_it_are_refused() {
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    fs.create("f").unwrap();
    assert_eq!(fs.rename("d/.", "e", 0), Err(Errno::EBUSY));
    assert_eq!(fs.rename("d", "d/..", 0), Err(Errno::EBUSY));
    assert_eq!(fs.rename("d", "d/x", 0), Err(Errno::EINVAL));
    assert_eq!(fs.rename("f", "x/", 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename("f/", "x", 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename("d/", "e/", 0), Ok(()));
    assert_eq!(fs.rename("e", "f", 3), Err(Errno::EINVAL));
    assert_eq!(fs.rename("e", "none", 2), Err(Errno::ENOENT));
    assert_eq!(fs.link("e", "l"), Err(Errno::EPERM));
    assert_eq!(fs.link("e/.", "l"), Err(Errno::EPERM));
    assert_eq!(fs.link("f", "l/"), Err(Errno::ENOENT));
    assert_eq!(fs.rmdir("e/."), Err(Errno::EINVAL));
    assert_eq!(fs.rmdir("e/.."), Err(Errno::ENOTEMPTY));
    assert_eq!(fs.rmdir(""), Err(Errno::EBUSY));
    assert_eq!(fs.unlink("e"), Err(Errno::EISDIR));
    assert_eq!(fs.rmdir("f"), Err(Errno::ENOTDIR));
    assert_eq!(fs.mkdir("f"), Err(Errno::EEXIST));
    assert_eq!(fs.mkdir("."), Err(Errno::EEXIST));
    assert_eq!(fs.symlink("", "s"), Err(Errno::ENOENT));
}

#[test]
fn names_and_texts_are_bounded() {
    use quire_tmpfs::tree::MOST_BYTES;
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    let text = "t".repeat(4095);
    let links = (0..).take_while(|n| fs.symlink(&text, &format!("d/{n}")).is_ok()).count();
    assert!(((MOST_BYTES - 8192) / 4100..=MOST_BYTES / 4096).contains(&links), "{links}");
    assert_eq!(fs.symlink(&text, "l"), Err(Errno::ENOSPC));
    for n in 0..links {
        fs.unlink(&format!("d/{n}")).unwrap();
    }
    // A file's further names count too; two of them are `d` and `f0`.
    fs.create("f0").unwrap();
    let most = quire_tmpfs::table::MOST;
    let names = (1..)
        .take_while(|n| {
            fs.link(&format!("f{}", n / 60_000 * 60_000), &format!("f{n}"))
                .or_else(|_| fs.create(&format!("f{n}")).map(drop))
                .is_ok()
        })
        .count();
    assert_eq!(names, most - 2);
    assert_eq!(fs.mkdir("x"), Err(Errno::ENOSPC));
    assert_eq!(fs.rename("f1", "x", 0), Ok(()), "no more names than before");
    assert_eq!(fs.tree.count(), 3);
}

#[test]
fn what_is_done_with_a_name_does_not_follow_it() {
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    fs.create("f").unwrap();
    fs.symlink("d", "to-d").unwrap();
    fs.symlink("none", "to-none").unwrap();
    assert_eq!(fs.rmdir("to-d/"), Err(Errno::ENOTDIR));
    assert_eq!(fs.unlink("to-d/"), Err(Errno::ENOTDIR));
    assert_eq!(fs.unlink("f/"), Err(Errno::ENOTDIR));
    assert_eq!(fs.unlink("none/"), Err(Errno::ENOENT));
    assert_eq!(fs.unlink("d/"), Err(Errno::EISDIR));
    assert_eq!(fs.mkdir("to-none/"), Err(Errno::EEXIST));
    assert_eq!(fs.mkdir("f/"), Err(Errno::EEXIST));
    assert_eq!(fs.symlink("x", "to-d/"), Err(Errno::EEXIST));
    assert_eq!(fs.symlink("x", "none/"), Err(Errno::ENOENT));
    assert_eq!(fs.link("f", "to-d/"), Err(Errno::EEXIST));
    assert_eq!(fs.link("f/", "x"), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename("to-d/", "x", 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename("d", "to-d/", 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename("d", "f/", 1), Err(Errno::EEXIST));
    assert_eq!(fs.rename("d", "f/", 2), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename("f", "d/", 2), Ok(()));
    assert_eq!(fs.rename("f/", "d", 2), Ok(()), "f is the directory now");
    // For all other operations, a link's directory followed by a slash is the directory that it leads to.
    assert_eq!(fs.raw(op::PARENT, "to-d/", op::LINK, 0, b"", false).label, LINK);
    assert_eq!(fs.raw(op::ACCESS, "to-d/", 0, 0, b"", false).label, LINK);
}

#[test]
fn a_rename_has_linux_s_errors_in_linux_s_order() {
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    fs.create("d/f").unwrap();
    fs.link("d/f", "d/g").unwrap();
    fs.create("f").unwrap();
    assert_eq!(fs.rename("d/f", "d", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(fs.rename("d/f", "d", 2), Err(Errno::EINVAL));
    assert_eq!(fs.rename("f", ".", 0), Err(Errno::EBUSY));
    assert_eq!(fs.rename("f", ".", 1), Err(Errno::EEXIST));
    assert_eq!(fs.rename("none", "d/..", 0), Err(Errno::EBUSY));
    assert_eq!(fs.rename("none", "f", 1), Err(Errno::ENOENT));
    fs.who = (7, 7);
    assert_eq!(fs.rename("d/f", "d/g", 0), Ok(()), "two names of one file need no permission");
    assert_eq!(fs.rename("d/f", "d/g", 1), Err(Errno::EEXIST));
    assert_eq!(fs.rename("d/f", "d/h", 0), Err(Errno::EACCES));
}

#[test]
fn a_name_that_is_renamed_over_is_listed_once() {
    let mut fs = Asked::new();
    for name in ["a", "b", "c"] {
        fs.create(name).unwrap();
    }
    // `.`, `..`, and `a`.
    let (_, place) = fs.list(0, 0, 72).unwrap();
    fs.rename("c", "a", 0).unwrap();
    let rest: Vec<_> = fs.list(0, place, 300).unwrap().0.into_iter().map(|(name, _)| name).collect();
    assert_eq!(rest, ["b"]);
}

#[test]
fn a_group_s_directory_lends_its_group_to_no_program_of_others() {
    let mut fs = Asked::new();
    fs.mkdir("g").unwrap();
    for change in [
        Change { what: Change::GROUP, group: 50, ..Change::default() },
        Change { what: Change::MODE, mode: 0o2777, ..Change::default() },
    ] {
        fs.ask(op::SET, "g", 0, 0, quire_abi::layout::bytes_of(&change)).unwrap();
    }
    fs.who = (7, 7);
    let made = |fs: &mut Asked, path: &str, mode: u32| {
        let number = fs.open(path, Open::CREAT | Open::EXCL | Open::WRONLY, mode).unwrap().number;
        let stat = fs.tree.objects.objects[&(number + 1)];
        (stat.mode & 0o7777, stat.gid)
    };
    assert_eq!(made(&mut fs, "g/x", 0o2775), (0o775, 50));
    assert_eq!(made(&mut fs, "g/y", 0o2745), (0o2745, 50));
    fs.tree.objects.groups.push(50);
    assert_eq!(made(&mut fs, "g/z", 0o2775), (0o2775, 50));
}

#[test]
fn attributes_are_their_owner_s() {
    let mut fs = Asked::new();
    fs.mkdir("roots").unwrap();
    fs.mkdir("own").unwrap();
    fs.mkdir("all").unwrap();
    let set = |fs: &mut Asked, path: &str, change: Change| {
        fs.ask(op::SET, path, 0, 0, quire_abi::layout::bytes_of(&change)).map(drop)
    };
    let user = |user| Change { what: Change::USER, user, ..Change::default() };
    let group = |group| Change { what: Change::GROUP, group, ..Change::default() };
    let times = |more| Change { what: Change::ACCESSED | Change::MODIFIED | more, ..Change::default() };
    set(&mut fs, "own", user(7)).unwrap();
    set(&mut fs, "all", Change { what: Change::MODE, mode: 0o777, ..Change::default() }).unwrap();
    fs.who = (7, 7);
    assert_eq!(set(&mut fs, "roots", Change::default()), Ok(()));
    assert_eq!(set(&mut fs, "roots", user(0)), Err(Errno::EPERM));
    assert_eq!(set(&mut fs, "roots", times(0)), Err(Errno::EPERM));
    assert_eq!(set(&mut fs, "roots", times(Change::NOW)), Err(Errno::EACCES));
    assert_eq!(set(&mut fs, "all", times(Change::NOW)), Ok(()));
    assert_eq!(set(&mut fs, "all", times(0)), Err(Errno::EPERM));
    assert_eq!(set(&mut fs, "own", times(0)), Ok(()));
    assert_eq!(set(&mut fs, "own", user(7)), Ok(()));
    assert_eq!(set(&mut fs, "own", user(8)), Err(Errno::EPERM));
    assert_eq!(set(&mut fs, "own", group(51)), Err(Errno::EPERM));
    assert_eq!(set(&mut fs, "own", group(7)), Ok(()));
}

#[test]
fn numbers_of_a_former_server_are_unknown() {
    let mut fs = Asked::new();
    fs.mkdir("d").unwrap();
    let old = fs.lookup("d").unwrap().number;
    for random in [1, 0x7fff_ffff, u32::MAX - 1] {
        let mut new = Asked::new();
        new.tree = new.tree.numbered_from(random);
        new.mkdir("d").unwrap();
        let node = new.lookup("d").unwrap();
        assert!(node.number < 1 << 47 && node.number != old);
        assert_eq!(new.list(old, 0, 300), Err(Errno::ENOENT));
        assert!(new.list(node.number, 0, 300).is_ok() && new.list(0, 0, 300).is_ok());
        // A file's inode number is one more than its number.
        let file = new.create("f").unwrap();
        assert!(new.tree.objects.objects.contains_key(&(file.number + 1)));
    }
}
