//! What breaks the protocol, and what the peer is told.

use futures::StreamExt;
use tidegate_net::websocket::{CloseCode, MessageStream, Options, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::support::{frame, raw, read_frame, soon};

fn small() -> Options {
    Options { message_bytes_max: 1_000, frame_bytes_max: 600, ..Options::default() }
}

/// What a client is told for such bytes.
async fn told(bytes: &[u8]) -> u16 {
    let (mut near, mut far) = raw(small(), 1 << 16);
    far.write_all(bytes).await.unwrap();
    let error = soon(near.next()).await.unwrap().unwrap_err();
    let (kind, payload) = soon(read_frame(&mut far)).await;
    assert_eq!(kind, 0x88, "{error}");
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    assert_eq!(Some(code), error.close_code().map(u16::from), "{error}");
    assert_eq!(std::str::from_utf8(&payload[2..]).unwrap(), error.to_string());
    // What it still says is thrown away, and its end is the end.
    let ending = tokio::spawn(async move { near.next().await.is_none() });
    far.write_all(&frame(0x81, &[b'x'; 500])).await.unwrap();
    far.write_all(&frame(0x88, &payload[..2])).await.unwrap();
    assert_eq!(soon(far.read(&mut [0; 10])).await.unwrap(), 0);
    drop(far);
    assert!(soon(ending).await.unwrap());
    code
}

#[tokio::test]
async fn what_is_no_frame_or_out_of_place_is_told_1002() {
    let unmasked = [0x81, 0x02, b'h', b'i'];
    let mut too_long_ping = vec![0x89, 0x80 | 126];
    too_long_ping.extend(126_u16.to_be_bytes());
    too_long_ping.extend([0; 130]);
    for bytes in [
        &unmasked[..],
        &frame(0xc1, b"compressed"),
        &frame(0x83, b"of no kind"),
        &frame(0x8b, b"of no kind"),
        &frame(0x80, b"rest of nothing"),
        &[frame(0x01, b"begun"), frame(0x81, b"another")].concat(),
        &frame(0x09, b"a ping in parts"),
        &too_long_ping,
        &frame(0x88, &[3]),
        &frame(0x88, &1005_u16.to_be_bytes()),
        &frame(0x88, &999_u16.to_be_bytes()),
    ] {
        assert_eq!(told(bytes).await, 1002, "{:02x?}", &bytes[..bytes.len().min(20)]);
    }
}

#[tokio::test]
async fn text_that_is_none_is_told_1007() {
    let (head, tail) = "€".as_bytes().split_at(1);
    for bytes in [
        frame(0x81, b"\xff"),
        frame(0x81, head),
        [frame(0x01, head), frame(0x80, head)].concat(),
        [frame(0x01, tail), frame(0x80, tail)].concat(),
        frame(0x88, b"\x03\xe8\xff"),
    ] {
        assert_eq!(told(&bytes).await, 1007, "{bytes:02x?}");
    }
}

#[tokio::test]
async fn what_is_too_big_is_told_1009_before_it_is_read() {
    let part = frame(0x01, &[b'x'; 600]);
    let rest = frame(0x80, &[b'x'; 401]);
    for bytes in [
        &frame(0x81, &[b'x'; 601])[..14],
        &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[part, rest].concat(),
    ] {
        assert_eq!(told(bytes).await, 1009, "{:02x?}", &bytes[..bytes.len().min(20)]);
    }
}

#[tokio::test]
async fn what_came_before_an_error_is_given_before_it() {
    let (mut near, mut far) = raw(small(), 1 << 16);
    let bytes = [frame(0x81, b"one"), frame(0x81, b"two"), frame(0x83, b"")].concat();
    far.write_all(&bytes).await.unwrap();
    for text in ["one", "two"] {
        assert_eq!(soon(near.next()).await.unwrap().unwrap().as_text(), Some(text));
    }
    let error = soon(near.next()).await.unwrap().unwrap_err();
    assert_eq!(error.close_code(), Some(CloseCode::Protocol));
}

#[tokio::test]
async fn a_server_that_masks_is_told_1002() {
    let (near, mut far) = duplex(1 << 16);
    let mut near = MessageStream::new(near, Role::Client, small(), &[]);
    far.write_all(&frame(0x81, b"masked")).await.unwrap();
    let error = soon(near.next()).await.unwrap().unwrap_err();
    assert_eq!(error.close_code(), Some(CloseCode::Protocol));
}

#[tokio::test]
async fn an_end_without_a_close_is_an_error() {
    for begun in [vec![], vec![0x81], frame(0x81, b"half a")[..8].to_vec()] {
        let (mut near, mut far) = raw(small(), 1 << 16);
        far.write_all(&begun).await.unwrap();
        drop(far);
        let error = soon(near.next()).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the connection ended without a close");
        assert!(soon(near.next()).await.is_none());
    }
}
