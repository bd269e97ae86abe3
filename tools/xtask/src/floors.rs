//! Floors of a crate, or of a module with many files: the head of its root lists its modules by floor, lowest first, and
//! none imports a higher one.
//!
//! The list is part of the documentation, so what it says stays true:
//!
//! ```text
//! //! Floors, lowest first; ...:
//! //! - [`addr`], `bitmap`: words.
//! //! - [`machine`]: the hardware.
//! ```
//!
//! A path counts as an import if it begins with `crate::` (and the path of the module whose floors these are), or with as many `super::` as lead there. Code for tests (files
//! called `tests`, and the item or line behind a `#[cfg(...)]` that asks for them) may import anything, and so may documentation.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The floor of each module of a crate or of a module.
#[derive(Debug)]
struct Floors(BTreeMap<String, usize>);

/// Fails if a module imports a higher one, or has no floor. `root` is the file whose head lists the floors, and `path` is
/// how code names it: `crate::`, or `crate::slab::`.
pub fn check(root: &Path, path: &str) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let floors = Floors::parse(&read(root)?).with_context(|| format!("the floors of {}", root.display()))?;
    let directory = root.parent().context("a file has a directory")?;
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| *file != root) {
        let upward = floors.upward(path, file.strip_prefix(directory)?, &read(file)?);
        wrong.extend(upward.into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.display())));
    }
    ensure!(
        wrong.is_empty(),
        "modules import higher floors (the list is in {}):\n{}",
        root.display(),
        wrong.join("\n")
    );
    Ok(())
}

/// All Rust files below a directory but those of tests, in the order of their names.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    for path in entries.into_iter().filter(|path| path.file_stem().is_some_and(|stem| stem != "tests")) {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

impl Floors {
    /// From the text of the root module.
    fn parse(root: &str) -> Result<Self> {
        let mut floors = BTreeMap::new();
        let head = root.lines().map_while(|line| line.strip_prefix("//!"));
        let items = head.skip_while(|line| !line.contains("Floors, lowest first")).skip(1);
        let items = items.take_while(|line| line.starts_with(" - ") || line.starts_with("   "));
        let text: String = items.flat_map(|line| ["\n", line]).collect();
        for (floor, item) in text.split("\n - ").skip(1).enumerate() {
            let names = item.split_once(':').map_or(item, |(names, _)| names);
            for name in names.split('`').skip(1).step_by(2) {
                // rustdoc wants to know which of two things of that name is meant.
                let name = name.trim_start_matches("mod@");
                if floors.insert(name.to_owned(), floor).is_some() {
                    bail!("{name} is on two of them");
                }
            }
        }
        ensure!(!floors.is_empty(), "its head has no list that begins with \"Floors, lowest first\"");
        Ok(Self(floors))
    }

    /// What is wrong in a file, by line. `root` is the path of the modules' parent, and `file` is the file's from there.
    fn upward(&self, root: &str, file: &Path, text: &str) -> Vec<(usize, String)> {
        let mut modules: Vec<String> =
            file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        modules.retain(|module| module != "mod");
        let Some(&own) = self.0.get(&modules[0]) else {
            return vec![(1, format!("{} is on no floor of the list", modules[0]))];
        };
        let mut wrong = Vec::new();
        for (line, name) in imports(text, root, modules.len()) {
            match self.0.get(&name) {
                Some(&floor) if floor > own => wrong.push((line, format!("{} imports {name}", modules[0]))),
                Some(_) => {}
                None => wrong.push((line, format!("{name}: not a module on the list of floors"))),
            }
        }
        wrong
    }
}

/// The names that follow the root in paths of a module that lies `depth` below it, with their lines.
fn imports(text: &str, root: &str, depth: usize) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    let mut is_exempt = false;
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        if is_exempt && code.trim_start().starts_with("mod ") && code.trim_end().ends_with('{') {
            // An inline module of tests: it is the last item of its file.
            break;
        }
        for root in [root, &to_root] {
            let paths = code.match_indices(root).filter(|(at, _)| {
                let before = code[..*at].chars().next_back();
                !is_exempt && before.is_none_or(|before| !before.is_alphanumeric() && !"_:".contains(before))
            });
            for (at, _) in paths {
                found.extend(first_names(&code[at + root.len()..]).map(|name| (number, name)));
            }
        }
        let attribute = code.trim().strip_prefix("#[cfg(").filter(|condition| !condition.contains("not("));
        is_exempt = attribute.is_some_and(|condition| condition.contains("test") || condition.contains("doc"));
    }
    found
}

/// The first name of a path, or of each path of a group in braces. Names of a root's own items count too, and so does the
/// brace of a group that goes on on the next line: it is no name of a module. A further `super` leads out.
fn first_names(path: &str) -> impl Iterator<Item = String> {
    let (group, is_group) = path.strip_prefix('{').map_or((path, false), |group| (group, true));
    let mut nested = 0_usize;
    let parts = group.split(move |c| {
        match c {
            '{' => nested += 1,
            '}' => nested = nested.saturating_sub(1),
            _ => {}
        }
        c == ',' && nested == 0
    });
    let name = |part: &str| part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let count = if is_group { usize::MAX } else { 1 };
    let open = (is_group && !group.contains('}')).then(|| "{".to_owned());
    let names = parts.take(count).map(name).filter(|name| !name.is_empty() && name != "self" && name != "super");
    names.chain(open).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "//! A crate.\n//!\n//! Floors, lowest first; none imports a higher one:\n//! - [`mod@addr`],\n//!   `bitmap`: words,\n\
                        //!   of all kinds.\n//! - [`page`]: frames.\n//! - [`mm`]: spaces.\n//!\n//! - [`not`]: a floor.\n\npub mod addr;\n";

    fn wrong(path: &str, text: &str) -> Vec<(usize, String)> {
        Floors::parse(ROOT).unwrap().upward("crate::", Path::new(path), text)
    }

    #[test]
    fn the_list_is_read_from_the_head() {
        let floors = Floors::parse(ROOT).unwrap().0;
        let expected = [("addr", 0), ("bitmap", 0), ("mm", 2), ("page", 1)];
        assert!(floors.iter().map(|(name, &floor)| (name.as_str(), floor)).eq(expected));
        assert!(Floors::parse("//! No list.\n").is_err());
        assert!(Floors::parse("//! Floors, lowest first:\n//! - `a`: x\n//! - `a`: y\n").is_err());
    }

    #[test]
    fn imports_go_down_or_stay() {
        assert_eq!(wrong("mm/fault.rs", "use crate::page::Page;\nuse crate::mm::Mm;\nuse super::Mm;\n"), []);
        assert_eq!(wrong("page.rs", "use crate::addr::Pfn;\nuse core::mem;\n"), []);
        let up = |line, who: &str, whom: &str| (line, format!("{who} imports {whom}"));
        assert_eq!(wrong("page/state.rs", "\nuse crate::mm::Mm;\n"), [up(2, "page", "mm")]);
        assert_eq!(
            wrong("addr.rs", "fn f() -> crate::page::Page {\n    super::mm::make()\n}\n"),
            [up(1, "addr", "page"), up(2, "addr", "mm")]
        );
        assert_eq!(wrong("page/mod.rs", "use crate::{addr::{Pfn, mm}, mm::{self, Mm}};\n"), [up(1, "page", "mm")]);
        assert_eq!(wrong("page/head.rs", "use super::super::mm::Mm;\nuse super::mm;\n"), [up(1, "page", "mm")]);
        assert_eq!(wrong("page.rs", "use crate::{\n    mm,\n};\n").len(), 1, "a group that the check cannot see");
        assert_eq!(wrong("slab.rs", "").len(), 1, "a module without a floor");
        assert_eq!(wrong("mm/mod.rs", "use crate::Page;\n").len(), 1, "a name that hides where it comes from");
    }

    #[test]
    fn tests_and_documentation_may_look_up() {
        assert_eq!(wrong("page.rs", "//! See [`crate::mm`].\n/// [`crate::mm::Mm`]\nfn f() {} // crate::mm\n"), []);
        assert_eq!(wrong("page.rs", "#[cfg(doc)]\nuse crate::mm::Mm;\n#[cfg(test)]\nuse crate::mm::Mm;\n"), []);
        assert_eq!(wrong("page.rs", "#[cfg(test)]\nmod tests {\n    use crate::mm::Mm;\n}\n"), []);
        assert_eq!(wrong("page.rs", "#[cfg(test)]\nmod tests;\nuse crate::mm::Mm;\n").len(), 1);
    }

    #[test]
    fn a_module_has_floors_of_its_own() {
        let floors = Floors::parse(ROOT).unwrap();
        let wrong = |text: &str| floors.upward("crate::slab::", Path::new("page.rs"), text);
        assert_eq!(wrong("use crate::slab::addr::Pfn;\nuse crate::mm::Mm;\nuse super::super::mm::Mm;\n"), []);
        let up = |line| (line, "page imports mm".to_owned());
        assert_eq!(
            wrong("use crate::slab::mm::Mm;\nuse crate::slab::{addr, mm};\nuse super::mm;\n"),
            [up(1), up(2), up(3)]
        );
    }

    #[test]
    fn our_crates_keep_to_their_floors() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        crate::lint::FLOORS.iter().for_each(|(file, path)| check(&root.join(file), path).unwrap());
    }
}
