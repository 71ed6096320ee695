//! Rows that are skipped unseen are rows that nobody makes anything of: pipelines give the same with
//! a reader of every row beside their queries, which turns skipping off, as without.

use std::collections::BTreeMap;
use std::fmt::Write;

use fastrand::Rng;

use crate::support::Folder;

/// What texts are made of and searched for: hits are frequent, and some lie across others.
const PIECES: [&str; 12] =
    ["ERROR", "err", "ab", "bab", "\u{e4}\u{20ac}", "\u{fffd}", "%", "_", " ", "7", "INFO", "\\"];

/// Longer than a chunk, so that borders fall anywhere; line ends of both kinds, empty lines, NUL,
/// what is no UTF-8, JSON with escapes, huge lines, and no line end at the end.
fn text(random: &mut Rng) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < 3 << 19 {
        let json = random.u8(..8) == 0;
        text.extend_from_slice(if json {
            b"{\"level\":\"error\",\"msg\":\"\\u0045RROR "
        } else {
            b""
        });
        for _ in 0..random.usize(..9) {
            text.extend_from_slice(
                PIECES[random.usize(..PIECES.len())].replace('\\', "x").as_bytes(),
            );
        }
        match random.u16(..2_000) {
            0 => text.extend(vec![b'y'; 300_000]),
            1..100 => text.extend_from_slice(b"\0\xff"),
            _ => {}
        }
        text.extend_from_slice(if json { b"\"}" } else { b"" });
        text.extend_from_slice(if random.bool() { b"\r\n" } else { b"\n" });
    }
    text.extend_from_slice(b"the end ERROR");
    text
}

fn condition(random: &mut Rng, depth: u8) -> String {
    let piece = PIECES[random.usize(..PIECES.len())];
    let both = |random: &mut Rng| (condition(random, depth - 1), condition(random, depth - 1));
    match random.u8(..if depth == 0 { 7 } else { 10 }) {
        0..3 => format!("message LIKE '%{piece}%'"),
        3 => format!("message = '{}{piece}'", PIECES[random.usize(..3)]),
        4 => format!("message ~ '{}[a-z7 ]+E'", ["ERR", "b+a", "7"][random.usize(..3)]),
        5 => "severity >= severity('error')".to_owned(),
        6 => format!("octet_length(upper(message)) > {}", random.u8(..40)),
        7 => format!("NOT ({})", condition(random, depth - 1)),
        8 => both(random).0 + " AND " + &both(random).1,
        _ => {
            let (left, right) = both(random);
            format!("(({left}) OR ({right}))")
        }
    }
}

#[test]
fn what_comes_out_is_the_same_whether_rows_are_skipped_or_not() {
    let mut random = Rng::with_seed(20_261_125);
    for round in 0..24 {
        let folder = Folder::new();
        folder.write("in.log", text(&mut random));
        let codec = ["text", "auto"][round % 2];
        let queries: Vec<String> = (0..1 + round % 3).map(|_| condition(&mut random, 2)).collect();
        let mut outputs = Vec::new();
        for all in [false, true] {
            let mut pipeline = format!(
                "data_dir = \"state-{all}\"\n[sources.log]\ntype = \"file\"\n\
                 include = [\"in.log\"]\ncodec = \"{codec}\"\n"
            );
            for (index, query) in queries.iter().enumerate() {
                write!(
                    pipeline,
                    "[transforms.q{index}]\ntype = \"sql\"\ninputs = [\"log\"]\n\
                     query = '''SELECT message, severity FROM input WHERE {query}'''\n\
                     [sinks.s{index}]\ntype = \"file\"\ninputs = [\"q{index}\"]\n\
                     codec = \"ndjson\"\npath = \"{all}-{index}.txt\"\n"
                )
                .unwrap();
            }
            if all {
                pipeline += "[sinks.all]\ntype = \"blackhole\"\ninputs = [\"log\"]\n";
            }
            folder.write("pipeline.toml", pipeline);
            let ended = folder.run(&["run", "--once", "pipeline.toml"]);
            assert!(ended.status.success(), "{queries:?}: {ended:?}");
            let read = |index| (index, folder.read(&format!("{all}-{index}.txt")));
            outputs.push((0..queries.len()).map(read).collect::<BTreeMap<_, _>>());
        }
        assert!(outputs[0] == outputs[1], "{codec}: {queries:?}");
    }
}
