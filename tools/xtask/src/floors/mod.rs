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
//! What counts as an import, [`mod@imports`] says. Code for tests may import anything (files called `tests`, and items behind a
//! `#[cfg(...)]` that asks for them), and so may documentation.

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use imports::{Import, imports};

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
        let upward = upward.with_context(|| format!("reading {}", file.display()))?;
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
    fn upward(&self, root: &str, file: &Path, text: &str) -> Result<Vec<(usize, String)>> {
        let mut modules: Vec<String> =
            file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        modules.retain(|module| module != "mod");
        let who = &modules[0];
        let Some(&own) = self.0.get(who) else {
            return Ok(vec![(1, format!("{who} is on no floor of the list"))]);
        };
        let parent: Vec<String> = root.split("::").skip(1).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut wrong = Vec::new();
        for (line, import) in imports(text, &parent, &[&parent[..], &modules].concat())? {
            let what = match import {
                Import::Name(name) => match self.0.get(&name) {
                    Some(&floor) if floor > own => format!("{who} imports {name}"),
                    Some(_) => continue,
                    None => format!("{name}: not a module on the list of floors"),
                },
                Import::Hidden => format!("name what {who} imports: another name of {root}, or all of it, hides that"),
                Import::NoTest => "a module called tests needs #[cfg(test)]".to_owned(),
            };
            wrong.push((line, what));
        }
        // A tree of paths leads to the same module several times.
        wrong.dedup();
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "//! A crate.\n//!\n//! Floors, lowest first; none imports a higher one:\n//! - [`mod@addr`],\n//!   `bitmap`: words,\n\
                        //!   of all kinds.\n//! - [`page`]: frames.\n//! - [`mm`]: spaces.\n//!\n//! - [`not`]: a floor.\n\npub mod addr;\n";

    fn wrong(path: &str, text: &str) -> Vec<(usize, String)> {
        Floors::parse(ROOT).unwrap().upward("crate::", Path::new(path), text).unwrap()
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
        assert_eq!(wrong("page.rs", "use crate::{\n    mm,\n};\n"), [up(2, "page", "mm")]);
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

    /// Every way to write an import counts.
    #[test]
    fn no_spelling_gets_past() {
        let up = |line| (line, "page imports mm".to_owned());
        for text in [
            "use super::{super::mm::Mm, state};\n",
            "use super::{state, super::{addr, mm::{self, Mm}}};\n",
            "use self::super::super::mm::Mm;\n",
            "use {core::mem, crate::mm};\n",
            "fn f() { g::<crate :: mm :: Mm>() }\n",
            "macro_rules! m { () => { $crate::mm::make() } }\n",
            "mod inner { use super::super::super::mm::Mm; }\n",
            "#[derive(crate::mm::Mm)] struct S;\n",
            "use /* why */ crate::mm::*;\n",
        ] {
            assert_eq!(wrong("page/head.rs", text), [up(1)], "{text}");
        }
        for text in [
            "use crate as root;\n",
            "use crate::{self as root};\n",
            "use super::super as root;\n",
            "use super::{super as root};\n",
            "use super::super::*;\n",
            "use crate::*;\n",
            "extern crate self as root;\n",
        ] {
            let found = wrong("page/head.rs", text);
            assert!(found.len() == 1 && found[0].1.contains("hides"), "{text}: {found:?}");
        }
        assert_eq!(wrong("page/head.rs", "use super::*;\nuse super as page;\nuse self::x as y;\n"), []);
        assert_eq!(wrong("page.rs", "pub(crate) fn f() {}\npub(in crate) fn g(self) { self.x }\n"), []);
        assert_eq!(wrong("page.rs", "const S: &str = \"crate::mm\";\n/* crate::mm */\n"), []);
    }

    /// Only code that is in no kernel is exempt.
    #[test]
    fn a_condition_that_mentions_tests_is_not_one_for_tests() {
        let up = |line| (line, "page imports mm".to_owned());
        for condition in [
            "feature = \"selftest\"",
            "any(test, feature = \"sim\")",
            "not(test)",
            "all(feature = \"selftest\", not(doc))",
            "any()",
            "test_of_mine",
        ] {
            let text = format!("#[cfg({condition})]\nuse crate::mm::Mm;\n");
            assert_eq!(wrong("page.rs", &text), [up(2)], "{text}");
        }
        for condition in ["test", "all(test, feature = \"sim\")", "any(test, doc)", "all(not(loom), any(test,))"] {
            let text = format!("#[cfg({condition})]\n#[allow(x)]\nuse crate::mm::Mm;\nfn f() {{}}\n");
            assert_eq!(wrong("page.rs", &text), [], "{text}");
        }
        let item = "#[cfg(test)]\nfn f<A, B>(a: crate::mm::A<A>) -> B { crate::mm::b() }\nuse crate::mm::Mm;\n";
        assert_eq!(wrong("page.rs", item), [up(3)]);
        assert_eq!(wrong("page.rs", "#[cfg(test)]\nmod tests { use crate::mm; }\nuse crate::mm;\n"), [up(3)]);
        assert_eq!(wrong("page.rs", "struct S { #[cfg(test)] a: crate::mm::A, b: crate::mm::B }\n"), [up(1)]);
        assert_eq!(wrong("page.rs", "#![cfg(test)]\nuse crate::mm::Mm;\n"), []);
        assert_eq!(wrong("page.rs", "mod tests;\n").len(), 1, "files called tests are not looked at");
    }

    #[test]
    fn a_module_has_floors_of_its_own() {
        let floors = Floors::parse(ROOT).unwrap();
        let wrong = |text: &str| floors.upward("crate::slab::", Path::new("page.rs"), text).unwrap();
        assert_eq!(wrong("use crate::slab::addr::Pfn;\nuse crate::mm::Mm;\nuse super::super::mm::Mm;\n"), []);
        let up = |line| (line, "page imports mm".to_owned());
        assert_eq!(
            wrong("use crate::slab::mm::Mm;\nuse crate::slab::{addr, mm};\nuse super::mm;\n"),
            [up(1), up(2), up(3)]
        );
        let hidden = wrong("use crate::slab;\nuse crate::*;\nuse super as s;\nuse crate::slab as t;\n");
        assert!(hidden.len() == 4 && hidden.iter().all(|(_, what)| what.contains("hides")), "{hidden:?}");
    }

    #[test]
    fn our_crates_keep_to_their_floors() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        crate::lint::FLOORS.iter().for_each(|(file, path)| check(&root.join(file), path).unwrap());
    }
}
