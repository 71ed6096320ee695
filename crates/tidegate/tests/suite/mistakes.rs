//! What is said of wrong configurations with the components there are, word for word.

use std::path::Path;

use tidegate::engine::{Overrides, config};

#[test]
fn each_mistake_is_reported_word_for_word() {
    let folder = Path::new("tests/mistakes");
    let registry = tidegate::registry();
    let names = tidegate_testkit::cases::check(folder, |text| {
        let loaded =
            config::load("pipeline.toml", text, &registry, &|_| None, &Overrides::default());
        loaded.err().map_or("nothing is wrong".to_owned(), |said| said.to_string())
    });
    assert!(names.len() >= 25, "only {} kinds of mistake", names.len());
}
