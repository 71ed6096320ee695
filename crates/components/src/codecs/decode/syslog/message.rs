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
    let found = match start.as_bytes().first() {
        Some(b'0'..=b'9') => numbered(start, now, &mut message).or_else(|| stamp(start, now)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-10 12:00:00 UTC.
    const READ_AT: i64 = 1_773_144_000_000_000_000;

    fn message(line: &str) -> Option<Message<'_>> {
        let (priority, rest) = priority(line);
        read(priority.is_some(), rest, &Now::new(READ_AT))
    }

    /// Seconds, host, app, pid, and text.
    fn parts(line: &str) -> Option<String> {
        let message = message(line)?;
        let time = message.time.map_or("-".to_owned(), |time| format!("{}", time as f64 / 1e9));
        let [host, app, pid] = [message.host, message.app, message.pid].map(|p| p.unwrap_or("-"));
        Some(format!("{time} {host} {app} {pid} |{}", message.text))
    }

    #[test]
    fn a_priority_is_a_number_up_to_191_in_angle_brackets() {
        for (line, expected) in [
            ("<0>x", (Some(0), "x")),
            ("<191>", (Some(191), "")),
            ("<034>x", (Some(34), "x")),
            ("<192>x", (None, "<192>x")),
            ("<1234>x", (None, "<1234>x")),
            ("<>x", (None, "<>x")),
            ("<-1>x", (None, "<-1>x")),
            ("<+1>x", (None, "<+1>x")),
            ("<1", (None, "<1")),
            ("<é>", (None, "<é>")),
            ("", (None, "")),
            ("x<1>", (None, "x<1>")),
        ] {
            assert_eq!(priority(line), expected, "{line}");
        }
    }

    /// Captured: util-linux `logger`, rsyslog's templates, Python's `SysLogHandler`, the kernel, files;
    /// and the examples of RFC 3164.
    #[test]
    fn all_old_forms_are_known() {
        for (line, expected) in [
            ("<13>Nov 26 22:50:53 vm myapp[42]: over udp", "1764197453 vm myapp 42 |over udp"),
            ("<156>Nov 26 22:50:53 vm root: hello", "1764197453 vm root - |hello"),
            ("<35>Nov 26 22:50:54 root: local one", "1764197454 - root - |local one"),
            ("<13>Nov 26 22:50:54 app[9]: local two", "1764197454 - app 9 |local two"),
            ("Nov 26 22:51:11 vm sshd[7]: Invalid user", "1764197471 vm sshd 7 |Invalid user"),
            ("Nov 26 22:51:11 vm app with data", "1764197471 vm - - |app with data"),
            ("2026-01-26T22:51:11.5+01:00 vm sshd[7]: x: y", "1769464271.5 vm sshd 7 |x: y"),
            ("<13>2026-01-26T22:51:11Z vm sshd[7]: x", "1769467871 vm sshd 7 |x"),
            ("<12>python says é\0", "- - - - |python says é"),
            ("<11>ident[7]: with ident\0", "- - ident 7 |with ident"),
            (
                "<6>[   12.345678] usb 1-1: new device",
                "- - - - |[   12.345678] usb 1-1: new device",
            ),
            ("<4>kernel: [1.0] x", "- - kernel - |[1.0] x"),
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                "1760220855 mymachine su - |'su root' failed for lonvick on /dev/pts/8",
            ),
            (
                "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
                "1770312738 10.0.0.99 - - |Use the BFG!",
            ),
            ("<13>Feb  5 17:32:18 fe80::1 app: x", "1770312738 fe80::1 app - |x"),
            (
                "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: x",
                "1749914161 combo sshd(pam_unix) 19939 |x",
            ),
            (
                "Jun 14 15:16:01 combo last message repeated 2 times",
                "1749914161 combo - - |last message repeated 2 times",
            ),
            (
                "Jun 14 15:16:01 combo -- root[1]: ROOT LOGIN",
                "1749914161 combo - - |-- root[1]: ROOT LOGIN",
            ),
            (
                "Jun 14 15:16:01 --- last message repeated 1 time ---",
                "1749914161 - - - |--- last message repeated 1 time ---",
            ),
            ("Jun 14 15:16:01 combo app[123] no colon", "1749914161 combo app 123 |no colon"),
            ("Jun 14 15:16:01 combo Foo::Bar[main/1]:x", "1749914161 combo Foo::Bar main/1 |x"),
            (
                "Jun 14 15:16:01 combo postfix/smtpd[2]:  two blanks",
                "1749914161 combo postfix/smtpd 2 | two blanks",
            ),
            ("Jun 14 15:16:01 hello", "1749914161 - - - |hello"),
            ("Jun 14 15:16:01", "1749914161 - - - |"),
            ("Mar 12 12:00:01 h a: of last year", "1741780801 h a - |of last year"),
            ("Mar 11 11:00:00 h a: soon", "1773226800 h a - |soon"),
            ("<13>Foo 99 22:14:15 x", "- - - - |Foo 99 22:14:15 x"),
            ("<13>level=info: x", "- - - - |level=info: x"),
            ("<13>", "- - - - |"),
            ("<13> ", "- - - - | "),
        ] {
            assert_eq!(parts(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn the_forms_of_cisco_are_known() {
        for (line, expected) in [
            (
                "<189>29: *Mar  1 18:46:11: %SYS-5-CONFIG_I: Configured",
                "1772390771 - %SYS-5-CONFIG_I - |Configured",
            ),
            (
                "<187>148: rtr1: Oct 11 22:14:15.003 UTC: %LINK-3-UPDOWN: Interface",
                "1760220855.003 rtr1 %LINK-3-UPDOWN - |Interface",
            ),
            (
                "<166>Oct 11 2018 22:14:15: %ASA-6-302013: Built",
                "1539296055 - %ASA-6-302013 - |Built",
            ),
            (
                "<166>Jul 01 2020 12:00:00 fw1 : %ASA-6-302013: Built",
                "1593604800 fw1 %ASA-6-302013 - |Built",
            ),
        ] {
            assert_eq!(parts(line).as_deref(), Some(expected), "{line}");
        }
        let message = message("<189>29: *Mar  1 18:46:11: %SYS-5-CONFIG_I: x").unwrap();
        assert_eq!(message.sequence, Some("29"));
    }

    #[test]
    fn what_has_neither_priority_nor_time_is_no_syslog() {
        for line in [
            "",
            "text",
            "app[1]: text",
            "<999>Jun 14 15:16:01 combo app: x",
            "1 2026-01-26T22:51:11Z host app - - - x",
            "2026-01-26 22:51:11 host app: x",
            "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond[1]: x",
            "Jun 14 15:16:01x",
            "Jun 31 15:16:01 combo x",
            "29: hello",
            "148: rtr1: hello",
            "Mayor of x",
        ] {
            assert_eq!(message(line), None, "{line}");
        }
    }

    #[test]
    fn the_new_form_is_read_as_its_rfc_has_it() {
        let line =
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root'";
        let expected = Message {
            time: Some(1_065_910_455_003_000_000),
            host: Some("mymachine.example.com"),
            app: Some("su"),
            msgid: Some("ID47"),
            text: "'su root'",
            ..Message::default()
        };
        assert_eq!(message(line), Some(expected));
        let line =
            r#"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 evntslog 8710 - [a b="\]"][c] x"#;
        let expected = Message {
            time: Some(1_061_727_255_000_003_000),
            host: Some("192.0.2.1"),
            app: Some("evntslog"),
            pid: Some("8710"),
            data: r#"[a b="\]"][c]"#,
            text: "x",
            ..Message::default()
        };
        assert_eq!(message(line), Some(expected));
        for (end, data, text) in [
            ("-", "", ""),
            ("- ", "", ""),
            ("-  two blanks", "", " two blanks"),
            ("[a]", "[a]", ""),
            ("[a]no blank", "[a]", "no blank"),
            ("[a b=\"cut", "", "[a b=\"cut"),
            ("left out", "", "left out"),
            ("-left out", "", "-left out"),
        ] {
            let line = format!("<0>1 - - - - - {end}");
            let found = message(&line).unwrap();
            assert_eq!((found.data, found.text), (data, text), "{line}");
            assert_eq!(Message { data: "", text: "", ..found }, Message::default());
        }
    }

    #[test]
    fn what_is_no_header_of_the_new_form_stays_text() {
        for text in [
            "1 2026-01-26T22:51:11Z host app -",
            "1 soon host app - - - x",
            "1 2026-01-26T22:51:61Z host app - - - x",
            "1 2026-01-26T22:51:11Z  app - - - x",
            "2 2026-01-26T22:51:11Z host app - - - x",
            "1 ",
            "1",
        ] {
            let line = format!("<34>{text}");
            let found = message(&line).unwrap();
            assert_eq!(found, Message { text, ..Message::default() }, "{line}");
        }
    }

    #[test]
    fn names_that_are_too_long_are_text() {
        let long = "x".repeat(300);
        for line in [format!("<1>{long}: x"), format!("<1>Jun 14 15:16:01 {long} x: y")] {
            let found = message(&line).unwrap();
            assert_eq!((found.host, found.app), (None, None));
            assert!(found.text.starts_with(&long));
        }
    }
}
