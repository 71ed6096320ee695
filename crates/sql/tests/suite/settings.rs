//! Settings, and where mistakes are pointed at.

use super::*;

fn mistake(toml: &str) -> Mistake {
    let built = SqlTransform::from_settings(&Settings::from_toml(toml).unwrap());
    built.and_then(|transform| transform.columns(&table())).expect_err(toml)
}

#[test]
fn the_example_builds_and_plans() {
    let settings = Settings::from_toml(tidegate_sql::SPEC.example).unwrap();
    let transform = (tidegate_sql::SPEC.build)(&settings).unwrap();
    let columns = transform.columns(&log_schema()).unwrap();
    assert_eq!(columns, [0, 1, 2, 4], "timestamp, severity, level, message");
    let input = Arc::new(log_schema().project(&columns).unwrap());
    let stage = transform.plan(&input).unwrap();
    let names: Vec<_> = stage.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["timestamp", "level", "message"]);
    assert_eq!(transform.workers(), None);
}

#[test]
fn workers_are_from_1_to_64() {
    for (workers, given) in [("1", Some(1)), ("64", Some(64))] {
        let toml = format!("query = 'SELECT * FROM input'\nworkers = {workers}");
        let settings = Settings::from_toml(&toml).unwrap();
        let workers = SqlTransform::from_settings(&settings).unwrap().workers();
        assert_eq!(workers.map(std::num::NonZeroUsize::get), given);
    }
    for workers in ["0", "65", "-1"] {
        let toml = format!("query = 'SELECT * FROM input'\nworkers = {workers}");
        let mistake = mistake(&toml);
        assert_eq!(&toml[mistake.span.unwrap()], workers);
        assert_eq!(mistake.message, format!("workers: {workers} is not from 1 to 64"));
    }
}

#[test]
fn keys_are_the_ones_there_are() {
    let unknown = mistake("query = 'SELECT * FROM input'\nquerry = 1");
    assert!(unknown.message.contains("`querry`"), "{unknown:?}");
    assert!(mistake("workers = 1").message.contains("`query`"));
}

#[test]
fn mistakes_are_pointed_at_in_the_configuration() {
    for (toml, pointed) in [
        ("query = \"SELECT id, mesage FROM input\"", "mesage"),
        ("query = 'SELECT id, mesage FROM input'", "mesage"),
        ("workers = 2\nquery = \"\"\"\nSELECT id,\n  'ä', mesage\nFROM input\"\"\"", "mesage"),
        ("query = '''SELECT id, \"mesage\" FROM input'''", "\"mesage\""),
        ("query = 'SELECT id FROM input WHERE upper(lower(wrod)) = 1'", "wrod"),
        ("query = 'SELECT id FROM input ORDER BY id'", "ORDER"),
        ("query = 'SELECT id FROM input WHERE ?'", "?"),
        // Escaped: which byte is which is not known.
        ("query = \"SELECT \\\"mesage\\\" FROM input\"", "\"SELECT \\\"mesage\\\" FROM input\""),
    ] {
        let mistake = mistake(toml);
        assert_eq!(&toml[mistake.span.clone().unwrap()], pointed, "{mistake:?}");
    }
}

#[test]
fn line_ends_of_windows_do_not_shift_places() {
    let toml = "query = '''\r\nSELECT id,\r\n  mesage\r\nFROM input'''\r\n";
    let mistake = mistake(toml);
    let pointed = &toml[mistake.span.unwrap()];
    assert!(pointed == "mesage" || pointed.starts_with("'''"), "{pointed:?}");
}
