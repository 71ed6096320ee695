//! Clients that are slow, wrong, greedy or many, and bodies that are just so long.

use super::*;

/// Sends a body in pieces that end anywhere.
fn chunked(headers: &str, body: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes =
        format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}transfer-encoding: chunked\r\n\r\n")
            .into_bytes();
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.usize(1..=rest.len()));
        bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
        rest = behind;
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn bodies_may_have_any_size_up_to_the_limit_and_none_beyond() {
    let (address, _task, _stop) = working("body_bytes_max = \"64KiB\"").await.deliver();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let steps = [4usize, 16, 20, 24, 28, 32, 40, 48, 56, 64].map(|kib| kib << 10);
    for size in steps.into_iter().flat_map(|step| [step - 1, step, step + 1]) {
        let mut body: Vec<u8> = (0..size).map(|_| random.alphanumeric() as u8).collect();
        body.iter_mut().skip(99).step_by(100).for_each(|byte| *byte = b'\n');
        let rows = size.div_ceil(100);
        let (gzip, zstd) = (gzip(&body), zstd(&body));
        for (headers, body) in [
            (TEXT, &body),
            ("content-encoding: gzip\r\n", &gzip),
            ("content-encoding: zstd\r\n", &zstd),
        ] {
            let whole = answered(address, &request(headers, body)).await;
            let pieces = answered(address, &chunked(headers, body, &mut random)).await;
            for (status, text) in [whole, pieces] {
                let what = format!("seed {seed}, {size} bytes, {headers}: {text}");
                if size > 64 << 10 {
                    assert_eq!(status, 413, "{what}");
                } else {
                    assert!(text.ends_with(&format!("{{\"accepted\":{rows}}}\n")), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_reaches_who_is_still_sending() {
    let (address, _task, _stop) = working("body_bytes_max = \"64KiB\"").await.deliver();
    let body = vec![b'x'; 8 << 20];
    for round in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&request(TEXT, &body)).await.unwrap_or_else(|e| panic!("{round} {e}"));
        assert_eq!(answer(&mut stream).await.0, 413);
    }
}
