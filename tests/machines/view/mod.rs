//! `cargo xtask view`: what its page is told agrees with what the machine's own commands print, and a browser draws it.

mod browser;
mod http;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Machine, compile};
use crate::terminal::{PROMPT, Terminal};
use http::{Site, frames, number, process};

/// The place of anonymous memory among the uses of frames.
const ANON: usize = 6;

/// What tests/programs/grows.c has, of the 64 MiB that it maps. (A fault may bring in some pages more.)
const PLACE: &str = "20000000";
const PAGES: u64 = (48 << 20) / 4096;

/// Boots a machine with a view.
fn boot(machine: &Machine) -> (Terminal, Site) {
    let mut terminal = Terminal::open(machine);
    terminal.expect("shown at http://127.0.0.1:");
    let port = terminal.expect("/").parse().expect("a port");
    terminal.expect(PROMPT);
    (terminal, Site(port))
}

fn pid(terminal: &mut Terminal, name: &str) -> u64 {
    let said = terminal.run("ps");
    let line = said.lines().find(|line| line.split_whitespace().last().is_some_and(|word| word.ends_with(name)));
    let line = line.unwrap_or_else(|| panic!("no {name}\n{said}"));
    line.split_whitespace().find_map(|word| word.parse().ok()).expect("its number")
}

/// A counter, by `vmstat`.
fn counter(terminal: &mut Terminal, name: &str) -> u64 {
    let said = terminal.run(&format!("vmstat {name}"));
    let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}\n{said}"));
    line.trim().parse().expect("a number")
}

#[test]
fn pictures_agree_with_what_commands_print() {
    let machine =
        Machine::new(&["--mem", "256M", "--numa", "2", "--smp", "2"]).viewed().add(&compile("grows.c"), "grows");
    let (mut terminal, site) = boot(&machine);
    let mut pictures = site.pictures();
    let before = pictures.until("all page blocks", |picture| {
        let all = |zone: &Value| {
            zone["uses"].as_array().is_some_and(|uses| {
                uses.iter().all(|counts| counts.as_array().is_some_and(|counts| counts.iter().any(|n| n != 0)))
            })
        };
        picture["map"].as_array().is_some_and(|zones| zones.len() == 2 && zones.iter().all(all))
    });
    assert_eq!(number(&before, "/system/managed"), counter(&mut terminal, "nr_managed_pages"));
    let free = counter(&mut terminal, "nr_free_pages");
    assert!(number(&before, "/counters/nr_free_pages").abs_diff(free) < 500, "{free} pages free\n{before}");
    // The watermarks of each zone.
    let said = terminal.run("zoneinfo");
    for zone in before["zones"].as_array().expect("zones") {
        for mark in ["min", "low", "high"] {
            let value = zone[mark].to_string();
            let is_there = |line: &str| line.contains(mark) && line.split_whitespace().any(|word| word == value);
            assert!(said.lines().any(is_there), "{mark} {value}\n{said}");
        }
    }
    assert!(process(&before, "grows").is_none());

    // A program that grows is seen: in the map, as a process, by its areas.
    terminal.run("/grows &");
    terminal.expect("grown");
    terminal.press("\r");
    terminal.expect(PROMPT);
    let pid = pid(&mut terminal, "grows");
    site.post(&format!("/process?pid={pid}"));
    let after = pictures.until("a program with 48 MiB, and its frames", |picture| {
        let areas = picture["areas"][pid.to_string()].as_array();
        let area = areas.and_then(|areas| areas.iter().find(|area| area["start"] == 0x2000_0000));
        frames(picture, ANON) >= frames(&before, ANON) + PAGES - 64
            && area.is_some_and(|area| area["resident"].as_u64().is_some_and(|n| (PAGES..PAGES + 16).contains(&n)))
    });
    let grows = process(&after, "grows").expect("it is there");
    assert_eq!(number(grows, "/pid"), pid);
    assert!((PAGES..PAGES + 100).contains(&number(grows, "/rss")), "{grows}");
    assert!(number(&before, "/system/free") - number(&after, "/system/free") >= PAGES - 64);

    // A walk says the same here and there, and the frame that it leads to is anonymous memory.
    let walk = site.post(&format!("/walk?pid={pid}&address=0x{PLACE}"));
    let text = walk["text"].as_str().expect("text");
    let printed = terminal.run(&format!("walk {pid} {PLACE}"));
    let table = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("level") || line.starts_with("physical"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(table(text), table(&printed));
    assert_eq!(table(text).len(), 5, "{text}");
    let frame = text.lines().find_map(|line| line.strip_prefix("frame     0x")).expect("a frame");
    let frame = u64::from_str_radix(frame.split(':').next().expect("its number"), 16).expect("hexadecimal");
    site.post(&format!("/zoom?block={}", frame / 512));
    let zoomed = pictures.until("the frames of a page block", |picture| picture["zoom"]["block"] == frame / 512);
    let word = number(&zoomed, &format!("/zoom/frames/{}", frame % 512));
    assert_eq!(word & 0xf, ANON as u64);
    let untouched = site.post(&format!("/walk?pid={pid}&address=0x{:x}", 0x2000_0000 + (64 << 20) - 4096));
    assert!(untouched["text"].as_str().is_some_and(|text| text.contains("has not been accessed")), "{untouched}");

    // And it is gone when it has ended.
    terminal.run(&format!("kill {pid}"));
    pictures.until("the program is gone", |picture| {
        process(picture, "grows").is_none() && frames(picture, ANON) < frames(&before, ANON) + 200
    });
    let (status, said) = site.ask("POST", &format!("/walk?pid={pid}&address=0"), &site.host());
    assert!(status == 400 && said.contains("no such process"), "{said}");
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn time_stands_and_goes_on_and_others_may_not_ask() {
    let (mut terminal, site) = boot(&Machine::new(&["--mem", "128M", "--smp", "1", "--icount"]).viewed());
    let mut pictures = site.pictures();
    pictures.next();
    assert_eq!(site.post("/pause?on=1")["paused"], true);
    // (One may be on its way.)
    let _ = (pictures.is_still(1), pictures.is_still(1));
    assert!(pictures.is_still(3), "the machine's time stands");
    assert_eq!(site.post("/step")["paused"], true);
    pictures.next();
    assert_eq!(site.post("/pause?on=0")["paused"], false);
    pictures.next();

    // Pages of other sites name other hosts, or come from them.
    let port = site.0;
    for (method, path, lines) in [
        ("GET", "/", "Host: example.org\r\n".to_owned()),
        ("GET", "/events", String::new()),
        ("POST", "/pause?on=1", format!("Host: 127.0.0.1:{port}\r\nOrigin: http://example.org\r\n")),
        ("POST", "/pause?on=1", format!("Host: 127.0.0.1:{}\r\n", port.wrapping_add(1))),
    ] {
        assert_eq!(site.ask(method, path, &lines).0, 403, "{method} {path} {lines}");
    }
    let statuses = ["/", "/view.js", "/nothing", "/../Cargo.toml"].map(|path| site.get(path).0);
    assert_eq!(statuses, [200, 200, 404, 404]);
    for wrong in ["/walk?pid=1", "/walk?pid=x&address=0", "/pause", "/nothing"] {
        assert_eq!(site.ask("POST", wrong, &site.host()).0, 400, "{wrong}");
    }
    // The kernel's own commands go on as if nobody looked.
    let said = terminal.run("memtop -o");
    assert!(said.contains("node 0   DMA32") && said.contains("view"), "{said}");
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn a_recording_is_shown_without_a_machine() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recorded.view");
    let machine = Machine::new(&["--mem", "128M", "--record", file.to_str().expect("a plain path")]).viewed();
    let outcome = machine.add(&compile("grows.c"), "grows").exec("sleep 2; /grows & sleep 4");
    assert!(outcome.succeeded().contains("grown"), "{outcome}");

    let mut replay = xtask()
        .args(["view", "--port", "0", "--replay"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("xtask starts");
    let mut said = String::new();
    BufReader::new(replay.stderr.take().expect("a pipe")).read_line(&mut said).expect("it says where the page is");
    let port = said.trim_end_matches("/\n").rsplit(':').next().and_then(|port| port.parse().ok());
    let site = Site(port.unwrap_or_else(|| panic!("no port in {said:?}")));
    let mut pictures = site.pictures();
    assert!(process(&pictures.next(), "grows").is_none(), "it begins at the start");
    let grown = |picture: &Value| process(picture, "grows").is_some_and(|of| number(of, "/rss") >= PAGES);
    pictures.until("the program grows again", grown);
    site.post("/pause?on=1");
    site.post("/seek?to=0");
    pictures.until("it goes back", |picture| process(picture, "grows").is_none());
    site.post("/seek?to=1000");
    pictures.until("and to its end", grown);
    let (status, said) = site.ask("POST", "/walk?pid=1&address=0", &site.host());
    assert!(status == 400 && said.contains("a recording has no tables"), "{said}");
    let _ = replay.kill();
    let _ = replay.wait();

    fs::write(&file, "something else").expect("there is room");
    let refused = xtask().args(["view", "--replay"]).arg(&file).output().expect("xtask starts");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no recording"));
}

fn xtask() -> Command {
    Command::new(std::env::var_os("QUIRE_XTASK").expect("these tests are run by `cargo xtask test`"))
}

#[test]
fn a_board_without_virtio_is_refused() {
    let outcome = Machine::rpi4().viewed().exec("true");
    assert!(outcome.status != 0 && outcome.log.contains("view shows virt"), "{outcome}");
}

#[test]
fn a_browser_draws_it() {
    let Some(browser) = browser::find() else {
        println!("skipped: there is no Chromium here (apt-get install chromium)");
        return;
    };
    let machine = Machine::new(&["--mem", "256M"]).viewed().add(&compile("grows.c"), "grows");
    let (mut terminal, site) = boot(&machine);
    terminal.run("/grows & sleep 2");
    let url = format!("http://127.0.0.1:{}/", site.0);
    for is_dark in [false, true] {
        let mut page = browser::Page::open(browser, &url, is_dark);
        page.until("Number(document.body.dataset.picture) > 0 && document.body.dataset.processes.includes('grows')");
        page.until("document.getElementById('space-title').textContent.startsWith('grows')");
        page.until("document.querySelectorAll('#areas tbody tr').length >= 4");
        // The largest area: a click walks an address of it.
        let areas =
            page.value("[...document.querySelectorAll('#areas tbody tr')].map(row => row.textContent).join('\\n')");
        assert!(areas.as_str().is_some_and(|text| text.contains(PLACE) && text.contains("64 MiB")), "{areas}");
        page.click("ruler", 50, 50);
        page.until("/level 3 .*page at|nothing   yet/.test(document.getElementById('walk').textContent)");
        // A page block, and one of its frames.
        page.click("map", 30, 50);
        page.until("document.getElementById('zoom-note').textContent.includes('frames free')");
        page.click("zoom", 50, 50);
        page.until("document.getElementById('frame').textContent.startsWith('frame')");
        let drawn = "(() => { const c = document.getElementById('map'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
            const s = new Set(); for (let i = 0; i < d.length; i += 64) s.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return s.size; })()";
        assert!(page.value(drawn).as_u64() > Some(3), "the map has colours");
        let name = if is_dark { "view-dark.png" } else { "view-light.png" };
        page.shoot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        assert!(page.errors.is_empty(), "{:?}", page.errors);
    }
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
}
