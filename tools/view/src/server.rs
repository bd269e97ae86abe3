//! HTTP, on this host's loopback alone: the page, a stream of events with pictures, and what the page asks for.
//!
//! Another site's page in the same browser must not learn or change anything. So a request names this host
//! ([`Site::is_ours`]), which a name of somebody else's that leads here does not, and what changes something is a POST
//! from this page.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use quire_closeup::stream::{frame, kind, records};
use quire_closeup::walk::{Names, show};
use serde_json::{Value, json};

use crate::http::{self, Request};
use crate::hub::{Hub, Source};
use crate::picture::Picture;

/// The page, by path.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/view.css", "text/css; charset=utf-8", include_str!("page/view.css")),
    ("/view.js", "text/javascript; charset=utf-8", include_str!("page/view.js")),
    ("/common.js", "text/javascript; charset=utf-8", include_str!("page/common.js")),
    ("/map.js", "text/javascript; charset=utf-8", include_str!("page/map.js")),
    ("/bars.js", "text/javascript; charset=utf-8", include_str!("page/bars.js")),
    ("/rates.js", "text/javascript; charset=utf-8", include_str!("page/rates.js")),
    ("/processes.js", "text/javascript; charset=utf-8", include_str!("page/processes.js")),
];

/// What the page may load, and from where: its own parts, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long a machine may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a client is written to, if there is nothing new, to find out that it is gone.
const PING: Duration = Duration::from_secs(1);

/// Begins to serve at a port, 0 for any; returns the address.
pub fn serve(hub: &Arc<Hub>, source: Arc<dyn Source>, port: u16, rate: u64, keeps_on: bool) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = listener.with_context(|| format!("serving at 127.0.0.1:{port} (--port names another one)"))?;
    let address = listener.local_addr()?;
    let site = Arc::new(Site { hub: Arc::clone(hub), source, rate, keeps_on, port: address.port() });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let site = Arc::clone(&site);
            thread::spawn(move || {
                // (Whoever has asked may be gone.)
                let _ = site.answer(stream);
            });
        }
    });
    Ok(address)
}

struct Site {
    hub: Arc<Hub>,
    source: Arc<dyn Source>,
    /// Pictures in 10 seconds.
    rate: u64,
    /// Pictures are wanted although nobody reads.
    keeps_on: bool,
    port: u16,
}

impl Site {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let Some(request) = http::read(&mut stream)? else { return Ok(()) };
        let mut say = |status, kind, text: &str| http::respond(&mut stream, status, kind, POLICY, text);
        if !self.is_ours(&request) {
            return say("403 Forbidden", "text/plain", "this page is for its own host\n");
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/events") => self.events(stream),
            ("GET", "/state") => say("200 OK", "application/json", &self.state().to_string()),
            ("GET", path) => match FILES.iter().find(|(name, ..)| *name == path) {
                Some((_, kind, text)) => say("200 OK", kind, text),
                None => say("404 Not Found", "text/plain", "there is no such page\n"),
            },
            ("POST", path) => match self.command(path, &request.query) {
                Ok(answer) => say("200 OK", "application/json", &answer.to_string()),
                Err(error) => say("400 Bad Request", "text/plain", &format!("{error:#}\n")),
            },
            _ => say("405 Method Not Allowed", "text/plain", "GET or POST\n"),
        }
    }

    /// Whether a request is to this host by its own name and, if it says where it comes from, from its own page.
    fn is_ours(&self, request: &Request) -> bool {
        let hosts = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        let host = request.host.as_ref().is_some_and(|host| hosts.contains(host));
        let from = |origin: &String| hosts.iter().any(|own| *origin == format!("http://{own}"));
        host && request.origin.as_ref().is_none_or(from)
    }

    /// Pictures as they come, until the client is gone. One that is slow misses some.
    fn events(&self, mut out: TcpStream) -> std::io::Result<()> {
        if self.hub.count_client(true) == 1 {
            self.source.send(&frame(kind::RATE, self.rate, &[]));
        }
        let done = self.write_events(&mut out);
        if self.hub.count_client(false) == 0 && !self.keeps_on {
            self.source.send(&frame(kind::RATE, 0, &[]));
        }
        done
    }

    fn write_events(&self, out: &mut dyn Write) -> std::io::Result<()> {
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
             Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\nretry: 1000\n\n"
        )?;
        out.flush()?;
        // The newest one at once, if there is one: of a machine that stands, no other comes.
        let mut shown = 0;
        loop {
            match self.hub.next(shown, PING) {
                Some((number, text)) if number != shown && !text.is_empty() => {
                    shown = number;
                    write!(out, "event: picture\ndata: {text}\n\nevent: state\ndata: {}\n\n", self.state())?;
                }
                Some((number, _)) => {
                    shown = number;
                    write!(out, "event: state\ndata: {}\n\n", self.state())?;
                }
                None => {
                    write!(out, "event: over\ndata: {{}}\n\n")?;
                    thread::sleep(PING);
                }
            }
            out.flush()?;
        }
    }

    fn state(&self) -> Value {
        let source = self.source.describe();
        json!({
            "title": source.title, "replay": source.is_replay, "paused": source.is_paused, "position": source.position,
        })
    }

    fn command(&self, path: &str, query: &str) -> Result<Value> {
        let value = |name: &str| {
            let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
            pair.map(|(_, value)| value).with_context(|| format!("{name} is missing"))
        };
        let number = |name: &str| -> Result<u64> {
            let text = value(name)?;
            let parsed = match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => text.parse(),
            };
            parsed.with_context(|| format!("{name}: not a number"))
        };
        match path {
            "/pause" => self.source.pause(number("on")? != 0),
            "/step" => self.source.step(),
            "/seek" => self.source.seek(number("to")? as u32),
            "/zoom" => self.source.send(&frame(kind::ZOOM, number("block").unwrap_or(u64::MAX), &[])),
            "/process" => self.source.send(&frame(kind::PROCESS, number("pid")?, &[])),
            "/walk" => return self.walk(number("pid")?, number("address")?),
            _ => return Err(anyhow!("there is no {path}")),
        }
        Ok(self.state())
    }

    fn walk(&self, pid: u64, address: u64) -> Result<Value> {
        if self.source.describe().is_replay {
            return Err(anyhow!("a recording has no tables to walk"));
        }
        let question = [pid.to_le_bytes(), address.to_le_bytes()].concat();
        let answer = self.hub.ask(|number| self.source.send(&frame(kind::WALK, number, &question)), PATIENCE);
        match answer {
            Some((kind::ERROR, payload)) => {
                let number = records::<u64>(&payload).next().unwrap_or(0);
                Err(anyhow!("the machine says: error {number}{}", if number == 3 { ", no such process" } else { "" }))
            }
            Some((_, payload)) => {
                let found = records(&payload).next().context("an answer that is too short")?;
                Ok(self.hub.with(|picture| json!({ "text": walk_text(picture, pid as u32, &found) })))
            }
            None => Err(anyhow!("the machine does not answer: it stands, or is off")),
        }
    }
}

fn walk_text(picture: &Picture, pid: u32, found: &quire_abi::translation::TranslationInfo) -> String {
    let process = picture.processes.iter().find(|process| process.pid == pid);
    let owner = match process {
        Some(process) => format!("process {pid} ({})", quire_closeup::text(&process.name)),
        None if pid == 0 => "the kernel".into(),
        None => format!("process {pid}"),
    };
    let group = picture.group_path(found.frame.control_group);
    show(found, &Names { owner: &owner, group: &group })
}
