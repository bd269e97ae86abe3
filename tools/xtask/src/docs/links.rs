//! Links from the book's pages to sources: relative paths, which work in the repository. In the built book they lead to
//! rustdoc's pages of the same files.

/// Where rustdoc puts the sources of a folder.
const FOLDERS: [(&str, &str); 24] = [
    ("kernel/abi/src/", "host/src/quire_abi/"),
    ("kernel/ipc/src/", "host/src/quire_ipc/"),
    ("kernel/mm/src/", "host/src/quire_mm/"),
    ("kernel/names/src/", "host/src/quire_names/"),
    ("kernel/sched/src/", "host/src/quire_sched/"),
    ("kernel/src/", "kernel/src/quire_kernel/"),
    ("platform/src/", "host/src/quire_platform/"),
    ("user/bin/src/", "programs/src/quire_bin/"),
    ("user/closeup/src/", "host/src/quire_closeup/"),
    ("user/lab/src/", "host/src/quire_lab/"),
    ("user/malloc/src/", "host/src/quire_malloc/"),
    ("user/rt/src/", "programs/src/quire_rt/"),
    ("user/servers/bin/src/", "programs/src/quire_servers/"),
    ("user/servers/block/src/", "host/src/quire_block/"),
    ("user/servers/card/src/", "host/src/quire_card/"),
    ("user/servers/fat/src/", "host/src/quire_fat/"),
    ("user/servers/fs/src/", "host/src/quire_fs/"),
    ("user/servers/cgroup/src/", "host/src/quire_cgroupfs/"),
    ("user/servers/procfs/src/", "host/src/quire_procfs/"),
    ("user/servers/tmpfs/src/", "host/src/quire_tmpfs/"),
    ("user/shell/src/", "host/src/quire_shell/"),
    ("user/init/src/", "programs/src/init/"),
    ("tools/view/src/", "host/src/quire_view/"),
    ("tools/xtask/src/", "host/src/xtask/"),
];

/// A link in a page: its text and its target.
#[derive(Debug, PartialEq, Eq)]
pub struct Link<'a> {
    pub text: &'a str,
    pub target: &'a str,
}

/// How the targets of links begin that lead out of docs/, on a page that lies `depth` folders below it.
fn way_out(depth: usize) -> String {
    format!("]({}", "../".repeat(depth + 1))
}

/// The links of a page to files outside docs/. The page lies `depth` folders below it.
pub fn to_sources(page: &str, depth: usize) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    let (mut rest, way) = (page, way_out(depth));
    while let Some((before, after)) = rest.split_once(&way) {
        rest = after;
        let (Some((_, text)), Some((target, _))) = (before.rsplit_once('['), after.split_once(')')) else { continue };
        links.push(Link { text, target });
    }
    links
}

/// A page with its links rewritten for the book.
pub fn rewritten(page: &str, depth: usize) -> String {
    let (mut text, way, up) = (page.to_owned(), way_out(depth), "../".repeat(depth));
    for Link { target, .. } in to_sources(page, depth) {
        let found = FOLDERS.iter().find_map(|(folder, place)| Some((place, target.strip_prefix(folder)?)));
        if let Some((place, file)) = found {
            text = text.replace(&format!("{way}{target})"), &format!("]({up}reference/{place}{file}.html)"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn links_lead_to_rustdoc_s_pages() {
        let page = "a [`Mm::fault`](../kernel/mm/src/mm/fault.rs) b [x](other.md) [y](../README.md)";
        let expected =
            "a [`Mm::fault`](reference/host/src/quire_mm/mm/fault.rs.html) b [x](other.md) [y](../README.md)";
        assert_eq!(rewritten(page, 0), expected);
        let below = page.replace("](", "](../");
        assert_eq!(rewritten(&below, 1), expected.replace("](", "](../"));
        let links = to_sources(page, 0);
        assert_eq!(links, to_sources(&below, 1));
        assert_eq!(links[0], Link { text: "`Mm::fault`", target: "kernel/mm/src/mm/fault.rs" });
        assert_eq!(links.len(), 2);
    }

    /// Whether a file declares an item of this name.
    fn declares(source: &str, name: &str) -> bool {
        let kinds = ["fn", "struct", "enum", "trait", "static", "const", "type", "mod", "macro_rules!"];
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let declared = |kind: &&str| {
            let start = format!("{kind} {name}");
            source.match_indices(&start).any(|(at, _)| ends(&source[at + start.len()..]))
        };
        // Assembly has labels.
        kinds.iter().any(declared) || source.lines().any(|line| line.trim() == format!("{name}:"))
    }

    /// Every source that a page links to exists, has a page in the built book, and declares the item that the link names.
    #[test]
    fn links_name_what_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut checked = 0;
        for (path, depth) in crate::docs::pages(&root.join("docs")).unwrap() {
            let page = fs::read_to_string(&path).unwrap();
            for Link { text, target } in to_sources(&page, depth) {
                let source = fs::read_to_string(root.join(target));
                let source = source.unwrap_or_else(|error| panic!("{}: {target}: {error}", path.display()));
                let has_page = target.ends_with('/') || FOLDERS.iter().any(|(folder, _)| target.starts_with(folder));
                assert!(has_page, "{}: rustdoc's page of {target} is not known", path.display());
                let name = text.trim_matches('`');
                let name = name.rsplit("::").next().unwrap();
                let is_file = text.contains('/') || !text.starts_with('`');
                assert!(is_file || declares(&source, name), "{}: {target} has no {name}", path.display());
                checked += 1;
            }
        }
        assert!(checked > 40, "{checked} links");
    }

    /// The table of contents has every page; mdBook leaves out the others.
    #[test]
    fn the_table_of_contents_is_complete() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let contents = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
        for (path, _) in crate::docs::pages(&docs).unwrap() {
            let name = path.strip_prefix(&docs).unwrap().to_str().unwrap();
            let is_there = contents.contains(&format!("({name})"));
            assert!(is_there || name == "SUMMARY.md", "SUMMARY.md has no {name}");
        }
    }

    /// The page that leads to rustdoc's pages names every library.
    #[test]
    fn the_reference_names_every_library() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let reference = fs::read_to_string(root.join("docs/reference.md")).unwrap();
        let folders = ["", "kernel", "user", "user/servers"];
        let folders = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
        let mut named = 0;
        for folder in folders.map(|folder| folder.unwrap().path()).filter(|path| path.join("src/lib.rs").exists()) {
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            let named_apart = manifest.split_once("[lib]").map_or(&*manifest, |(_, library)| library);
            let (_, name) = named_apart.split_once("name = \"").expect("a package has a name");
            let name = name.split_once('"').unwrap().0.replace('-', "_");
            assert!(reference.contains(&format!("[`{name}`](")), "docs/reference.md does not lead to {name}");
            named += 1;
        }
        assert!(named > 5, "{named} libraries");
    }

    /// A tour passes through at most five files, which its list names in order.
    #[test]
    fn tours_are_short() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for tour in ["fault", "allocation", "free", "syscall"] {
            let page = fs::read_to_string(docs.join(format!("tour-{tour}.md"))).unwrap();
            let (_, list) = page.split_once("Files, in the order of the tour:\n\n").expect("a list of files");
            let files = list.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
            let listed: Vec<&str> = to_sources(&files, 0).iter().map(|link| link.target).collect();
            assert!((3..=5).contains(&listed.len()), "{tour}: {listed:?}");
            for Link { target, .. } in to_sources(&page, 0) {
                assert!(listed.contains(&target), "{tour} needs a file that its list does not have: {target}");
            }
        }
    }
}
