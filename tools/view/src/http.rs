//! As much of HTTP as a page on this host needs: one request a connection, without a body. (Crates with more have pools
//! of threads, in which a stream of events that never ends takes one from the others.)

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest head of a request, and its most lines.
const HEAD_MAX: usize = 16 << 10;
const HEADERS: usize = 64;

/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// GET and so on.
    pub method: String,
    /// What is before the question mark.
    pub path: String,
    /// What is behind it.
    pub query: String,
    /// The host that it names.
    pub host: Option<String>,
    /// The page that it says it comes from.
    pub origin: Option<String>,
}

/// Reads the request of a connection; `None` if there is none.
pub fn read(stream: &mut TcpStream) -> Result<Option<Request>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 2048]);
    loop {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..len]);
        if let Some(request) = parse(&bytes)? {
            return Ok(Some(request));
        }
    }
}

/// A request; `None` for the beginning of one.
fn parse(bytes: &[u8]) -> Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    if status.is_partial() {
        let is_short = bytes.len() <= HEAD_MAX;
        return if is_short { Ok(None) } else { Err(Error::new(ErrorKind::InvalidData, "a head that is too long")) };
    }
    let value = |name: &str| {
        let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).into_owned())
    };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host: value("Host"),
        origin: value("Origin"),
    }))
}

/// Answers with a text, and ends the connection.
pub fn respond(stream: &mut TcpStream, status: &str, kind: &str, policy: &str, text: &str) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nContent-Security-Policy: {policy}\r\n\
         X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(&[head.as_bytes(), text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_come() {
        let text = b"POST /walk?pid=1&address=0x10 HTTP/1.1\r\nhost: 127.0.0.1:80\r\nOrigin: http://x\r\n\r\n";
        assert_eq!((0..text.len()).filter(|len| parse(&text[..*len]).unwrap().is_some()).count(), 0);
        let request = parse(text).unwrap().unwrap();
        assert_eq!((&*request.method, &*request.path, &*request.query), ("POST", "/walk", "pid=1&address=0x10"));
        assert_eq!((request.host.as_deref(), request.origin.as_deref()), (Some("127.0.0.1:80"), Some("http://x")));
        assert!(parse(b"\0\0\r\n\r\n").is_err());
        assert!(parse(&[b"GET /".to_vec(), vec![b'a'; HEAD_MAX]].concat()).is_err());
    }
}
