//! For any input a scheme returns a report or an error. It does not panic, and no sum overflows.

use proptest::prelude::*;
use quire_lab::trace::pattern::Pattern;
use quire_lab::{SCHEMES, Trace, command};

/// A word of a trace, usually a valid one.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "memory", "partitions", "page", "least", "quick", "frames", "window", "moments", "tick", "tlb", "levels", "entry",
            "lookup", "cycle", "ratios", "service", "every", "banks", "row", "line", "cas", "rcd", "rp", "rate", "latency", "ram", "tenths", "store",
            "pattern", "sweep", "scan", "alloc", "free", "run", "access", "ref", "module", "call", "repeat", "at", "in", "under", "A", "B", "C",
        ]).prop_map(str::to_owned),
        4 => prop::sample::select(vec![
            "0", "1", "2", "3", "7", "12", "64", "4096", "1K", "1M", "1T", "1099511627776", "0xff", "5w", "1-9", "0-64/8",
            "A:5", "B:1Kw", "1ns", "8ms", "1s", "100", "0-1T/512M", "9999",
        ]).prop_map(str::to_owned),
        1 => "[ -~]{0,6}",
        1 => any::<u64>().prop_map(|number| number.to_string()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let line = prop::collection::vec(word(), 0..6).prop_map(|words| words.join(" "));
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

/// A well-formed line with extreme values.
fn sensible_line() -> impl Strategy<Value = String> {
    let size = || prop::sample::select(vec!["1", "3", "64", "4K", "1M", "1T"]);
    let name = || prop::sample::select(vec!["A", "B", "C", "D"]);
    let page = || prop::sample::select(vec!["0", "1w", "2", "3w", "4-6", "1099511627776"]);
    prop_oneof![
        (name(), size()).prop_map(|(name, size)| format!("alloc {name} {size}")),
        (name(), size(), size()).prop_map(|(name, size, at)| format!("alloc {name} {size} at {at}")),
        (name(), 0u64..6).prop_map(|(name, frame)| format!("alloc {name} 3 in {frame}")),
        name().prop_map(|name| format!("free {name}")),
        name().prop_map(|name| format!("run {name}")),
        (name(), size()).prop_map(|(name, at)| format!("access {name}:{at}")),
        size().prop_map(|at| format!("access {at}w")),
        page().prop_map(|page| format!("repeat 3 ref {page}")),
        (name(), size()).prop_map(|(name, size)| format!("module {name} {size}")),
        (name(), name(), size()).prop_map(|(name, above, size)| format!("module {name} {size} under {above}")),
        name().prop_map(|name| format!("call {name}")),
        prop::sample::select(Pattern::ALL.to_vec()).prop_map(|pattern| format!("pattern {}", pattern.name())),
    ]
}

/// Settings with extreme values.
fn settings() -> impl Strategy<Value = String> {
    let choice = |name: &'static str, values: Vec<&'static str>| {
        prop::option::of(prop::sample::select(values))
            .prop_map(move |v| v.map(|v| format!("{name} {v}\n")).unwrap_or_default())
    };
    let all = vec![
        choice("memory", vec!["1", "64", "1M", "1T", "100"]),
        choice("partitions", vec!["1", "4K 64 1", "4G 4G 4G"]),
        choice("page", vec!["1", "3", "4K", "16M"]),
        choice("frames", vec!["1", "3", "256"]),
        choice("ram", vec!["16", "100"]),
        choice("tenths", vec!["1", "100"]),
        choice("store", vec!["0", "99"]),
        choice("window", vec!["1", "10000"]),
        choice("levels", vec!["1", "36 12", "9 9 9 9 12", "36 36", "1 1"]),
        choice("entry", vec!["1", "64"]),
        choice("cycle", vec!["1ns", "1ms"]),
        choice("service", vec!["1ns", "100s"]),
        choice("every", vec!["1", "1000000000"]),
        choice("ratios", vec!["0 100"]),
        choice("banks", vec!["1", "3", "64"]),
        choice("row", vec!["1", "16M"]),
        choice("line", vec!["1", "64K"]),
        choice("rate", vec!["1", "1T"]),
        choice("latency", vec!["0ns", "1s"]),
        choice("least", vec!["1", "3", "16M"]),
    ];
    all.prop_map(|lines| lines.concat())
}

/// Plays a trace on every scheme and renders the reports.
fn play_everywhere(text: &str) {
    let read = |_: &str| Ok(text.to_owned());
    for scheme in SCHEMES {
        match command::run(&[scheme.name, "--trace", "file"], read) {
            Ok(shown) => assert!(!shown.is_empty()),
            Err(error) => assert!(error.to_string().starts_with("file: ")),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_words(text in text()) {
        play_everywhere(&text);
    }

    #[test]
    fn any_valid_trace(settings in settings(), lines in prop::collection::vec(sensible_line(), 1..40)) {
        // Lines that are invalid at their position are dropped, so that the rest is played.
        let mut text = settings;
        for line in lines {
            let with = format!("{text}{line}\n");
            if Trace::parse(&with).is_ok() {
                text = with;
            }
        }
        play_everywhere(&text);
    }

    #[test]
    fn any_command(words in prop::collection::vec("[a-z0-9-]{0,8}", 0..5)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _ = command::run(&words, |_| Err("there are no files".into()));
    }
}
