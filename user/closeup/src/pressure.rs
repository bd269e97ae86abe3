//! Memory under pressure as a picture: who waits, how old pages are, what is in swap, and what reclaim does. All numbers are the kernel's.

use alloc::format;
use alloc::string::String;

use quire_abi::pressure::Pressure;
use quire_abi::statistics::{ListsInfo, SwapInfo};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Columns of a bar.
const BAR: usize = 24;

/// Counters of vmstat that are shown: what they are called there, and here.
pub const COUNTERS: [(&str, &str); 9] = [
    ("pageoutrun", "kswapd: rounds"),
    ("pgsteal_kswapd", "kswapd: pages freed"),
    ("allocstall", "programs: rounds of their own"),
    ("pgsteal_direct", "programs: pages freed"),
    ("pswpout", "pages to swap"),
    ("pswpin", "pages from swap"),
    ("pgpgin_pages", "pages read from files"),
    ("pgdrop_pages", "pages of files given up"),
    ("nr_written", "pages of files written"),
];

/// What is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Pages that the allocator manages, and free ones.
    pub memory: [u64; 2],
    /// The sums of the zones' watermarks: min, low, high.
    pub watermarks: [u64; 3],
    /// The machine's pressure.
    pub pressure: Pressure,
    /// Reclaim's lists: a node's, of all groups together.
    pub lists: alloc::vec::Vec<(u32, ListsInfo)>,
    /// The store of swap.
    pub swap: SwapInfo,
    /// By [`COUNTERS`], since boot.
    pub counters: [u64; COUNTERS.len()],
    /// Nanoseconds since power-on.
    pub at: u64,
}

/// Adds the lists of another group to those of one. (Their generations are not of the same time: of each age, the older time counts.)
pub fn add(sum: &mut ListsInfo, other: &ListsInfo) {
    sum.fresh += other.fresh;
    sum.watched += other.watched;
    sum.hot += other.hot;
    sum.pages += other.pages;
    sum.locked += other.locked;
    sum.rounds = sum.rounds.max(other.rounds);
    sum.generations = sum.generations.max(other.generations);
    sum.hot_by_age.iter_mut().zip(other.hot_by_age).for_each(|(sum, other)| *sum += other);
    sum.begun.iter_mut().zip(other.begun).for_each(|(sum, other)| *sum = (*sum).max(other));
}

/// All lines. Rates are those since `before`, or since boot.
pub fn picture(now: &Facts, before: Option<&Facts>) -> String {
    let mut text = String::new();
    memory(&mut text, now);
    waiting(&mut text, &now.pressure);
    for (node, lists) in &now.lists {
        ages(&mut text, *node, lists);
    }
    swap(&mut text, &now.swap);
    work(&mut text, now, before);
    text
}

fn memory(text: &mut String, facts: &Facts) {
    let ([managed, free], [min, low, high]) = (facts.memory.map(mib), facts.watermarks.map(mib));
    *text += &format!("memory   {managed} MiB, {free} MiB free; watermarks: min {min}, low {low}, high {high} MiB\n\n");
}

/// Mebibytes with one digit behind the point.
fn mib(pages: u64) -> String {
    let tenths = pages * 10 * PAGE / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn waiting(text: &mut String, pressure: &Pressure) {
    *text += &format!("{:9}{:>9}{:>9}{:>9}{:>13}\n", "waiting", "10 s", "60 s", "300 s", "in all");
    for (name, share) in [("some", pressure.some), ("full", pressure.full)] {
        *text += &format!("  {name:7}");
        for hundredths in share.averages {
            *text += &format!("{:>4}.{:02} %", hundredths / 100, hundredths % 100);
        }
        let milliseconds = share.total / 1000;
        *text += &format!("{:>7}.{:03} s\n", milliseconds / 1000, milliseconds % 1000);
    }
    text.push('\n');
}

/// A line for each list of a node, from the hottest pages to those that go next.
fn ages(text: &mut String, node: u32, lists: &ListsInfo) {
    *text += &format!("node {node}   {} pages of programs", lists.pages);
    if lists.rounds == 0 {
        *text += ": reclaim has not had to look at them yet\n\n";
        return;
    }
    *text += &format!(", each of them looked at {} times\n", lists.rounds);
    let all = lists.pages.max(lists.hot + lists.fresh + lists.watched + lists.locked).max(1);
    let generations = (lists.generations as usize).min(lists.hot_by_age.len());
    for age in (0..generations).rev() {
        let name = match age {
            0 if generations > 1 => "hot, oldest",
            _ if age + 1 == generations => "hot, latest",
            _ => "hot",
        };
        let began = match lists.begun[age] {
            0 => String::from("now"),
            eighths => format!("{}.{} of memory ago", eighths / 8, eighths % 8 * 10 / 8),
        };
        line(text, name, lists.hot_by_age[age], all, &began);
    }
    line(text, "cold, fresh", lists.fresh, all, "");
    line(text, "cold, watched", lists.watched, all, "");
    line(text, "locked", lists.locked, all, "");
    text.push('\n');
}

fn line(text: &mut String, name: &str, pages: u64, all: u64, note: &str) {
    let part = pages.min(all);
    // (What is there is seen.)
    let len = (part * BAR as u64 / all).max(u64::from(pages != 0)) as usize;
    let bar = format!("{}{}", "#".repeat(len), ".".repeat(BAR - len));
    let shown = format!("  {name:14}{bar} {pages:>9} {:>3} %  {note}", part * 100 / all);
    *text += shown.trim_end();
    text.push('\n');
}

fn swap(text: &mut String, swap: &SwapInfo) {
    if swap.slots == 0 {
        *text += "swap     off\n\n";
        return;
    }
    let SwapInfo { slots, used, same, raw, bytes, frames } = *swap;
    *text +=
        &format!("swap     {used} of {slots} pages used, in {frames} frames: {}\n", ratio(used * PAGE, frames * PAGE));
    let coded = used.saturating_sub(same + raw);
    *text += &format!("  {same} of one word, {raw} as they are, {coded} compressed {}\n\n", ratio(coded * PAGE, bytes));
}

/// "2.7 : 1".
fn ratio(of: u64, to: u64) -> String {
    match (of * 10 + to / 2).checked_div(to) {
        Some(tenths) if of != 0 => format!("{}.{} : 1", tenths / 10, tenths % 10),
        _ => "-".into(),
    }
}

fn work(text: &mut String, now: &Facts, before: Option<&Facts>) {
    let since = before.map_or(0, |before| before.at);
    let spent = now.at.saturating_sub(since).max(1);
    *text += &format!("{:32}{:>10}{:>13}\n", "reclaim", "a second", "since boot");
    for (n, (_, name)) in COUNTERS.iter().enumerate() {
        let grown = now.counters[n].saturating_sub(before.map_or(0, |before| before.counters[n]));
        let rate = u128::from(grown) * 1_000_000_000 / u128::from(spent);
        *text += &format!("  {name:30}{rate:>10}{:>13}\n", now.counters[n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use quire_abi::pressure::Share;

    fn facts() -> Facts {
        let mut lists = ListsInfo {
            fresh: 100,
            watched: 60,
            hot: 800,
            pages: 1000,
            locked: 30,
            rounds: 3,
            generations: 3,
            ..ListsInfo::default()
        };
        lists.hot_by_age[..3].copy_from_slice(&[500, 1, 299]);
        lists.begun[..3].copy_from_slice(&[12, 3, 0]);
        Facts {
            memory: [25_600, 256],
            watermarks: [128, 160, 192],
            pressure: Pressure {
                some: Share { total: 1_234_567, averages: [10_000, 1234, 5], pad: 0 },
                full: Share { total: 1000, averages: [0, 0, 100], pad: 0 },
            },
            lists: vec![(0, lists)],
            swap: SwapInfo { slots: 51_200, used: 1000, same: 100, raw: 20, bytes: 880 * 4096 / 3, frames: 333 },
            counters: [7, 700, 3, 96, 1000, 400, 0, 0, 0],
            at: 10_000_000_000,
        }
    }

    #[test]
    fn a_picture_is_of_what_the_kernel_says() {
        let wanted = "\
memory   100.0 MiB, 1.0 MiB free; watermarks: min 0.5, low 0.6, high 0.7 MiB

waiting       10 s     60 s    300 s       in all
  some    100.00 %  12.34 %   0.05 %      1.234 s
  full      0.00 %   0.00 %   1.00 %      0.001 s

node 0   1000 pages of programs, each of them looked at 3 times
  hot, latest   #######.................       299  29 %  now
  hot           #.......................         1   0 %  0.3 of memory ago
  hot, oldest   ############............       500  50 %  1.5 of memory ago
  cold, fresh   ##......................       100  10 %
  cold, watched #.......................        60   6 %
  locked        #.......................        30   3 %

swap     1000 of 51200 pages used, in 333 frames: 3.0 : 1
  100 of one word, 20 as they are, 880 compressed 3.0 : 1

reclaim                           a second   since boot
  kswapd: rounds                         0            7
  kswapd: pages freed                   70          700
  programs: rounds of their own          0            3
  programs: pages freed                  9           96
  pages to swap                        100         1000
  pages from swap                       40          400
  pages read from files                  0            0
  pages of files given up                0            0
  pages of files written                 0            0
";
        assert_eq!(picture(&facts(), None), wanted);
        assert!(wanted.lines().all(|line| line.len() < 80));
    }

    #[test]
    fn rates_are_those_since_the_picture_before() {
        let before = facts();
        let mut now = Facts { at: before.at + 2_000_000_000, ..facts() };
        now.counters[1] += 50;
        let text = picture(&now, Some(&before));
        assert!(text.contains("  kswapd: pages freed                   25          750\n"), "{text}");
        assert!(text.contains("  pages to swap                          0         1000\n"), "{text}");
    }

    #[test]
    fn a_machine_without_pressure_or_swap() {
        let facts = Facts { lists: vec![(1, ListsInfo::default())], ..Facts::default() };
        let text = picture(&facts, None);
        assert!(text.contains("node 1   0 pages of programs: reclaim has not had to look at them yet\n"), "{text}");
        assert!(text.contains("swap     off\n"), "{text}");
        let empty = Facts { swap: SwapInfo { slots: 9, ..SwapInfo::default() }, ..facts };
        assert!(picture(&empty, None).contains("0 of 9 pages used, in 0 frames: -\n"));
    }

    #[test]
    fn lists_of_groups_add_up() {
        let facts = facts();
        let mut sum = ListsInfo::default();
        add(&mut sum, &facts.lists[0].1);
        add(&mut sum, &facts.lists[0].1);
        assert_eq!((sum.hot, sum.hot_by_age[0], sum.fresh, sum.rounds, sum.generations), (1600, 1000, 200, 3, 3));
    }
}
