//! Settings, declared columns and names of what is read.

use super::*;
use crate::sources::postgres::SPEC;
use tidegate_model::Settings;

fn built(text: &str) -> Result<Box<dyn Source>, Mistake> {
    (SPEC.build)(&Settings::from_toml(text).unwrap())
}

#[test]
fn settings_that_make_no_sense_are_told_with_what_to_write() {
    let url = "url = \"postgres://ann@host/shop\"\n";
    for (rest, said) in [
        ("", "it says not what to read"),
        ("table = \"a\"\nquery = \"SELECT 1\"", "there is a table as well"),
        ("table = \" \"", "it is empty"),
        ("table = \"a\"\nkey = []", "at least one column"),
        ("table = \"a\"\nworkers = 0", "no such number"),
        ("table = \"a\"\nworkers = 65", "no such number"),
        ("table = \"a\"\npage_rows = 0", "no such number"),
        ("table = \"a\"\npoll_interval = \"0s\"", "no time at all"),
        ("table = \"a\"\nwhere = \"\"", "it is empty"),
        ("table = \"a\"\nschema = { id = \"int\" }", "no type \"int\""),
        ("tabel = \"a\"", "tabel"),
    ] {
        let mistake = built(&format!("{url}{rest}")).err().unwrap();
        assert!(mistake.message.contains(said), "{rest}: {mistake:?}");
    }
    let mistake = built("url = \"mysql://host\"\ntable = \"a\"").err().unwrap();
    assert!(mistake.message.contains("postgres://"), "{mistake:?}");
    assert!(built(SPEC.example).is_ok());
}

#[test]
fn columns_are_known_where_they_are_declared_in_their_order() {
    let text = "url = \"postgres://ann@host/shop\"\ntable = \"t\"\n";
    assert_eq!(built(text).unwrap().schema(), None);
    let declared = format!("{text}schema = {{ z = \"int64\", a = \"decimal(12, 2)\" }}");
    let schema = built(&declared).unwrap().schema().unwrap();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["z", "a"]);
}

#[test]
fn what_is_read_has_a_name_of_its_own() {
    let table = Reading { what: What::Table("t".into()), filter: None, key: None };
    let names = [
        table.clone(),
        Reading { what: What::Table("u".into()), ..table.clone() },
        Reading { what: What::Query("SELECT * FROM t".into()), ..table.clone() },
        Reading { filter: Some("id > 1".into()), ..table.clone() },
        Reading { key: Some(vec!["id".into()]), ..table },
    ]
    .map(|reading| name_of(&reading));
    for (index, name) in names.iter().enumerate() {
        assert!(!names[..index].contains(name), "{names:?}");
    }
    assert_eq!(names[0], "t#6196bd8f0e269892", "it stays the same from build to build");
}

#[tokio::test]
async fn a_database_that_is_not_there_yet_is_no_matter_where_columns_are_declared() {
    let text = "url = \"postgres://ann@127.0.0.1:9/shop\"\ntable = \"t\"\n";
    let error = built(text).unwrap().prepare().await.unwrap_err();
    assert!(error.to_string().contains("can't connect"), "{error}");
    built(&format!("{text}schema = {{ id = \"int64\" }}")).unwrap().prepare().await.unwrap();
}
