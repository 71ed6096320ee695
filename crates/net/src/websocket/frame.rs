//! Frames: their heads, their masks.

use std::hash::{BuildHasher, RandomState};
use std::io::Cursor;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{Failure, Options, Role};

/// The most that a control frame has to say.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    Rest,
    Close,
    Ping,
    Pong,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Whether it ends its message.
    pub(super) last: bool,
    pub(super) mask: Option<[u8; 4]>,
    /// Its own bytes.
    pub(super) bytes: usize,
    /// Those of what follows.
    pub(super) payload: usize,
}

impl Head {
    pub(super) fn frame_bytes(&self) -> usize {
        self.bytes + self.payload
    }

    pub(super) fn is_control(&self) -> bool {
        matches!(self.kind, Kind::Close | Kind::Ping | Kind::Pong)
    }

    /// The head that these bytes begin with, if all of it is there, and whether it may be: `begun` is
    /// how much there is of a message whose rest is to come.
    pub(super) fn parse(
        bytes: &[u8],
        role: Role,
        begun: Option<usize>,
        options: &Options,
    ) -> Result<Option<Self>, Failure> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| {
            let code = bytes.first().map_or(0, |first| first & 0x0f);
            Failure::Protocol(format!("a frame of the unknown kind {code}"))
        })?;
        let Some((header, payload)) = parsed else { return Ok(None) };
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        if payload > options.frame_bytes_max.max(CONTROL_BYTES_MAX) {
            return Err(Failure::FrameTooBig { bytes: payload, max: options.frame_bytes_max });
        }
        let wrong = |what: &str| Err(Failure::Protocol(what.to_owned()));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return wrong("a frame with bits of an extension that was not agreed on");
        }
        match (role, header.mask) {
            (Role::Server, None) => return wrong("a client's frame without a mask"),
            (Role::Client, Some(_)) => return wrong("a server's frame with a mask"),
            _ => {}
        }
        let kind = match header.opcode {
            OpCode::Data(Data::Text) => Kind::Text,
            OpCode::Data(Data::Binary) => Kind::Binary,
            OpCode::Data(Data::Continue) => Kind::Rest,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return wrong("a frame of an unknown kind");
            }
        };
        let head_bytes = usize::try_from(cursor.position()).unwrap_or_default();
        let (last, mask) = (header.is_final, header.mask);
        let head = Self { kind, last, mask, bytes: head_bytes, payload };
        head.check(begun, options)?;
        Ok(Some(head))
    }

    fn check(&self, begun: Option<usize>, options: &Options) -> Result<(), Failure> {
        let wrong = |what: &str| Err(Failure::Protocol(what.to_owned()));
        if self.is_control() {
            return match (self.last, self.payload <= CONTROL_BYTES_MAX) {
                (true, true) => Ok(()),
                (false, _) => wrong("a control frame in parts"),
                (_, false) => wrong("a control frame of more than 125 bytes"),
            };
        }
        match (self.kind, begun) {
            (Kind::Rest, None) => return wrong("the rest of no message"),
            (Kind::Text | Kind::Binary, Some(_)) => {
                return wrong("a message within another");
            }
            _ => {}
        }
        if self.payload > options.frame_bytes_max {
            let (bytes, max) = (self.payload, options.frame_bytes_max);
            return Err(Failure::FrameTooBig { bytes, max });
        }
        let (bytes, max) = (begun.unwrap_or(0) + self.payload, options.message_bytes_max);
        match bytes > max {
            true => Err(Failure::TooBig { bytes, max }),
            false => Ok(()),
        }
    }
}

/// Takes a mask off, or puts it on; `at` is how much of the payload lies before these bytes.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4], at: usize) {
    let mut mask = mask;
    mask.rotate_left(at % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// Masks that nobody can foresee, as a client's frames need ([RFC 6455, 10.3]): a keyed hash, with a
/// key from the system, of their number.
///
/// [RFC 6455, 10.3]: https://www.rfc-editor.org/rfc/rfc6455#section-10.3
#[derive(Debug, Default)]
pub(super) struct Masks {
    key: RandomState,
    count: u64,
}

impl Masks {
    fn next(&mut self) -> [u8; 4] {
        self.count += 1;
        let [a, b, c, d, ..] = self.key.hash_one(self.count).to_ne_bytes();
        [a, b, c, d]
    }
}

/// Appends a frame's head; the payload must follow.
pub(super) fn append_head(out: &mut Vec<u8>, kind: Kind, payload: usize, mask: Option<[u8; 4]>) {
    let code = match kind {
        Kind::Rest => 0,
        Kind::Text => 1,
        Kind::Binary => 2,
        Kind::Close => 8,
        Kind::Ping => 9,
        Kind::Pong => 10,
    };
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | code);
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short @ ..=125), _) => out.push(masked | short),
        (_, Ok(medium)) => {
            out.push(masked | 126);
            out.extend(medium.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend((payload as u64).to_be_bytes());
        }
    }
    out.extend(mask.iter().flatten());
}

/// Appends a whole frame, masked if there are masks.
pub(super) fn append(out: &mut Vec<u8>, kind: Kind, payload: &[u8], masks: Option<&mut Masks>) {
    let mask = masks.map(Masks::next);
    out.reserve(payload.len() + 14);
    append_head(out, kind, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(mask), Some(body)) = (mask, out.get_mut(start..)) {
        apply_mask(body, mask, 0);
    }
}

/// A whole frame as a server sends it: the same for every client.
pub(super) fn framed(kind: Kind, payload: &[u8]) -> Bytes {
    let mut frame = Vec::new();
    append(&mut frame, kind, payload, None);
    frame.into()
}

/// What a close frame says.
pub(super) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut payload = u16::from(code).to_be_bytes().to_vec();
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    payload
}

/// What a close frame said, if anything.
pub(super) fn close_reason(payload: &[u8]) -> Result<Option<(CloseCode, String)>, Failure> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Failure::Protocol("half a code to close with".to_owned())),
        };
    };
    let reason = std::str::from_utf8(reason).map_err(|_| Failure::NotText)?;
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err(Failure::Protocol(format!("the code {code} to close with, which is none")));
    }
    Ok(Some((code, reason.to_owned())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_put_on_and_taken_off_at_any_place(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            mask: [u8; 4],
            cut in 0_usize..100,
        ) {
            let mut masked = bytes.clone();
            apply_mask(&mut masked, mask, 0);
            for (at, (byte, plain)) in masked.iter().zip(&bytes).enumerate() {
                prop_assert_eq!(*byte, plain ^ mask[at % 4]);
            }
            let cut = cut.min(bytes.len());
            let (head, tail) = masked.split_at_mut(cut);
            apply_mask(head, mask, 0);
            apply_mask(tail, mask, cut);
            prop_assert_eq!(masked, bytes);
        }

        #[test]
        fn frames_are_written_as_tungstenite_writes_them(
            length in prop_oneof![0_usize..300, Just(65_535), Just(65_536)],
            text: bool,
        ) {
            let payload = vec![b'a'; length];
            let (kind, data) = if text {
                (Kind::Text, Data::Text)
            } else {
                (Kind::Binary, Data::Binary)
            };
            let mut theirs = Vec::new();
            Frame::message(payload.clone(), OpCode::Data(data), true).format(&mut theirs).unwrap();
            prop_assert_eq!(&framed(kind, &payload)[..], &theirs[..]);
        }
    }

    #[test]
    fn masks_differ() {
        let mut masks = Masks::default();
        let (one, other) = (masks.next(), masks.next());
        assert_ne!(one, other);
        assert_ne!(one, Masks::default().next());
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_characters() {
        let payload = close_payload(CloseCode::Away, &"é".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        let (code, reason) = close_reason(&payload).unwrap().unwrap();
        assert_eq!((code, reason), (CloseCode::Away, "é".repeat(61)));
    }
}
