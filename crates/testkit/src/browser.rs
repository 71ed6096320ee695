//! A real browser with a page of the test's, on the same origin as the server under test.
//!
//! The page is served by a small server that passes on every other path, so that neither the page
//! nor the server under test needs to know of the other's port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::peers;
use crate::process::Program;

/// How long a browser may leave a request unfinished, and a server accept.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The most bytes of a request's head, and of what a page tells at a time.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// What every page can call: `tell(text)` says something to the test, in order.
const TELL: &str = "<!doctype html><meta charset=utf-8><script>
let told = Promise.resolve();
const tell = text => told = told.then(() => fetch('/told', {method: 'POST', body: String(text)}));
onerror = (message, file, line) => { tell(`error in line ${line}: ${message}`); };
</script>\n";

/// Chromium with a page; killed when this is dropped.
#[derive(Debug)]
pub struct Browser {
    program: Program,
    page: Page,
    _profile: tempfile::TempDir,
}

/// A page that can be loaded, and what it tells.
#[derive(Debug)]
struct Page {
    address: SocketAddr,
    told: Receiver<String>,
    ended: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Browser {
    /// Opens a page, an HTML text whose scripts may call `tell(text)`. What it asks for under any
    /// path but `/page` and `/told` goes to the server.
    ///
    /// # Panics
    ///
    /// Where there is no Chromium.
    #[track_caller]
    pub fn open(page: &str, server: SocketAddr) -> Self {
        let profile = tempfile::tempdir();
        let profile = profile.unwrap_or_else(|error| panic!("no folder for a profile: {error}"));
        let page = Page::serve(page, server);
        let mut command = peers::chromium(profile.path());
        command.arg(format!("http://{}/page", page.address));
        Self { program: Program::of(command), page, _profile: profile }
    }

    /// What the page tells next.
    ///
    /// # Panics
    ///
    /// Where it tells nothing in time.
    #[track_caller]
    pub fn told(&self, deadline: Duration) -> String {
        self.page.told.recv_timeout(deadline).unwrap_or_else(|_| {
            panic!("the page told nothing for {deadline:?}; chromium: {}", self.program.stderr())
        })
    }
}

impl Page {
    fn serve(page: &str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("no port for a page: {error}"));
        let address = listener.local_addr();
        let address = address.unwrap_or_else(|error| panic!("a page without address: {error}"));
        let (tell, told) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let page: Arc<str> = format!("{TELL}{page}").into();
        let until = Arc::clone(&ended);
        let serving = thread::spawn(move || {
            for stream in listener.incoming() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (page, tell) = (Arc::clone(&page), tell.clone());
                // Ends with its connection, and so with the browser.
                thread::spawn(move || answer(stream, server, &page, &tell));
            }
        });
        Self { address, told, ended, serving: Some(serving) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address)); // wakes it
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// Answers the one request of a connection.
fn answer(mut stream: TcpStream, server: SocketAddr, page: &str, tell: &Sender<String>) {
    let _ = stream.set_read_timeout(Some(TIMEOUT));
    let mut request = Vec::new();
    let Some(head_bytes) = read_until(&mut stream, &mut request, head_bytes) else { return };
    let head = String::from_utf8_lossy(&request[..head_bytes]).to_ascii_lowercase();
    let body = if head.starts_with("get /page ") {
        page
    } else if head.starts_with("post /told ") {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let whole = |request: &[u8]| (request.len() >= head_bytes + length).then_some(());
        if read_until(&mut stream, &mut request, whole).is_none() {
            return;
        }
        let text = String::from_utf8_lossy(&request[head_bytes..head_bytes + length]);
        let _ = tell.send(text.into_owned());
        ""
    } else if head.starts_with("get /favicon.ico ") {
        ""
    } else {
        // The connection is the server's from here on, so it must not be used again for ours.
        let head = String::from_utf8_lossy(&request[..head_bytes]);
        let head = head.replacen("Connection: keep-alive\r\n", "Connection: close\r\n", 1);
        let begin = [head.as_bytes(), &request[head_bytes..]].concat();
        return relay(stream, server, &begin);
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
}

/// Reads more until something is found in what there is.
fn read_until<T>(
    stream: &mut TcpStream,
    request: &mut Vec<u8>,
    found: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut piece = [0; 4096];
    loop {
        if let Some(found) = found(request) {
            return Some(found);
        }
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&piece[..count]);
        if request.len() > REQUEST_BYTES_MAX {
            return None;
        }
    }
}

fn head_bytes(request: &[u8]) -> Option<usize> {
    request.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4)
}

/// Joins the browser with the server, for as long as both want.
fn relay(mut stream: TcpStream, server: SocketAddr, begin: &[u8]) {
    let Ok(mut server) = TcpStream::connect_timeout(&server, TIMEOUT) else { return };
    let _ = stream.set_read_timeout(None);
    if server.write_all(begin).is_err() {
        return;
    }
    let (Ok(mut from_server), Ok(mut to_browser)) = (server.try_clone(), stream.try_clone()) else {
        return;
    };
    let down = thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_browser);
        let _ = to_browser.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut stream, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = down.join();
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A server that answers everything with this, and keeps it open.
    fn server(answer: &'static str) -> (SocketAddr, Receiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, heads) = channel();
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                if read_until(&mut stream, &mut request, head_bytes).is_some() {
                    stream.write_all(answer.as_bytes()).unwrap();
                    let _ = asked.send(String::from_utf8(request).unwrap());
                }
                open.push(stream);
            }
        });
        (address, heads)
    }

    fn asked(page: &Page, request: &str) -> String {
        let mut stream = TcpStream::connect(page.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_page_is_served_and_heard_and_the_rest_goes_to_the_server() {
        let (address, heads) = server("HTTP/1.0 200 OK\r\n\r\nfrom the server");
        let page = Page::serve("<p>page</p>", address);
        assert!(asked(&page, "GET /page HTTP/1.1\r\n\r\n").ends_with("<p>page</p>"));
        let tells = "POST /told HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
        assert!(asked(&page, tells).starts_with("HTTP/1.1 200"));
        assert_eq!(page.told.recv_timeout(DEADLINE).unwrap(), "hello");
        let mut stream = TcpStream::connect(page.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"GET /other HTTP/1.1\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let head = heads.recv_timeout(DEADLINE).unwrap();
        assert_eq!(head, "GET /other HTTP/1.1\r\nConnection: close\r\n\r\n");
        let mut answer = [0; "HTTP/1.0 200 OK\r\n\r\nfrom the server".len()];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(b"from the server"));
    }

    #[test]
    #[ignore = "needs chromium; run by cargo xtask test"]
    fn a_page_hears_a_live_stream_of_its_own_origin() {
        let (address, heads) = server(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
             data: one\n\ndata: two\n\n",
        );
        let page = "<script>new EventSource('/events').onmessage = event => tell(event.data);\
                    </script>";
        let browser = Browser::open(page, address);
        assert_eq!(browser.told(DEADLINE), "one");
        assert_eq!(browser.told(DEADLINE), "two");
        let head = heads.recv_timeout(DEADLINE).unwrap();
        assert!(head.starts_with("GET /events ") && head.contains("text/event-stream"), "{head}");
    }
}
