//! Logs as applications write them, made up: the same for the same seed, and never a line twice.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use fastrand::Rng;

/// What the lines look like.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(dead_code, reason = "another benchmark uses one of them")]
pub(crate) enum Shape {
    /// Two lines of an application to one of an access log.
    Mixed,
    /// A JSON object a line.
    Json,
    /// Lines of 20 to 2,000 bytes.
    Long,
}

/// What is known of a log from its making.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
    /// Lines of more than [`LONG_BYTES`], the line's end not counted.
    pub(crate) long: u64,
    /// Lines of level ERROR; no others have that word.
    pub(crate) errors: u64,
}

/// What is a long line.
pub(crate) const LONG_BYTES: usize = 120;

const SEED: u64 = 4;

/// How much is written at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// One of so many events is a damaged block.
const DAMAGED_ONE_IN: u32 = 50_000;

const DAMAGED: &str = "checksum mismatch in block %h of %w, %h was expected";

/// How often each level occurs, in a thousand, and what is said at it. `%u` is a user's id, `%n` a
/// small and `%N` a large number, `%w` a word, `%h` a hexadecimal number, `%i` an address.
const LEVELS: [(&str, u16, &[&str]); 4] = [
    (
        "INFO",
        700,
        &[
            "user %u signed in from %i",
            "user %u placed order %N with %n items for %w, paid in %n ms",
            "cache hit for session:%h, %n entries, %N bytes",
            "GET /api/%w/%N answered 200 in %n ms",
            "user %u opened %w, page %n",
            "job %h of queue %w finished after %n ms and %n retries, next run in %n s; the worker \
             gave its lease back and reported %N rows to %w",
        ],
    ),
    (
        "DEBUG",
        185,
        &[
            "pool %w: %n of 1000 connections in use, %n waiting",
            "parsed %N bytes of %w in %n us",
            "user %u has flags %w=on %w=off %w=on variant=%n bucket=%n session=%h trace=%h \
             parent=%h",
        ],
    ),
    (
        "WARN",
        100,
        &[
            "slow query on %w took %N ms: SELECT id, name, total FROM orders WHERE customer = %u \
             ORDER BY created DESC LIMIT %n",
            "user %u asks for more than %n pages a second, timeout in %n s",
            "retry %n of 5 for %w after %n ms",
        ],
    ),
    (
        "ERROR",
        15,
        &[
            "user %u asked for /api/%w and got nothing: timeout after %N ms",
            "connection refused by upstream payments at %i",
            "order %N could not be stored: %w is read-only",
        ],
    ),
];

const WORDS: [&str; 32] = [
    "orders",
    "basket",
    "payments",
    "search",
    "catalog",
    "profile",
    "invoice",
    "shipping",
    "report",
    "billing",
    "session",
    "gateway",
    "ledger",
    "mailer",
    "thumbnail",
    "archive",
    "customers",
    "export",
    "import",
    "pricing",
    "stock",
    "coupon",
    "review",
    "wishlist",
    "login",
    "checkout",
    "address",
    "returns",
    "supplier",
    "tax",
    "statistics",
    "backup",
];

/// Writes a log of about so many bytes, ending with a whole line, and waits until it is on disk, so
/// that its writing disturbs no measurement.
pub(crate) fn write(path: &Path, shape: Shape, bytes: u64) -> io::Result<Facts> {
    let mut file = File::create(path)?;
    let mut maker = Maker::new();
    let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
    let mut facts = Facts::default();
    while facts.bytes < bytes {
        let start = block.len();
        let is_error = maker.line(shape, &mut block);
        let length = block.len() - start;
        block.push(b'\n');
        facts.bytes += length as u64 + 1;
        facts.lines += 1;
        facts.long += u64::from(length > LONG_BYTES);
        facts.errors += u64::from(is_error);
        if block.len() >= BLOCK_BYTES {
            file.write_all(&block)?;
            block.clear();
        }
    }
    file.write_all(&block)?;
    file.sync_all()?;
    Ok(facts)
}

struct Maker {
    random: Rng,
    /// Milliseconds since the month began.
    now: u64,
}

impl Maker {
    fn new() -> Self {
        Self { random: Rng::with_seed(SEED), now: 0 }
    }

    /// Appends a line without its end; says whether its level is ERROR.
    fn line(&mut self, shape: Shape, to: &mut Vec<u8>) -> bool {
        self.now = (self.now + self.random.u64(0..20)) % (28 * 86_400_000);
        match shape {
            Shape::Mixed if self.random.u8(0..3) == 0 => self.access(to),
            Shape::Mixed => self.app(to),
            Shape::Json => self.json(to),
            Shape::Long => self.long(to),
        }
    }

    fn app(&mut self, to: &mut Vec<u8>) -> bool {
        let (level, message) = self.event();
        self.stamp(to);
        to.push(b' ');
        to.extend_from_slice(level.as_bytes());
        self.fill(" [worker-%n] shop.%w: ", to);
        self.fill(message, to);
        level == "ERROR"
    }

    fn access(&mut self, to: &mut Vec<u8>) -> bool {
        self.fill("%i - - [", to);
        let day = self.now / 86_400_000;
        digits(day + 1, 2, to);
        to.extend_from_slice(b"/Nov/2026:");
        self.time_of_day(to);
        self.fill(" +0000] \"GET /shop/%w/%N HTTP/1.1\" 200 %N \"https://shop.example/%w\" ", to);
        to.extend_from_slice(b"\"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\" ");
        self.fill("%n", to);
        false
    }

    fn json(&mut self, to: &mut Vec<u8>) -> bool {
        let (level, message) = self.event();
        to.extend_from_slice(b"{\"timestamp\":\"");
        self.stamp(to);
        to.extend_from_slice(b"\",\"level\":\"");
        to.extend_from_slice(level.as_bytes());
        self.fill("\",\"thread\":\"worker-%n\",\"logger\":\"shop.%w\",\"message\":\"", to);
        self.fill(message, to);
        self.fill("\",\"user_id\":%u,\"took_ms\":%n}", to);
        level == "ERROR"
    }

    fn long(&mut self, to: &mut Vec<u8>) -> bool {
        let length = self.random.usize(20..=2_000);
        let (level, _) = self.event();
        let start = to.len();
        self.time_of_day(to);
        to.push(b' ');
        to.extend_from_slice(level.as_bytes());
        while to.len() - start < length {
            self.fill(" %w %n", to);
        }
        to.truncate(start + length);
        level == "ERROR"
    }

    /// A level and what is said at it.
    fn event(&mut self) -> (&'static str, &'static str) {
        if self.random.u32(0..DAMAGED_ONE_IN) == 0 {
            return ("ERROR", DAMAGED);
        }
        let mut at = self.random.u16(0..1_000);
        for (level, share, messages) in LEVELS {
            if at < share {
                let chosen = self.random.usize(0..messages.len());
                return (level, messages.get(chosen).copied().unwrap_or_default());
            }
            at -= share;
        }
        ("INFO", "")
    }

    /// Appends a text with its gaps filled.
    fn fill(&mut self, text: &str, to: &mut Vec<u8>) {
        let mut pieces = text.split('%');
        to.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
        for piece in pieces {
            match piece.as_bytes().first() {
                Some(b'u') => number(self.random.u64(1_000..100_000), to),
                Some(b'n') => number(self.random.u64(0..1_000), to),
                Some(b'N') => number(self.random.u64(0..10_000_000), to),
                Some(b'w') => {
                    let word = WORDS[self.random.usize(0..WORDS.len())];
                    to.extend_from_slice(word.as_bytes());
                }
                Some(b'h') => self.hexadecimal(to),
                _ => self.address(to),
            }
            to.extend_from_slice(piece.get(1..).unwrap_or_default().as_bytes());
        }
    }

    fn hexadecimal(&mut self, to: &mut Vec<u8>) {
        let mut bits = self.random.u64(..);
        to.extend([(); 16].map(|()| {
            bits = bits.rotate_left(4);
            b"0123456789abcdef"[(bits & 15) as usize]
        }));
    }

    fn address(&mut self, to: &mut Vec<u8>) {
        let [a, b, c, _] = self.random.u32(..).to_le_bytes();
        to.extend_from_slice(b"10.");
        number(a.into(), to);
        to.push(b'.');
        number(b.into(), to);
        to.push(b'.');
        number(c.into(), to);
    }

    /// `2026-11-25T09:10:11.123Z`
    fn stamp(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(b"2026-11-");
        digits(self.now / 86_400_000 + 1, 2, to);
        to.push(b'T');
        self.time_of_day(to);
        to.push(b'.');
        digits(self.now % 1_000, 3, to);
        to.push(b'Z');
    }

    fn time_of_day(&self, to: &mut Vec<u8>) {
        let seconds = self.now / 1_000;
        digits(seconds / 3_600 % 24, 2, to);
        to.push(b':');
        digits(seconds / 60 % 60, 2, to);
        to.push(b':');
        digits(seconds % 60, 2, to);
    }
}

fn number(value: u64, to: &mut Vec<u8>) {
    let width = value.checked_ilog10().unwrap_or_default() + 1;
    digits(value, width as usize, to);
}

/// So many digits of a number, from the right, with leading zeros.
fn digits(mut value: u64, width: usize, to: &mut Vec<u8>) {
    let start = to.len();
    to.resize(start + width, b'0');
    for digit in to[start..].iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
}
