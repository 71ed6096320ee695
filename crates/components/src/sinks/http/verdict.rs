//! What an answer means for the rows that were sent: pure.

use std::time::{Duration, SystemTime};

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// What is to become of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// They are there.
    Delivered,
    /// Nothing is wrong with them: try again, after so long if the other side said so.
    Again(Option<Duration>),
    /// One of them, or all, will never be taken.
    Refused,
}

/// No wait that a server asks for is longer.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// What a status and its headers mean, at this moment.
///
/// A refusal of who we are or where we send to says nothing of the rows: they are tried again until
/// somebody has mended that, and nothing is lost meanwhile.
pub(super) fn meaning(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Meaning {
    match status.as_u16() {
        200..=299 => Meaning::Delivered,
        // Of these, 401 to 407 and 410 are about us and the place, 408 to 429 about the moment, and
        // the others about headers that all requests have.
        401..=408 | 410 | 411 | 414 | 415 | 417 | 421 | 423 | 425 | 426 | 428 | 429 | 431 => {
            Meaning::Again(retry_after(headers, now))
        }
        400..=499 => Meaning::Refused,
        _ => Meaning::Again(retry_after(headers, now)),
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(said).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(WAIT_MAX))
}

/// An answer in one line: its status, where it sends us, the beginning of its text.
pub(super) fn said(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let mut line = format!("it answers {status}");
    if status.is_redirection()
        && let Some(to) = headers.get(LOCATION).and_then(|to| to.to_str().ok())
    {
        line += &format!(" to {to}: if that is right, set url to it");
    }
    let text = String::from_utf8_lossy(body);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !text.is_empty() {
        line += ": ";
        line.extend(text.chars().filter(|letter| !letter.is_control()).take(200));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())])
    }

    #[test]
    fn statuses_mean_what_they_say_of_the_rows() {
        use Meaning::{Again, Delivered, Refused};
        let none = HeaderMap::new();
        for (status, expected) in [
            (200, Delivered),
            (204, Delivered),
            (299, Delivered),
            (301, Again(None)),
            (400, Refused),
            (401, Again(None)),
            (403, Again(None)),
            (404, Again(None)),
            (408, Again(None)),
            (409, Refused),
            (410, Again(None)),
            (413, Refused),
            (415, Again(None)),
            (422, Refused),
            (429, Again(None)),
            (500, Again(None)),
            (503, Again(None)),
            (599, Again(None)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(meaning(status, &none, SystemTime::UNIX_EPOCH), expected, "{status}");
        }
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_and_has_an_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("99999999999", Some(900)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:27 GMT", Some(900)),
            ("-1", None),
            ("soon", None),
            ("1e9", None),
        ] {
            let found = retry_after(&headers(text), now);
            assert_eq!(found, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn an_answer_is_one_short_line() {
        let text = format!("no\r\n such\t\u{1b}[1mrow{}", "x".repeat(500));
        let line = said(StatusCode::BAD_REQUEST, &HeaderMap::new(), text.as_bytes());
        assert!(line.starts_with("it answers 400 Bad Request: no such [1mrowxxx"), "{line}");
        assert!(line.len() < 250 && !line.contains(char::is_control));
        let to = HeaderMap::from_iter([(LOCATION, "https://b/".parse().unwrap())]);
        let line = said(StatusCode::MOVED_PERMANENTLY, &to, b"");
        assert_eq!(
            line,
            "it answers 301 Moved Permanently to https://b/: if that is right, set url to it"
        );
    }
}
