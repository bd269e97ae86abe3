//! Chromium without a window, by its debugging pipe: messages of JSON, each ended by a NUL.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// How long the page may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page.
pub struct Page {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    next: u64,
    session: Option<String>,
    /// Errors that the page reported.
    pub errors: Vec<String>,
    profile: PathBuf,
}

/// The browser, if there is one.
pub fn find() -> Option<&'static str> {
    NAMES.into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    })
}

impl Page {
    /// Opens an address, with or without dark colours.
    pub fn open(browser: &str, url: &str, is_dark: bool) -> Page {
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{}-{is_dark}", std::process::id()));
        // It reads its descriptor 3 and writes to 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", browser]);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the browser starts");
        let (to, from) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (from, errors) = (BufReader::new(from), Vec::new());
        let mut page = Page { child, to, from, next: 0, session: None, errors, profile };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = page.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        page.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            page.call(domain, json!({}));
        }
        page.size(1500, 1000);
        let colours = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": colours }]);
        page.call("Emulation.setEmulatedMedia", json!({ "features": features }));
        page.call("Page.navigate", json!({ "url": url }));
        page
    }

    fn size(&mut self, width: u64, height: u64) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).expect("the browser answers");
            bytes.pop();
            let said: Value = serde_json::from_slice(&bytes).expect("JSON");
            match said["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Log.entryAdded") => self.errors.push(said["params"].to_string()),
                Some("Network.requestWillBeSent") => {
                    let url = said["params"]["request"]["url"].as_str().unwrap_or_default();
                    let is_local = ["http://127.0.0.1:", "data:", "about:"].iter().any(|own| url.starts_with(own));
                    if !is_local {
                        self.errors.push(format!("a request to {url}"));
                    }
                }
                _ => {}
            }
            if said["id"] == self.next {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
        }
    }

    /// The value of an expression.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        self.call("Runtime.evaluate", asked)["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            assert!(Instant::now() < deadline, "never so: {expression}; errors: {:?}", self.errors);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses the mouse at a part of an element, in percent of its size.
    pub fn click(&mut self, id: &str, x: u32, y: u32) {
        let center = self.value(&format!(
            "(() => {{ const e = document.getElementById('{id}'); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); return [r.left + r.width * {x} / 100, r.top + r.height * {y} / 100]; }})()"
        ));
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": center[0], "y": center[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Writes a picture of all of the page.
    pub fn shoot(&mut self, path: &Path) {
        let height = self.value("document.documentElement.scrollHeight").as_u64().expect("a height");
        self.size(1500, height);
        std::thread::sleep(Duration::from_millis(700));
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        std::fs::write(path, base64(shot["data"].as_str().expect("a picture"))).expect("there is room");
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// The bytes of a text in base 64.
fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = group.iter().fold(0_u32, |word, letter| word << 6 | u32::from(value(*letter)));
        let word = word << (6 * (4 - group.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn base_64_is_read() {
    assert_eq!(["", "QQ==", "QUI=", "QUJD", "QUJDRA=="].map(base64), [&b""[..], b"A", b"AB", b"ABC", b"ABCD"]);
}
