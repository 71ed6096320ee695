//! The parts of a syslog message, as it lies in its line.
//!
//! RFC 5424 is read as it is written, with some leniency: where structured data is left out or is
//! malformed, the text begins there. All else is RFC 3164, which describes what it found and left
//! much to chance:
//!
//! - `<13>Mar  9 17:32:18 host app[123]: text`, the time perhaps with a year, a fraction or a weekday,
//!   or as RFC 3339 has it (rsyslog, Go).
//! - Without a host, which nobody on the same machine names (`logger`, glibc): `app[123]: text`. It
//!   is known by the colon or the brackets.
//! - Without an app: `last message repeated 2 times`. A word without a colon or brackets is text.
//! - Without a time: the text is all that follows the priority, but for an app (Python, the kernel).
//! - Cisco's `148: host: *Mar  9 17:32:18.003 UTC: %LINK-3-UPDOWN: text`, any of these parts missing,
//!   and `Mar 09 2026 17:32:18 host : %ASA-6-302013: text`.
//!
//! A text without host and app may lose its first word to the host: nothing in it tells.

use super::data;
use crate::codecs::decode::time::{self, Now};

/// The highest priority there is: facility 23, severity 7.
const PRIORITY_MAX: u8 = 191;

/// Apps, with what is in brackets behind them, and hosts are not longer.
const TOKEN_BYTES_MAX: usize = 255;

/// What a message has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'l> {
    /// Nanoseconds since the epoch.
    pub(super) time: Option<i64>,
    pub(super) host: Option<&'l str>,
    pub(super) app: Option<&'l str>,
    pub(super) pid: Option<&'l str>,
    pub(super) msgid: Option<&'l str>,
    pub(super) sequence: Option<&'l str>,
    /// All elements, or nothing.
    pub(super) data: &'l str,
    pub(super) text: &'l str,
}

/// The priority that a line begins with, and the rest of it.
pub(super) fn priority(line: &str) -> (Option<u8>, &str) {
    let found = || {
        let bytes = line.as_bytes().strip_prefix(b"<")?;
        let digits = bytes.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
        let number: u8 = line.get(1..=digits)?.parse().ok()?;
        let rest = line.get(digits + 1..)?.strip_prefix('>')?;
        (number <= PRIORITY_MAX).then_some((Some(number), rest))
    };
    found().unwrap_or((None, line))
}

/// Reads what follows the priority, if there was one; `None` where it is no syslog.
pub(super) fn read<'l>(prioritised: bool, rest: &'l str, now: &Now) -> Option<Message<'l>> {
    let new = rest.strip_prefix("1 ").filter(|_| prioritised).and_then(|rest| new(rest, now));
    let mut message = match new {
        Some(message) => message,
        None => old(prioritised, rest, now)?,
    };
    // Python and some C programs end it as a string of theirs.
    message.text = message.text.strip_suffix('\0').unwrap_or(message.text);
    Some(message)
}

/// RFC 5424, behind the version.
fn new<'l>(header: &'l str, now: &Now) -> Option<Message<'l>> {
    let mut rest = header;
    let mut field = || {
        let (field, after) = rest.split_once(' ').filter(|(field, _)| !field.is_empty())?;
        rest = after;
        Some(Some(field).filter(|field| *field != "-"))
    };
    let time = match field()? {
        Some(time) if is_dated(time) => Some(time::whole(time.as_bytes(), now)?),
        Some(_) => return None,
        None => None,
    };
    let (host, app, pid, msgid) = (field()?, field()?, field()?, field()?);
    let (data, text) = match rest.strip_prefix('-') {
        Some(text) if text.is_empty() || text.starts_with(' ') => ("", text),
        _ => rest.split_at_checked(data::walk(rest, |_, _| {}).unwrap_or_default())?,
    };
    let text = text.strip_prefix(' ').unwrap_or(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Some(Message { time, host, app, pid, msgid, sequence: None, data, text })
}

/// RFC 3164, as it comes.
fn old<'l>(prioritised: bool, rest: &'l str, now: &Now) -> Option<Message<'l>> {
    let mut message = Message::default();
    let start = rest.trim_start_matches(' ');
    let found = match start.as_bytes().first()? {
        b'0'..=b'9' => numbered(start, now, &mut message).or_else(|| stamp(start, now)),
        _ => stamp(start, now),
    };
    let Some((time, after)) = found else {
        // The kernel's and Python's.
        (message.app, message.pid, message.text) = tagged(rest);
        return prioritised.then_some(message);
    };
    message.time = Some(time);
    let ended = after.strip_prefix(':');
    let text = ended.unwrap_or(after);
    let text = text.strip_prefix(' ').unwrap_or(text);
    (message.app, message.pid, message.text) = tagged(text);
    if message.app.is_none() && message.host.is_none() && ended.is_none() {
        let (host, text) = hosted(text);
        message.host = host;
        (message.app, message.pid, message.text) = tagged(text);
    }
    Some(message)
}

/// A time that a text begins with, and what follows.
fn stamp<'l>(text: &'l str, now: &Now) -> Option<(i64, &'l str)> {
    // Cisco's, where its clock was not set.
    let text = text.strip_prefix(['*', '.']).unwrap_or(text);
    let bytes = text.as_bytes();
    let worded = bytes.first()?.is_ascii_uppercase() && bytes.get(3) == Some(&b' ');
    if !(worded || is_dated(text)) {
        return None;
    }
    let stamp = time::first(bytes, now)?;
    let mut after = text.get(stamp.end..)?;
    for zone in [" UTC", " GMT"] {
        after = after.strip_prefix(zone).filter(|after| after.starts_with(':')).unwrap_or(after);
    }
    (after.is_empty() || after.starts_with([' ', ':'])).then_some((stamp.nanos, after))
}

/// Whether it looks like RFC 3339.
fn is_dated(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_digit)
        && bytes.get(4) == Some(&b'-')
        && bytes.get(10) == Some(&b'T')
}

/// Cisco's number and, perhaps, a host in front of the time.
fn numbered<'l>(text: &'l str, now: &Now, message: &mut Message<'l>) -> Option<(i64, &'l str)> {
    let digits = text.bytes().take(10).take_while(u8::is_ascii_digit).count();
    let (number, after) = text.split_at_checked(digits)?;
    let after = after.strip_prefix(':')?.trim_start_matches(' ');
    let (host, found) = match stamp(after, now) {
        Some(found) => (None, found),
        None => {
            let host = token(after)?.strip_suffix(':').filter(|host| is_host(host))?;
            let after = after.get(host.len() + 1..)?.trim_start_matches(' ');
            (Some(host), stamp(after, now)?)
        }
    };
    (message.sequence, message.host) = (Some(number), host);
    Some(found)
}

/// What comes before the first blank, or all; nothing where that is too long for any name.
fn token(text: &str) -> Option<&str> {
    let head = text.as_bytes().get(..=TOKEN_BYTES_MAX).unwrap_or(text.as_bytes());
    let end =
        memchr::memchr(b' ', head).or_else(|| (head.len() == text.len()).then_some(text.len()));
    text.get(..end?)
}

/// The host that a text begins with, if it does, and what follows it.
fn hosted(text: &str) -> (Option<&str>, &str) {
    let host = token(text).filter(|host| is_host(host));
    // A single word is more likely what is said.
    let after = host.and_then(|host| text.get(host.len()..)?.strip_prefix(' '));
    let Some(after) = after else { return (None, text) };
    (host, after.strip_prefix(": ").unwrap_or(after))
}

/// A name or an address, perhaps in brackets.
fn is_host(host: &str) -> bool {
    let first = host.chars().next();
    first.is_some_and(|first| first.is_alphanumeric() || "[:_".contains(first))
        && host.chars().all(|letter| letter.is_alphanumeric() || "._-:/[]%@".contains(letter))
}

/// App and process that a text begins with, and what follows; or nothing, and the text.
fn tagged(text: &str) -> (Option<&str>, Option<&str>, &str) {
    let found = || {
        let token = token(text)?;
        let (name, pid, end) = match token.split_once('[') {
            Some((name, behind)) => {
                let (pid, behind) = behind.split_once(']').filter(|(pid, _)| !pid.is_empty())?;
                let end = token.len() - behind.len();
                match behind.as_bytes().first() {
                    None => (name, Some(pid), end),
                    Some(b':') => (name, Some(pid), end + 1),
                    Some(_) => return None,
                }
            }
            None => (token.strip_suffix(':')?, None, token.len()),
        };
        let after = text.get(end..)?;
        is_app(name).then_some((Some(name), pid, after.strip_prefix(' ').unwrap_or(after)))
    };
    found().unwrap_or((None, None, text))
}

/// The name of a program: what is quoted, or has a value, is text.
fn is_app(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|first| first.is_alphanumeric() || "%_-./(".contains(first))
        && name.chars().all(|letter| !letter.is_control() && !"\"'`=<>{},;".contains(letter))
}
