//! Arbitrary bytes as an event stream, cut at arbitrary places: the events are those of a plain
//! reading of the standard, but for such as are too long, and how the bytes are cut changes nothing.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate_net::sse::{Event, Parser, TooLong};

/// What comes of a stream.
#[derive(Debug, PartialEq)]
struct Read {
    events: Vec<Result<Event, TooLong>>,
    last_id: String,
    retry: Option<Duration>,
}

fuzz_target!(|input: &[u8]| {
    let Some((&[bytes_max, chunk], text)) = input.split_first_chunk::<2>() else { return };
    let chunk = usize::from(chunk).max(1);
    // Nothing is too long here, so all is as the standard has it.
    let roomy = 8 * text.len() + 1_000;
    let whole = read(text, roomy, text.len().max(1));
    assert_eq!(whole, plain(text), "the standard");
    assert_eq!(read(text, roomy, chunk), whole, "cut");
    // Where some are, they are left out, and the others are the same.
    let bytes_max = usize::from(bytes_max);
    let short = read(text, bytes_max, text.len().max(1));
    assert_eq!(read(text, bytes_max, chunk), short, "short, cut");
    let mut all = whole.events.iter().map(|event| event.as_ref().unwrap());
    for event in short.events.iter().flatten() {
        assert!(all.any(|known| (&known.event, &known.data) == (&event.event, &event.data)));
    }
});

fn read(text: &[u8], bytes_max: usize, chunk: usize) -> Read {
    let mut parser = Parser::new(bytes_max);
    let mut events = Vec::new();
    for piece in text.chunks(chunk) {
        parser.push(piece.to_vec().into());
        events.extend(std::iter::from_fn(|| parser.next_event()));
    }
    Read { events, last_id: parser.last_id().to_owned(), retry: parser.retry() }
}

/// The standard's steps, one after the other, over the whole stream.
fn plain(text: &[u8]) -> Read {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    // What follows the last line's end is no line.
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let (mut event, mut data, mut id) = (String::new(), None::<String>, String::new());
    let mut read = Read { events: Vec::new(), last_id: String::new(), retry: None };
    for line in lines {
        if line.is_empty() {
            read.last_id = id.clone();
            let event = std::mem::take(&mut event);
            if let Some(data) = data.take() {
                let event = if event.is_empty() { "message".to_owned() } else { event };
                read.events.push(Ok(Event { id: id.clone(), event, data }));
            }
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => event = value.to_owned(),
            "data" => match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "id" if !value.contains('\0') => id = value.to_owned(),
            // Longer numbers are passed over: they are millions of years.
            "retry"
                if (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit()) =>
            {
                let millis = value.parse().unwrap_or(u64::MAX);
                read.retry = Some(Duration::from_millis(millis));
            }
            _ => {}
        }
    }
    read
}
