//! Random operations compared with a model: a map from absolute paths to nodes.

mod common;

use std::collections::BTreeMap;

use common::Asked;
use proptest::prelude::*;
use quire_abi::Errno;
use quire_abi::layout::mode;

#[derive(Clone, Debug, PartialEq)]
enum Thing {
    Directory,
    /// Which file.
    File(u64),
    /// Which link, and its text.
    Link(u64, String),
}

/// Paths without a leading slash; the root is not in it.
type Model = BTreeMap<String, Thing>;

#[derive(Clone, Debug)]
enum Step {
    Create(String),
    Mkdir(String),
    Symlink(String),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, u64),
}

fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c"]);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        path().prop_map(Step::Create),
        path().prop_map(Step::Mkdir),
        path().prop_map(Step::Mkdir),
        path().prop_map(Step::Symlink),
        (path(), path()).prop_map(|(old, new)| Step::Link(old, new)),
        path().prop_map(Step::Unlink),
        path().prop_map(Step::Rmdir),
        (path(), path(), 0..3u64).prop_map(|(old, new, flags)| Step::Rename(old, new, flags)),
    ]
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Whether a path leads to a directory, or the error. `None` if a link is on the way: then there is no error.
fn directory(model: &Model, path: &str) -> Option<Result<(), Errno>> {
    let mut at = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if !at.is_empty() {
            at.push('/');
        }
        at.push_str(part);
        match model.get(&at) {
            Some(Thing::Directory) => {}
            Some(Thing::File(_)) => return Some(Err(Errno::ENOTDIR)),
            Some(Thing::Link(..)) => return None,
            None => return Some(Err(Errno::ENOENT)),
        }
    }
    Some(Ok(()))
}

fn has_entries(model: &Model, path: &str) -> bool {
    let prefix = format!("{path}/");
    model.keys().any(|key| key.starts_with(&prefix))
}

fn is_within(path: &str, other: &str) -> bool {
    path == other || path.starts_with(&format!("{other}/"))
}

/// Moves a name and everything below it.
fn relocate(model: &mut Model, old: &str, new: &str) {
    let moved: Vec<_> = model.keys().filter(|key| is_within(key, old)).cloned().collect();
    let things: Vec<_> =
        moved.iter().map(|key| (format!("{new}{}", &key[old.len()..]), model.remove(key).unwrap())).collect();
    model.extend(things);
}

fn rename(model: &mut Model, old: &str, new: &str, flags: u64) -> Result<(), Errno> {
    let thing = model.get(old).cloned().ok_or(Errno::ENOENT)?;
    let there = model.get(new).cloned();
    match there {
        Some(_) if flags == 1 => return Err(Errno::EEXIST),
        None if flags == 2 => return Err(Errno::ENOENT),
        _ => {}
    }
    let is_dir = thing == Thing::Directory;
    if is_dir && is_within(parent(new), old) {
        return Err(Errno::EINVAL);
    }
    if flags == 2 && there == Some(Thing::Directory) && is_within(parent(old), new) {
        return Err(Errno::EINVAL);
    }
    if flags != 2 && there == Some(Thing::Directory) && old != new && is_within(parent(old), new) {
        return Err(Errno::ENOTEMPTY);
    }
    let Some(there) = there else {
        relocate(model, old, new);
        return Ok(());
    };
    if old == new || !is_dir && thing == there {
        return Ok(());
    }
    if flags == 2 {
        relocate(model, old, "\u{1}");
        relocate(model, new, old);
        relocate(model, "\u{1}", new);
        return Ok(());
    }
    match there {
        Thing::Directory if !is_dir => Err(Errno::EISDIR),
        Thing::Directory if has_entries(model, new) => Err(Errno::ENOTEMPTY),
        Thing::File(_) | Thing::Link(..) if is_dir => Err(Errno::ENOTDIR),
        _ => {
            model.remove(new);
            relocate(model, old, new);
            Ok(())
        }
    }
}

/// Does a step in both; returns both results.
fn both(fs: &mut Asked, model: &mut Model, step: &Step) -> Option<(Result<(), Errno>, Result<(), Errno>)> {
    let reach = |model: &Model, path: &str| directory(model, parent(path));
    Some(match step {
        Step::Create(path) => {
            let wanted = reach(model, path)?.and(if model.contains_key(path) { Err(Errno::EEXIST) } else { Ok(()) });
            let got = fs.create(path);
            if let (Ok(()), Ok(node)) = (wanted, got) {
                model.insert(path.clone(), Thing::File(node.number));
            }
            (got.map(drop), wanted)
        }
        Step::Mkdir(path) => {
            let wanted = reach(model, path)?.and(if model.contains_key(path) { Err(Errno::EEXIST) } else { Ok(()) });
            if wanted.is_ok() {
                model.insert(path.clone(), Thing::Directory);
            }
            (fs.mkdir(path), wanted)
        }
        Step::Symlink(path) => {
            let wanted = reach(model, path)?.and(if model.contains_key(path) { Err(Errno::EEXIST) } else { Ok(()) });
            let got = fs.symlink(path, path);
            if wanted.and(got).is_ok() {
                let number = fs.lookup(path).unwrap().number;
                model.insert(path.clone(), Thing::Link(number, path.clone()));
            }
            (got, wanted)
        }
        Step::Link(old, new) => {
            let wanted = reach(model, old)?.and(reach(model, new)?).and_then(|()| match model.get(old) {
                None => Err(Errno::ENOENT),
                Some(_) if model.contains_key(new) => Err(Errno::EEXIST),
                Some(Thing::Directory) => Err(Errno::EPERM),
                Some(thing) => Ok(thing.clone()),
            });
            let got = fs.link(old, new);
            (got, wanted.map(|thing| drop(model.insert(new.clone(), thing))))
        }
        Step::Unlink(path) => {
            let wanted = reach(model, path)?.and(match model.get(path) {
                None => Err(Errno::ENOENT),
                Some(Thing::Directory) => Err(Errno::EISDIR),
                Some(_) => Ok(()),
            });
            if wanted.is_ok() {
                model.remove(path);
            }
            (fs.unlink(path), wanted)
        }
        Step::Rmdir(path) => {
            let wanted = reach(model, path)?.and(match model.get(path) {
                None => Err(Errno::ENOENT),
                Some(Thing::Directory) if has_entries(model, path) => Err(Errno::ENOTEMPTY),
                Some(Thing::Directory) => Ok(()),
                Some(_) => Err(Errno::ENOTDIR),
            });
            if wanted.is_ok() {
                model.remove(path);
            }
            (fs.rmdir(path), wanted)
        }
        Step::Rename(old, new, flags) => {
            let reached = reach(model, old)?.and(reach(model, new)?);
            (fs.rename(old, new, *flags), reached.and_then(|()| rename(model, old, new, *flags)))
        }
    })
}

/// All names that the tree lists, and their nodes.
fn listed(fs: &mut Asked, directory: &str, all: &mut BTreeMap<String, (u32, u32, u64)>) {
    for name in fs.names(directory) {
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        let node = fs.lookup(&path).unwrap();
        let links = fs.tree.objects.objects.get(&(node.number + 1)).map_or(node.links, |stat| stat.nlink);
        all.insert(path.clone(), (node.mode & mode::FMT, links, node.number));
        if node.mode & mode::FMT == mode::DIR {
            listed(fs, &path, all);
        }
    }
}

fn check(fs: &mut Asked, model: &Model) {
    let mut all = BTreeMap::new();
    listed(fs, "", &mut all);
    assert_eq!(all.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
    for (path, thing) in model {
        let (kind, links, number) = all[path];
        match thing {
            Thing::Directory => {
                let below = |key: &&String| parent(key) == path && model[*key] == Thing::Directory;
                assert_eq!((kind, links), (mode::DIR, 2 + model.keys().filter(below).count() as u32), "{path}");
            }
            Thing::File(file) => {
                let names = model.values().filter(|other| *other == thing).count() as u32;
                assert_eq!((kind, links, number), (mode::REG, names, *file), "{path}");
            }
            Thing::Link(link, text) => {
                let names = model.values().filter(|other| *other == thing).count() as u32;
                let answer = fs.ask(quire_abi::names::op::READLINK, path, 0, 0, b"").unwrap();
                assert_eq!((kind, links, number), (mode::LNK, names, *link), "{path}");
                assert_eq!(answer.text, text.as_bytes(), "{path}");
            }
        }
    }
    let files: std::collections::BTreeSet<_> =
        model.values().filter_map(|thing| if let Thing::File(file) = thing { Some(file) } else { None }).collect();
    assert_eq!(fs.tree.objects.handles.len(), files.len(), "one handle a file");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_as_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let (mut fs, mut model) = (Asked::new(), Model::new());
        for step in &steps {
            if let Some((got, wanted)) = both(&mut fs, &mut model, step) {
                prop_assert_eq!(got, wanted, "{:?}", step);
            }
        }
        check(&mut fs, &model);
        // Emptied, it has nothing left.
        let paths: Vec<_> = model.iter().rev().map(|(path, thing)| (path.clone(), thing.clone())).collect();
        for (path, thing) in paths {
            let removed = if thing == Thing::Directory { fs.rmdir(&path) } else { fs.unlink(&path) };
            prop_assert_eq!(removed, Ok(()));
        }
        prop_assert_eq!((fs.tree.count(), fs.tree.objects.handles.len()), (0, 0));
    }
}
