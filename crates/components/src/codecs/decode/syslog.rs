//! `syslog`: each line is a message of RFC 5424, or of RFC 3164 as programs really write it.
//!
//! The priority in front gives the severity, as OpenTelemetry maps it (*Logs Data Model*, appendix
//! B: emerg 21, alert 19, crit 18, err 17, warning 13, notice 10, info 9, debug 5), the level,
//! which is that word, and the facility. `host`, `app`, `pid`, `msgid`, the `sequence` that Cisco's
//! devices number their messages with, and structured data as `SDID.name` are metadata; the message
//! is what is left. See [`message`] for the forms there are. A time without a zone is UTC, and one
//! without a year the last that is not more than a day ahead of when it was read.
//!
//! Without a priority, as in files, a line is syslog's where it begins with a time, and has no
//! severity. Any other line is a row with the whole of it as the message: no line is refused.

/// The parts of a message.
mod message;

/// Structured data.
mod data;

use std::borrow::Cow;

use tidegate_model::Result;

use self::message::Message;
use super::columns::{Found, Shape};
use super::rows::{Rows, Wants};
use super::texts::Metadata;
use super::{Chunk, Codec, Decoded, Decoder};
use crate::codecs::views::Text;

/// A message is the end of its line, or nearly.
pub(super) const CODEC: Codec = Codec { name: "syslog", decoder, escapes: &[], severe: None };

/// The words for the severities 0 to 7, and OpenTelemetry's numbers.
const SEVERITIES: [(&str, u8); 8] = [
    ("emerg", 21),
    ("alert", 19),
    ("crit", 18),
    ("err", 17),
    ("warning", 13),
    ("notice", 10),
    ("info", 9),
    ("debug", 5),
];

/// The facilities 0 to 23.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// See the module.
struct SyslogDecoder {
    shape: Shape,
    wants: Wants,
    /// A key in the making.
    key: String,
}

fn decoder(shape: Shape) -> Box<dyn Decoder> {
    let wants = Wants::of(&shape);
    Box::new(SyslogDecoder { shape, wants, key: String::new() })
}

impl Decoder for SyslogDecoder {
    fn decode(&mut self, chunk: &Chunk<'_>) -> Result<Decoded> {
        if self.wants.nothing() {
            return self.shape.decoded(chunk, Found::default(), 0);
        }
        let text = Text::of(chunk);
        let mut rows = Rows::new(chunk, self.wants);
        let mut repaired = 0;
        for line in chunk.lines {
            let line = text.line(*line);
            repaired += u64::from(matches!(line, Cow::Owned(_)));
            push(&mut rows, &line, &mut self.key);
        }
        let found = rows.finish(self.shape.holder())?;
        self.shape.decoded(chunk, found, repaired)
    }
}

fn push(rows: &mut Rows<'_>, line: &str, key: &mut String) {
    let wants = rows.wants;
    let (priority, rest) = message::priority(line);
    if wants.severity || wants.level {
        let found = priority.and_then(|priority| SEVERITIES.get(usize::from(priority & 7)));
        rows.level(found.map(|(word, _)| *word), found.map(|(_, number)| *number));
    }
    if !(wants.timestamp || wants.message || wants.metadata) {
        return;
    }
    let Some(message) = message::read(priority.is_some(), rest, rows.now()) else {
        rows.time(None);
        rows.message(line);
        rows.end(false);
        return;
    };
    rows.time(message.time);
    rows.message(message.text);
    if let Some(metadata) = rows.metadata() {
        push_metadata(metadata, priority, &message, key);
    }
    rows.end(true);
}

fn push_metadata(
    metadata: &mut Metadata,
    priority: Option<u8>,
    message: &Message<'_>,
    key: &mut String,
) {
    let facility = priority.and_then(|priority| FACILITIES.get(usize::from(priority >> 3)));
    for (name, value) in [
        ("host", message.host),
        ("app", message.app),
        ("pid", message.pid),
        ("msgid", message.msgid),
        ("sequence", message.sequence),
        ("facility", facility.copied()),
    ] {
        if value.is_some() {
            metadata.entry(name, value);
        }
    }
    data::walk(message.data, |id, parameter| match parameter {
        Some((name, value)) => {
            key.clear();
            [id, ".", name].iter().for_each(|part| key.push_str(part));
            metadata.entry(key, Some(&data::unescaped(value)));
        }
        None => metadata.entry(id, None),
    });
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use proptest::prelude::*;
    use tidegate_model::log_schema;

    use super::super::shown::{self, rows};
    use super::*;

    /// A row as `seconds; level severity; message; metadata`.
    fn row(line: &str) -> String {
        let decoded = shown::decode(CODEC, line.as_bytes(), shown::with_offsets());
        assert_eq!((decoded.rows.num_rows(), decoded.refused), (1, 0), "{line}");
        rows(&decoded.rows).remove(0)
    }

    #[test]
    fn the_examples_of_rfc_5424() {
        for (line, expected) in [
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
                "1065910455.003; crit 18; 'su root' failed for lonvick on /dev/pts/8; \
                 host=mymachine.example.com app=su msgid=ID47 facility=auth",
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
                "1061727255.000003; notice 10; %% It's time to make the do-nuts.; \
                 host=192.0.2.1 app=myproc pid=8710 facility=local4",
            ),
            (
                "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] An application event log entry...",
                "1065910455.003; notice 10; An application event log entry...; \
                 host=mymachine.example.com app=evntslog msgid=ID47 facility=local4 \
                 exampleSDID@32473.iut=3 exampleSDID@32473.eventSource=Application \
                 exampleSDID@32473.eventID=1011",
            ),
            (
                "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [a b=\"x\\\"y\\]\"][priority@32473 class=\"high\"]",
                "1065910455.003; notice 10; ; host=mymachine.example.com app=evntslog msgid=ID47 \
                 facility=local4 a.b=x\"y] priority@32473.class=high",
            ),
            ("<0>1 - - - - - -", "read; emerg 21; ; facility=kern"),
        ] {
            assert_eq!(row(line), expected, "{line}");
        }
    }

    #[test]
    fn what_programs_really_send() {
        // Read on 2026-03-10.
        for (line, expected) in [
            // RFC 3164's own, and rsyslog forwarding with the other kind of time.
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                "1760220855; crit 18; 'su root' failed for lonvick on /dev/pts/8; host=mymachine \
                 app=su facility=auth",
            ),
            (
                "<13>2015-10-11T22:14:15.5+02:00 host app[123]: text: more",
                "1444594455.5; notice 10; text: more; host=host app=app pid=123 facility=user",
            ),
            // logger on the same machine, Python, the kernel.
            (
                "<13>Mar  9 17:32:18 root: hello",
                "1773077538; notice 10; hello; app=root facility=user",
            ),
            ("<14>only text here\0", "read; info 9; only text here; facility=user"),
            (
                "<6>usb 1-1: new device number 4",
                "read; info 9; usb 1-1: new device number 4; facility=kern",
            ),
            // Cisco.
            (
                "<189>148: *Mar  1 18:46:11: %SYS-5-CONFIG_I: Configured from console",
                "1772390771; notice 10; Configured from console; app=%SYS-5-CONFIG_I sequence=148 \
                 facility=local7",
            ),
            // A file without priorities.
            (
                "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; user=root",
                "1749914161; -; authentication failure; user=root; host=combo app=sshd(pam_unix) \
                 pid=19939",
            ),
        ] {
            assert_eq!(row(line), expected, "{line}");
            shown::check_choices(CODEC, line.as_bytes());
        }
    }

    #[test]
    fn what_is_no_syslog_is_a_row_all_the_same() {
        for line in ["text", "<", "<>", "<192>x", "<1234>x", "<13", "{\"a\":1}", "<x>1 - - - - - -"]
        {
            assert_eq!(row(line), format!("read; -; {line}; null"), "{line}");
        }
        assert_eq!(row("\n"), "read; -; ; null");
        for (line, text) in [
            ("<13>1 yesterday host app - - - text", "1 yesterday host app - - - text"),
            ("<13>1 - - - - - [broken text", "[broken text"),
            ("<13>1 - - - - - [a b=\"open", "[a b=\"open"),
        ] {
            let found = row(line);
            assert_eq!(found.split("; ").nth(2).unwrap(), text, "{line}");
        }
    }

    #[test]
    fn each_severity_and_facility_has_its_name() {
        let lines: Vec<String> = (0..=191).map(|priority| format!("<{priority}>x")).collect();
        let decoded = shown::decode(CODEC, lines.join("\n").as_bytes(), log_schema());
        for (row, priority) in rows(&decoded.rows).iter().zip(0..) {
            let (word, number) = SEVERITIES[priority % 8];
            let facility = FACILITIES[priority / 8];
            assert_eq!(row, &format!("read; {word} {number}; x; facility={facility}"));
        }
        assert_eq!(decoded.rows.num_rows(), 192);
    }

    const LINES: &[u8] = b"<34>Oct 11 22:14:15 mymachine su[7]: a text longer than a view\n\
        text that is no syslog\n<13>1 - h a - - [x y=\"z\"] \xff broken\n<13>\n\n<9>no time\n";

    #[test]
    fn what_nobody_reads_changes_nothing_in_what_is_read() {
        shown::check_choices(CODEC, LINES);
    }

    #[test]
    fn a_message_stays_where_it_was_read_and_is_repaired_if_need_be() {
        let decoded = shown::decode(CODEC, LINES, log_schema());
        let messages = decoded.rows.column(4).as_string_view();
        assert_eq!((messages.value(2), decoded.repaired), ("\u{fffd} broken", 1));
        let buffer = messages.data_buffers()[0].as_slice();
        assert!(buffer.as_ptr_range().contains(&messages.value(0).as_ptr()));
    }

    #[test]
    fn a_short_line_does_not_become_a_huge_row() {
        let line = format!("<1>1 - - - - - [{}{}]", "i".repeat(64), " a=\"\"".repeat(50_000));
        let decoded = shown::decode(CODEC, line.as_bytes(), log_schema());
        let keys = decoded.rows.column(5).as_map().keys().as_string::<i32>();
        assert_eq!(keys.len(), 50_001);
        assert!(keys.values().len() < 15 * line.len());
        let longer = line.replacen('[', "[i", 1);
        let decoded = shown::decode(CODEC, longer.as_bytes(), log_schema());
        assert_eq!(decoded.rows.column(5).as_map().keys().len(), 1);
    }

    /// Bytes of which some look like what is looked for, cut and glued anywhere.
    fn odd_text() -> impl Strategy<Value = Vec<u8>> {
        shown::glued(vec![
            &b"<34>"[..],
            b"<13>1 ",
            b"2015-10-18T18:01:47Z ",
            b"Oct 11 22:14:15 ",
            b"29: *",
            b" UTC: ",
            b"host ",
            b"app[1]: ",
            b"- ",
            b"[id ",
            b"a=\"b\"",
            b"\\\"",
            b"]",
            b"\xef\xbb\xbf",
            b"\xc3",
            "\u{e4}".as_bytes(),
            b"\0",
            b"\n",
            b"\r\n",
        ])
    }

    proptest! {
        // That columns are what Arrow calls valid is checked where they are decoded.
        #[test]
        fn any_bytes_give_valid_columns_and_messages_that_end_their_lines(bytes in odd_text()) {
            let decoded = shown::decode(CODEC, &bytes, log_schema());
            let messages = decoded.rows.column(4).as_string_view();
            let mut lines = 0;
            for (row, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                lines += 1;
                let bare = line.strip_suffix(b"\n").map(|l| l.strip_suffix(b"\r").unwrap_or(l));
                let line = String::from_utf8_lossy(bare.unwrap_or(line));
                let message = messages.value(row);
                let bare = line.strip_suffix('\0').unwrap_or(&line);
                prop_assert!(line.ends_with(message) || bare.ends_with(message), "{}", line);
                let parsed = !decoded.rows.column(5).as_map().value(row).is_empty();
                prop_assert!(parsed || message.len() + 30 > bare.len(), "{}", line);
            }
            prop_assert_eq!(messages.len(), lines);
        }

        #[test]
        fn no_line_is_lost_whatever_it_is(line in "[ -~äß\u{feff}\0]{1,80}", head in "(<[0-9]{1,3}>)?(1 )?") {
            let line = format!("{head}{line}");
            let decoded = shown::decode(CODEC, line.as_bytes(), shown::with_offsets());
            prop_assert_eq!((decoded.rows.num_rows(), decoded.refused), (1, 0));
            let message = decoded.rows.column_by_name("message").unwrap();
            // What a row says is in its line, byte for byte.
            prop_assert!(line.contains(message.as_string_view().value(0)));
        }
    }
}
