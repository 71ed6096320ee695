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

#[tokio::test]
async fn bombs_take_no_more_memory_than_a_body_may() {
    const MAX: usize = 1 << 20;
    let more = "body_bytes_max = \"1MiB\"";
    let memory = Room::bytes_min(MAX);
    let mut working = with_memory(more, memory).await;
    let (nothing, lines) = (vec![0; 100 << 20], vec![b'\n'; 100 << 20]);
    for bytes in [&nothing, &lines] {
        let (gzip, zstd) = (gzip(bytes), zstd(bytes));
        assert!(gzip.len() < 200 << 10 && zstd.len() < 20 << 10, "these are no bombs");
        // One in another, and one behind another.
        let twice = self::gzip(&gzip);
        for (headers, body, status) in [
            ("content-encoding: gzip\r\n", &gzip, 413),
            ("content-encoding: zstd\r\n", &zstd, 413),
            ("content-encoding: gzip, gzip\r\n", &twice, 415),
            ("content-encoding: gzip\r\n", &[self::gzip(b"a"), gzip.clone()].concat(), 413),
        ] {
            let (found, text) = answered(working.address, &request(headers, body)).await;
            assert_eq!(found, status, "{text}");
        }
    }
    assert!(working.budget.usage().peak <= memory, "{:?}", working.budget.usage());
    assert_eq!(working.budget.usage().used, 0, "nothing is kept of them");
    let (address, good) = (working.address, request(TEXT, b"good"));
    let deliver = async { working.next().await.told.unwrap().settle(Verdict::Delivered) };
    let (_, (status, _)) = tokio::join!(deliver, answered(address, &good));
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_unpacking_takes_is_reserved_and_no_more() {
    let more = "body_bytes_max = \"1MiB\"";
    let mut working = with_memory(more, 2 * Room::bytes_min(1 << 20)).await;
    // Whoever packs all at once says how long it is.
    let (address, packed) = (working.address, ::zstd::bulk::compress(b"a\nb", 3).unwrap());
    let packed = [&*packed, b"\x50\x2a\x4d\x18\x03\0\0\0abc", &packed].concat();
    let begun = request("content-encoding: zstd\r\n", &packed);
    let (first, last) = begun.split_at(begun.len() - 1);
    // As many as have come but for a byte find room beside one another.
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(first).await.unwrap();
        streams.push(stream);
    }
    for mut stream in streams {
        stream.write_all(last).await.unwrap();
        let batch = working.next().await;
        assert_eq!(messages(&batch), ["a", "ba", "b"]);
        batch.told.unwrap().settle(Verdict::Delivered);
        assert_eq!(answer(&mut stream).await.0, 200);
    }
    let mut long = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    long.window_log(24).unwrap();
    long.write_all(&vec![0; 20 << 20]).unwrap();
    let long = request("content-encoding: zstd\r\n", &long.finish().unwrap());
    let (status, text) = answered(address, &long).await;
    assert!(status == 415 && text.contains("too much memory"), "{text}");
    // One that says how long it is is not even begun.
    let mut large = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    large.set_pledged_src_size(Some((1 << 20) + 1)).unwrap();
    large.include_contentsize(true).unwrap();
    large.write_all(&vec![0; (1 << 20) + 1]).unwrap();
    let large = large.finish().unwrap();
    let head = request("content-encoding: zstd\r\n", &large);
    let (head, _) = head.split_at(head.len() - large.len() + 18);
    assert_eq!(answered(address, head).await.0, 413);
    assert_eq!(working.budget.usage().used, 0);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced_and_break_nothing() {
    let (address, task, stop) = working("").await.deliver();
    for (headers, body, status, said) in [
        (TEXT, &b"a\xffb\n\xc3\n"[..], 200, "{\"accepted\":2}"),
        (TEXT, b"c\0d", 200, "{\"accepted\":1}"),
        (NDJSON, b"{\"msg\":\"e\"}\n{\"msg\":\"\xff\"}\n", 200, "{\"accepted\":2}"),
        (JSON, b"{\"msg\":\"\xc3\"}", 200, "{\"accepted\":1}"),
        // Where the elements of an array end is known of UTF-8 alone, and nothing but strings may
        // have others.
        (JSON, b"[{\"msg\":\"e\"}, {\"msg\":\"\xc3\"}]", 400, "element 1 of the array, byte "),
        (NDJSON, b"{\"msg\":\"e\"}\n{\xff}\n", 400, "line 2: "),
        (JSON, b"[{\"msg\":\"e\"},\xff]", 400, "element 1 of the array"),
        (JSON, b"\xff", 400, "no JSON object"),
    ] {
        let (found, text) = answered(address, &request(headers, body)).await;
        assert!(found == status && text.contains(said), "{found}: {text}");
    }
    stop.send(()).unwrap();
    let found = timeout(DEADLINE, task).await.unwrap().unwrap();
    assert_eq!(found, ["a\u{fffd}b", "\u{fffd}", "c\0d", "e", "\u{fffd}", "\u{fffd}"]);
}

#[tokio::test]
async fn who_asks_first_is_told_before_it_sends() {
    let (address, _task, _stop) = working("body_bytes_max = 100").await.deliver();
    let head = |length: usize| {
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{TEXT}expect: 100-continue\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(3).as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    timeout(DEADLINE, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    stream.write_all(head(101).as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 413, "it does not ask for what it will not take");
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() {
    let (address, task, stop) = working("").await.deliver();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let requests: Vec<_> = (1..=60)
        .map(|rows| match rows % 7 {
            0 => request("content-encoding: br\r\n", b"x"),
            _ => request(TEXT, "x\n".repeat(rows).as_bytes()),
        })
        .collect();
    stream.write_all(&requests.concat()).await.unwrap();
    for rows in 1..=60 {
        let (status, text) = answer(&mut stream).await;
        match rows % 7 {
            // What was sent behind a body that nobody wants is still taken, as it is short.
            0 => assert_eq!(status, 415, "{rows}: {text}"),
            _ => assert!(text.contains(&format!("{{\"accepted\":{rows}}}")), "{rows}: {text}"),
        }
    }
    stop.send(()).unwrap();
    drop(stream);
    let expected: usize = (1..=60).filter(|rows| rows % 7 != 0).sum();
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap().len(), expected);
}

/// Sends a byte on each connection that is still open, again and again, until a good client is
/// answered.
async fn outlived(address: SocketAddr, slow: &mut [TcpStream]) -> (u16, usize) {
    let good = async {
        let mut refused = 0;
        loop {
            for stream in &mut *slow {
                let _ = stream.try_write(b"a");
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(&request(TEXT, &[b'x'; 900_000])).await;
            let mut text = [0; 12];
            match stream.read_exact(&mut text).await {
                Ok(_) if &text == b"HTTP/1.1 200" => break (200, refused),
                Ok(_) => assert_eq!(&text, b"HTTP/1.1 429"),
                // There is no place for it.
                Err(_) => {}
            }
            refused += 1;
        }
    };
    timeout(DEADLINE, good).await.unwrap()
}

#[tokio::test]
async fn headers_that_come_a_byte_at_a_time_keep_nobody_out_for_long() {
    let more = "connections_max = 20\nidle_timeout = \"300ms\"";
    let (address, _task, _stop) = working(more).await.deliver();
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    let (status, refused) = outlived(address, &mut slow).await;
    assert!(status == 200 && refused > 0, "{refused}");
}

#[tokio::test]
async fn bodies_that_come_a_byte_at_a_time_keep_nobody_out_for_long() {
    let more = "body_bytes_max = \"1MiB\"\nbody_timeout = \"300ms\"";
    let working = with_memory(more, Room::bytes_min(1 << 20)).await;
    let usage = working.budget.clone();
    let (address, _task, _stop) = working.deliver();
    let mut slow = Vec::new();
    let begun = format!("POST / HTTP/1.1\r\nhost: a\r\n{TEXT}content-length: 1048576\r\n\r\na");
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let (status, refused) = outlived(address, &mut slow).await;
    assert!(status == 200 && refused > 0, "{refused}");
    assert!(usage.usage().peak <= Room::bytes_min(1 << 20), "{:?}", usage.usage());
}

#[tokio::test]
async fn rows_of_a_client_that_left_go_on() {
    let mut working = working("").await;
    let mut stream = TcpStream::connect(working.address).await.unwrap();
    stream.write_all(&request(TEXT, "x\n".repeat(250).as_bytes())).await.unwrap();
    let first = working.next().await;
    drop(stream);
    let more = [working.next().await, working.next().await];
    let rows: usize = more.iter().map(|batch| batch.rows.num_rows()).sum();
    assert_eq!((first.rows.num_rows(), rows), (100, 150));
    for batch in more.into_iter().chain([first]) {
        batch.told.unwrap().settle(Verdict::Delivered);
    }
    assert_eq!(working.budget.usage().used, 0);
}

/// What a client sends, what of it is good, and the status that it should get.
fn anything(name: &str, random: &mut fastrand::Rng) -> (Vec<u8>, Vec<String>, u16) {
    let count = random.usize(0..300);
    let rows: Vec<String> = (0..count).map(|row| format!("{name}.{row}")).collect();
    let object = |row: &String| format!("{{\"msg\":\"{row}\"}}");
    let (kind, mut text, bad) = match random.u8(0..3) {
        0 => (TEXT, rows.iter().map(|row| format!("{row}\r\n")).collect::<String>(), None),
        1 => {
            let lines = rows.iter().map(|row| object(row) + "\n").collect();
            (NDJSON, lines, Some("{\"msg\":"))
        }
        _ => {
            let elements: Vec<String> = rows.iter().map(object).collect();
            (JSON, format!("[{}]", elements.join(", ")), Some("x"))
        }
    };
    let mut status = 200;
    if let Some(bad) = bad.filter(|_| random.u8(0..4) == 0) {
        (text, status) = (text + bad, 400);
    }
    let (packing, mut body) = match random.u8(0..3) {
        0 => ("", text.into_bytes()),
        1 => ("content-encoding: gzip\r\n", gzip(text.as_bytes())),
        _ => ("content-encoding: zstd\r\n", zstd(text.as_bytes())),
    };
    if !packing.is_empty() && random.u8(0..8) == 0 {
        body.truncate(random.usize(0..body.len()));
        status = 400;
    }
    let headers = format!("{kind}{packing}");
    let request = match random.bool() {
        true => request(&headers, &body),
        false => chunked(&headers, &body, random),
    };
    (request, if status == 200 { rows } else { Vec::new() }, status)
}

#[tokio::test]
async fn whatever_clients_send_all_of_a_good_body_is_taken_and_nothing_of_a_bad_one() {
    let seed = fastrand::u64(..);
    let (address, task, stop) = working("").await.deliver();
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(client));
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Pieces would wait for one another.
            stream.set_nodelay(true).unwrap();
            let mut taken = Vec::new();
            for number in 0..60 {
                let (request, rows, status) = anything(&format!("{client}.{number}"), &mut random);
                for piece in request.chunks(random.usize(1..=request.len())) {
                    stream.write_all(piece).await.unwrap();
                }
                let (found, text) = answer(&mut stream).await;
                assert_eq!(found, status, "seed {seed}, {client}.{number}: {text}");
                taken.extend(rows);
            }
            taken
        });
    }
    let mut expected = timeout(DEADLINE, clients.join_all()).await.unwrap().concat();
    stop.send(()).unwrap();
    let mut found = timeout(DEADLINE, task).await.unwrap().unwrap();
    expected.sort_unstable();
    found.sort_unstable();
    assert!(found == expected && !found.is_empty(), "seed {seed}");
}

#[test]
#[ignore = "needs curl; run by cargo xtask test"]
fn curl_is_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let working = runtime.block_on(working("body_bytes_max = \"2MiB\""));
    let (address, task, stop) = runtime.block_on(async { working.deliver() });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        format!("@{name}")
    };
    let lines = "a line of some length\n".repeat(70_000);
    let (plain, packed) = (file("plain", lines.as_bytes()), file("gz", &gzip(lines.as_bytes())));
    let (zstd, large) = (file("zst", &zstd(lines.as_bytes())), file("large", &[b'x'; 9 << 20]));
    for (arguments, status) in [
        (&["--data-binary", &*plain][..], "200"),
        (&["--data-binary", &*packed, "-H", "content-encoding: gzip"], "200"),
        (&["--data-binary", &*zstd, "-H", "content-encoding: zstd"], "200"),
        (&["--json", "[{\"msg\":\"a\"}]"], "200"),
        (&["-H", "transfer-encoding: chunked", "--data-binary", &*plain], "200"),
        (&["--data-binary", &*large], "413"),
        (&["-H", "expect:", "--data-binary", &*large], "413"),
        (&["--json", "{"], "400"),
        (&[], "405"),
    ] {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-m", "30", "-o", "answer", "-w", "%{http_code}"]).args(arguments);
        let url = format!("http://{address}/");
        let output = curl.arg(url).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, status, "{arguments:?}: {output:?}");
    }
    stop.send(()).unwrap();
    let found = runtime.block_on(async { timeout(DEADLINE, task).await.unwrap().unwrap() });
    assert_eq!(found.len(), 4 * 70_000 + 1);
}
