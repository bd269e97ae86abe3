//! A client of the page's server: requests by hand, and pictures as they come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the server may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it is: a port of this host.
#[derive(Clone, Copy)]
pub struct Site(pub u16);

impl Site {
    fn connect(self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.0)).expect("the page is served");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// Asks with these further lines of the head; returns the status and the body.
    pub fn ask(self, method: &str, path: &str, lines: &str) -> (u16, String) {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\n{lines}\r\n").expect("it takes requests");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    pub fn host(self) -> String {
        format!("Host: 127.0.0.1:{}\r\n", self.0)
    }

    pub fn get(self, path: &str) -> (u16, String) {
        self.ask("GET", path, &self.host())
    }

    /// A POST that must succeed.
    #[track_caller]
    pub fn post(self, path: &str) -> Value {
        let (status, body) = self.ask("POST", path, &self.host());
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Pictures from now on.
    pub fn pictures(self) -> Pictures {
        let mut stream = self.connect();
        write!(stream, "GET /events HTTP/1.1\r\n{}\r\n", self.host()).expect("it takes requests");
        Pictures(BufReader::new(stream))
    }
}

/// The stream of events.
pub struct Pictures(BufReader<TcpStream>);

impl Pictures {
    /// The next event: its name and what it says.
    fn event(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("events come") == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    /// The next picture.
    pub fn next(&mut self) -> Value {
        loop {
            match self.event().expect("the stream goes on") {
                (name, picture) if name == "picture" => return picture,
                _ => {}
            }
        }
    }

    /// The first picture for which something is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let picture = self.next();
            if is_so(&picture) {
                return picture;
            }
            assert!(Instant::now() < deadline, "{what}: it did not come to that; the last picture: {picture}");
        }
    }

    /// Whether no picture comes for a time, while the state is told.
    pub fn is_still(&mut self, events: usize) -> bool {
        (0..events).all(|_| self.event().is_some_and(|(name, _)| name != "picture"))
    }
}

/// A number of a picture, by its path.
#[track_caller]
pub fn number(of: &Value, path: &str) -> u64 {
    of.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {path}"))
}

/// The process of this name.
pub fn process<'a>(picture: &'a Value, name: &str) -> Option<&'a Value> {
    picture["processes"].as_array()?.iter().find(|process| process["name"] == name)
}

/// Frames of one use, of all page blocks.
pub fn frames(picture: &Value, of: usize) -> u64 {
    let blocks = picture["map"].as_array().into_iter().flatten().flat_map(|zone| zone["uses"].as_array());
    blocks.flatten().map(|uses| uses[of].as_u64().unwrap_or(0)).sum()
}
