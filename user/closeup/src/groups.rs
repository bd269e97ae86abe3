//! The tree of control groups as a table: what each has, may have, and how much of the time its threads wait for memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use quire_abi::group::{GroupInfo, set};
use quire_abi::pressure::Pressure;

use crate::text;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Columns of the names.
const NAME: usize = 20;

/// A group, and its pressure.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The group; the root's key is 0, and it has no numbers.
    pub group: GroupInfo,
    /// Its pressure.
    pub pressure: Pressure,
}

/// By what groups that lie in the same one are sorted, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Memory.
    Memory,
    /// Swap.
    Swap,
    /// The time in which some thread waited, of the last 10 seconds.
    Pressure,
    /// The name.
    Name,
}

/// The table of the root and all groups, at most so many lines. Groups whose parent is not among them are left out.
pub fn table(rows: &[Row], by: By, lines: usize) -> String {
    let mut text = format!(
        "{:NAME$} {:>5} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7}\n",
        "group", "procs", "memory", "max", "swap", "max", "some", "full"
    );
    let mut left = lines.saturating_sub(1);
    // Those below each group stand together, in order.
    let mut below: Vec<&Row> = rows.iter().filter(|row| row.group.key != 0).collect();
    sort(&mut below, by);
    below.sort_by_key(|row| row.group.parent);
    // Groups that are still to be shown, the next one last, and how deep they lie.
    let mut next: Vec<(&Row, usize)> = rows.iter().filter(|row| row.group.key == 0).map(|row| (row, 0)).collect();
    while let Some((row, depth)) = next.pop() {
        if left == 0 {
            text += "...\n";
            break;
        }
        left -= 1;
        show(&mut text, row, depth);
        let first = below.partition_point(|other| other.group.parent < row.group.key);
        let end = below.partition_point(|other| other.group.parent <= row.group.key);
        next.extend(below[first..end].iter().rev().map(|below| (*below, depth + 1)));
    }
    text
}

fn sort(rows: &mut [&Row], by: By) {
    let name = |row: &&Row| String::from(text(&row.group.name));
    match by {
        By::Memory => rows.sort_by_key(|row| (Reverse(row.group.usage), name(row))),
        By::Swap => rows.sort_by_key(|row| (Reverse(row.group.swap), name(row))),
        By::Pressure => rows.sort_by_key(|row| (Reverse(row.pressure.some.averages[0]), name(row))),
        By::Name => rows.sort_by_key(name),
    }
}

fn show(out: &mut String, row: &Row, depth: usize) {
    let group = &row.group;
    let is_root = group.key == 0;
    let shown = format!("{:1$}{name}", "", 2 * depth, name = if is_root { "/" } else { text(&group.name) });
    // (Cut by characters: a name may be of any language. What a terminal would take for an order is not shown.)
    let name: String = shown.chars().map(|c| if c.is_control() { '?' } else { c }).take(NAME).collect();
    let size = |pages: u64| if is_root { "-".into() } else { self::size(pages) };
    let share = |hundredths: u32| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    *out += &format!(
        "{name:NAME$} {:>5} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7}\n",
        group.members,
        size(group.usage),
        size(group.limits[set::MAX]),
        size(group.swap),
        size(group.limits[set::SWAP]),
        share(row.pressure.some.averages[0]),
        share(row.pressure.full.averages[0]),
    );
}

/// A number of pages in a unit that suits it; a dash for no limit.
fn size(pages: u64) -> String {
    if pages == u64::MAX {
        return "-".into();
    }
    let kib = pages.saturating_mul(PAGE / 1024);
    match kib {
        0..10_000 => format!("{kib}K"),
        10_000..10_240_000 => format!("{}.{}M", kib / 1024, kib % 1024 * 10 / 1024),
        _ => format!("{}.{}G", kib >> 20, (kib >> 10) % 1024 * 10 / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quire_abi::pressure::Share;

    fn row(key: u64, parent: u64, name: &str, usage: u64, swap: u64, some: u32) -> Row {
        let mut group = GroupInfo {
            key,
            parent,
            usage,
            swap,
            members: key as u32,
            limits: [0, 0, u64::MAX, 1024 * key, u64::MAX, u64::MAX],
            ..GroupInfo::default()
        };
        group.name[..name.len()].copy_from_slice(name.as_bytes());
        let share = |hundredths| Share { averages: [hundredths, 0, 0], ..Share::default() };
        Row { group, pressure: Pressure { some: share(some), full: share(some / 2) } }
    }

    fn rows() -> [Row; 5] {
        [
            row(0, 0, "", 0, 0, 1500),
            row(1, 0, "small", 10, 0, 0),
            row(2, 0, "large", 5000, 4_000_000, 1234),
            row(3, 2, "within", 2000, 5, 7),
            row(4, 9, "orphan", 1, 1, 1),
        ]
    }

    #[test]
    fn a_tree_with_the_largest_first() {
        let wanted = "\
group                procs   memory      max     swap      max    some    full
/                        0        -        -        -        -   15.00    7.50
  large                  2    19.5M    8192K    15.2G        -   12.34    6.17
    within               3    8000K    12.0M      20K        -    0.07    0.03
  small                  1      40K    4096K       0K        -    0.00    0.00
";
        assert_eq!(table(&rows(), By::Memory, 24), wanted);
    }

    #[test]
    fn sorted_by_what_is_asked_for() {
        let first = |by| {
            let text = table(&rows(), by, 24);
            text.lines().nth(2).map(|line| String::from(line.trim().split(' ').next().unwrap_or("")))
        };
        assert_eq!([By::Swap, By::Pressure].map(first), [Some("large".into()), Some("large".into())]);
        let mut many = rows();
        many[1].pressure.some.averages[0] = 9999;
        assert!(table(&many, By::Pressure, 24).lines().nth(2).is_some_and(|line| line.starts_with("  small")));
        many[1].group.name[..6].copy_from_slice(b"a\x1bsort");
        assert!(table(&many, By::Name, 24).lines().nth(2).is_some_and(|line| line.starts_with("  a?sort")));
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_left_out() {
        let text = table(&rows(), By::Memory, 3);
        assert!(text.ends_with("...\n") && text.lines().count() == 4, "{text}");
        let mut long = rows();
        long[1].group.name[..200].fill(b'x');
        assert!(table(&long, By::Memory, 9).lines().all(|line| line.len() == 78));
    }
}
