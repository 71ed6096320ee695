//! The functions a query can call: DataFusion's, our own, and those that are refused with a reason.

/// `severity('warn')`.
mod severity;

/// `metadata['key']` and `metadata_set(…)`.
mod metadata;

/// Regular expressions, compiled once.
mod regex;

/// Functions that make much of little, held to a bound.
mod bounded;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use datafusion_expr::ScalarUDF;

pub(crate) use self::bounded::RESULT_BYTES_MAX;
pub(crate) use self::metadata::MapAccess;
pub(crate) use self::regex::{compile, compile_backslashes, pattern, unshared};
use crate::names::alike;
use crate::refusal::Refusal;

/// What is read from the clock: the batch's read time. The planner puts a column in their place.
pub(crate) const CLOCK: [&str; 6] =
    ["now", "current_timestamp", "current_date", "today", "current_time", "localtimestamp"];

const CHANGES: &str = "after a restart rows are read again, and it would come out different";
const UNBOUNDED: &str = "it makes lists of any length, which no budget bounds";
const AGGREGATE: &str = "it needs many rows, and rows are worked on one by one, as they come";
const NOWHERE: &str = "there is nothing it could tell here";

/// Names that people will try, why they are refused, and what to do instead.
const REFUSED: [(&str, &str, &str); 6] = [
    (
        "random rand uuid gen_random_uuid newid",
        CHANGES,
        "take a column's hash, such as md5(message)",
    ),
    ("range generate_series array_repeat array_resize", UNBOUNDED, "leave it out"),
    (
        "count sum avg mean min max median stddev stddev_pop stddev_samp var variance var_pop \
         var_samp array_agg string_agg first_value last_value nth_value approx_distinct \
         approx_median approx_percentile_cont bool_and bool_or bit_and bit_or bit_xor corr \
         row_number rank dense_rank percent_rank cume_dist ntile lag lead grouping",
        AGGREGATE,
        "leave it out, and aggregate where the rows arrive; of several columns, `greatest` and \
         `least` are possible",
    ),
    ("unnest explode", "it makes rows, and a query gives at most one for each", "leave it out"),
    ("map_entries", "it does not know this kind of map", "use map_keys and map_values"),
    (
        "version input_file_name file_row_index current_user current_database",
        NOWHERE,
        "the column `source` says which file, peer or table a row is from",
    ),
];

/// All functions by all their names.
static FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut table = BTreeMap::new();
    let theirs = datafusion_functions::all_default_functions();
    let nested = datafusion_functions_nested::all_default_nested_functions();
    let ours = bounded::functions().into_iter().chain(regex::functions()).chain([
        Arc::new(ScalarUDF::new_from_impl(severity::Severity::new())),
        Arc::new(ScalarUDF::new_from_impl(metadata::MetadataSet::new())),
    ]);
    // Ours come last: they take the place of those of the same name.
    for function in theirs.into_iter().chain(nested).chain(ours) {
        for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
            if refused(name).is_none() {
                table.insert(name.to_owned(), Arc::clone(&function));
            }
        }
    }
    table
});

fn refused(name: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    REFUSED.iter().find(|(names, _, _)| names.split_whitespace().any(|refused| refused == name))
}

/// A function, without looking why it might be missing.
pub(crate) fn get(name: &str) -> Option<Arc<ScalarUDF>> {
    FUNCTIONS.get(name).cloned()
}

/// The names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().map(String::as_str).chain(CLOCK)
}

/// Whether there is a function of this name, and what to do where there is none.
pub(crate) fn find(name: &str) -> Result<(), Refusal> {
    if let Some((_, why, help)) = refused(name) {
        let said = format!("`{name}` is not possible: {why}");
        return Err(Refusal::everywhere(said).help(*help));
    }
    if FUNCTIONS.contains_key(name) || CLOCK.contains(&name) {
        return Ok(());
    }
    let refusal = Refusal::everywhere(format!("there is no function `{name}`"));
    Err(match alike(name, names()) {
        Some(other) => refusal.help(format!("did you mean `{other}`?")),
        None => {
            refusal.help("DataFusion's scalar functions can be used, `severity` and `metadata_set`")
        }
    })
}

#[cfg(test)]
mod tests {
    use datafusion_expr::Volatility;

    use super::*;

    #[test]
    fn no_function_gives_something_else_after_a_restart() {
        let clock = |name: &str| CLOCK.contains(&name);
        for (name, function) in FUNCTIONS.iter().filter(|(name, _)| !clock(name)) {
            assert_eq!(function.signature().volatility, Volatility::Immutable, "{name}");
        }
    }

    #[test]
    fn what_is_refused_is_not_there() {
        let names = REFUSED.iter().flat_map(|(names, _, _)| names.split_whitespace());
        for name in names {
            assert!(get(name).is_none(), "{name}");
            assert!(find(name).is_err_and(|refusal| refusal.help.is_some()), "{name}");
        }
        assert!(FUNCTIONS.len() > 200, "{} functions", FUNCTIONS.len());
    }
}
