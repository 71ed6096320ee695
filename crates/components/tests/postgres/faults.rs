//! Connections that break, servers that go, processes that are gone: each row is there once.

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tidegate_model::ErrorKind;
use tidegate_testkit::process::wait_for;
use tidegate_testkit::proxy::FaultProxy;

use crate::support::{DEADLINE, Memory, assert_each_once, end, open, opened, rows, server};

/// A text of a thousand letters.
const LONG: &str = match str::from_utf8(&[b'x'; 1_000]) {
    Ok(text) => text,
    Err(_) => "",
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn what_is_committed_is_there_and_what_is_not_comes_again() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    let columns = rows(0..1).schema();
    let (mut sink, delivered) = opened(&server, &columns, &records).await;
    assert_eq!(delivered, []);
    sink.write(&rows(0..5)).await.unwrap();
    assert_eq!(server.psql("SELECT count(*) FROM t"), "0");
    sink.commit(&[end(5)]).await.unwrap();
    sink.write(&rows(5..9)).await.unwrap();
    drop(sink);
    let (mut sink, delivered) = opened(&server, &columns, &records).await;
    assert_eq!(delivered, [end(5)]);
    sink.write(&rows(5..9)).await.unwrap();
    sink.commit(&[end(9)]).await.unwrap();
    sink.close().await;
    assert_each_once(&server, 9);
    let (_, delivered) = opened(&server, &columns, &Arc::new(Memory::default())).await;
    assert_eq!(delivered, [], "another pipeline knows nothing of it");
    assert_eq!(server.psql("SELECT count(*) FROM tidegate_delivered"), "2");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn what_was_written_outlives_its_connection_and_its_server() {
    let (mut server, records) = (server(), Arc::new(Memory::default()));
    let (mut sink, _) = opened(&server, &rows(0..1).schema(), &records).await;
    sink.write(&rows(0..1_000)).await.unwrap();
    server.terminate_backends();
    sink.write(&rows(1_000..2_000)).await.unwrap();
    server.terminate_backends();
    sink.commit(&[end(2_000)]).await.unwrap();
    sink.write(&rows(2_000..3_000)).await.unwrap();
    server.kill();
    assert!(sink.try_write(&rows(3_000..4_000)).await.is_err());
    server.restart();
    sink.write(&rows(3_000..4_000)).await.unwrap();
    server.kill();
    server.restart();
    sink.commit(&[end(4_000)]).await.unwrap();
    assert_each_once(&server, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_commit_that_is_cut_anywhere_is_made_once() {
    let server = server();
    let columns = rows(0..1).schema();
    let way = |proxy: &FaultProxy| server.url_through(proxy.address());
    // From what the server says until the sink is open up to where nothing is cut any more.
    let (mut after, mut cuts, mut made) = (500, 0, 0);
    loop {
        let records = Arc::new(Memory::default());
        let proxy = FaultProxy::to(server.address());
        let (mut sink, _) = open(&way(&proxy), "table = 't'", &columns, &records).await.unwrap();
        proxy.cut_after(Some(after));
        // Only the first connection is cut.
        let was_written = sink.try_write(&rows(0..3)).await.is_ok();
        if !was_written {
            proxy.cut_after(None);
            sink.write(&rows(0..3)).await.unwrap_or_else(|error| panic!("{after}: {error}"));
        }
        let was_cut = sink.try_commit(&[end(3)]).await.is_err();
        proxy.cut_after(None);
        if was_cut {
            cuts += 1;
            made += usize::from(server.psql("SELECT count(*) FROM t") == "3");
            sink.commit(&[end(3)]).await.unwrap_or_else(|error| panic!("{after}: {error}"));
        }
        sink.write(&rows(3..5)).await.unwrap();
        sink.commit(&[end(5)]).await.unwrap();
        drop(sink);
        let (_, delivered) = open(&server.url(), "table = 't'", &columns, &records).await.unwrap();
        assert_eq!(delivered, [end(5)], "cut after {after}");
        assert_each_once(&server, 5);
        server.psql("TRUNCATE t");
        if cuts > 0 && !was_cut {
            break;
        }
        after += if was_written { 1 } else { 20 };
    }
    assert!(0 < made && made < cuts, "{made} of {cuts} commits were made and not heard of");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_process_that_is_gone_without_a_word_holds_nobody_up() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    // Whoever waits for a lock may be told of this first.
    server.psql("ALTER ROLE postgres SET statement_timeout = '500ms'");
    let columns = rows(0..1).schema();
    let proxy = FaultProxy::to(server.address());
    let url = server.url_through(proxy.address());
    let (mut gone, _) = open(&url, "table = 't'", &columns, &records).await.unwrap();
    gone.write(&rows(0..5)).await.unwrap();
    proxy.half_open(true);
    drop(gone);
    assert_eq!(server.clients(), 1, "the server does not know");
    let (mut sink, delivered) = opened(&server, &columns, &records).await;
    assert!(delivered.is_empty() && sink.retries > 0);
    sink.write(&rows(0..5)).await.unwrap();
    sink.commit(&[end(5)]).await.unwrap();
    assert_each_once(&server, 5);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn two_processes_never_write_as_the_same_sink_at_once() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    let columns = rows(0..1).schema();
    let (mut first, _) = opened(&server, &columns, &records).await;
    let (mut second, _) = opened(&server, &columns, &records).await;
    first.write(&rows(0..5)).await.unwrap();
    let error = second.try_write(&rows(0..5)).await.unwrap_err().to_string();
    assert!(error.contains("another process writes as this sink"), "{error}");
    first.commit(&[end(5)]).await.unwrap();
    assert_each_once(&server, 5);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_process_that_lost_its_turn_writes_no_more() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    let columns = rows(0..1).schema();
    let (mut first, _) = opened(&server, &columns, &records).await;
    first.write(&rows(0..5)).await.unwrap();
    first.commit(&[end(5)]).await.unwrap();
    let (mut second, delivered) = opened(&server, &columns, &records).await;
    assert_eq!(delivered, [end(5)]);
    second.write(&rows(5..9)).await.unwrap();
    second.commit(&[end(9)]).await.unwrap();
    let error = first.write(&rows(5..9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("2 commits are written down where 1 were made"), "{error}");
    assert_each_once(&server, 9);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_server_with_much_to_say_is_not_waited_for() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    server.psql(
        "CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE NOTICE '%', repeat('so much ', 200); RETURN NEW; END $$;
         CREATE TRIGGER say BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION say();",
    );
    // More than all buffers on the way take, in both directions.
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..20_000).map(|_| LONG)));
    let rows = RecordBatch::try_from_iter([("id", ids), ("v", texts)]).unwrap();
    let (mut sink, _) = opened(&server, &rows.schema(), &records).await;
    sink.write(&rows).await.unwrap();
    sink.commit(&[end(20_000)]).await.unwrap();
    assert_eq!(server.psql("SELECT count(DISTINCT id) FROM t"), "20000");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn locks_deadlocks_and_timeouts_are_waited_out() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    server.psql(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           CASE nextval('tries')
             WHEN 1 THEN RAISE EXCEPTION 'once' USING ERRCODE = '40001';
             WHEN 2 THEN RAISE EXCEPTION 'once' USING ERRCODE = '40P01';
             WHEN 3 THEN RAISE EXCEPTION 'once' USING ERRCODE = '53100';
             WHEN 4 THEN PERFORM pg_sleep(60);
             ELSE NULL;
           END CASE; RETURN NULL; END $$;
         CREATE TRIGGER fail AFTER INSERT ON t EXECUTE FUNCTION fail();
         ALTER ROLE postgres SET statement_timeout = '300ms';",
    );
    let (mut sink, _) = opened(&server, &rows(0..1).schema(), &records).await;
    sink.write(&rows(0..5)).await.unwrap();
    sink.commit(&[end(5)]).await.unwrap();
    assert_eq!(sink.retries, 4);
    assert_each_once(&server, 5);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn any_faults_at_any_moment_leave_each_row_once() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut server, records) = (server(), Arc::new(Memory::default()));
    let columns = rows(0..1).schema();
    let proxy = FaultProxy::to(server.address());
    let url = server.url_through(proxy.address());
    let (mut written, mut committed) = (0, 0);
    let mut sink = None;
    for step in 0..300 {
        let at = format!("seed {seed}, step {step}");
        if sink.is_none() {
            let opened = open(&url, "table = 't'", &columns, &records).await;
            let (opened, delivered) = opened.unwrap_or_else(|error| panic!("{at}: {error}"));
            // The engine leaves out what is there already.
            written = delivered.first().map_or(0, |delivered| delivered.end as i64);
            assert_eq!(written, committed, "{at}");
            sink = Some(opened);
        }
        let Some(open) = &mut sink else { unreachable!() };
        match random.u8(0..12) {
            0..5 => {
                let next = written + random.i64(1..2_000);
                open.write(&rows(written..next)).await.unwrap_or_else(|e| panic!("{at}: {e}"));
                written = next;
            }
            5..8 => {
                let ends = [end(written as u64)];
                open.commit(&ends).await.unwrap_or_else(|error| panic!("{at}: {error}"));
                committed = written;
            }
            8 => proxy.cut(),
            9 => {
                let after = random.bool().then(|| random.u64(4_000..20_000));
                proxy.cut_after(after);
            }
            10 => {
                server.terminate_backends();
            }
            _ if random.u8(0..4) == 0 => {
                server.kill();
                server.restart();
            }
            _ => sink = None,
        }
    }
    proxy.cut_after(None);
    if let Some(mut open) = sink {
        open.commit(&[end(written as u64)]).await.unwrap();
        committed = written;
    }
    let address: SocketAddr = server.address();
    assert!(committed > 0, "seed {seed}, {address}");
    wait_for("connections to end", DEADLINE, || (server.clients() == 0).then_some(()));
    assert_each_once(&server, committed);
}
