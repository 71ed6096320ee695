//! What the server's own plan says of a query: how many rows, from where, and what would make its
//! pages differ from one another.

use serde_json::Value;

use super::statement::called;

/// What was read out of `EXPLAIN (FORMAT JSON, VERBOSE)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Planned {
    /// How many rows are expected.
    pub(super) rows: u64,
    /// How many bytes a row is expected to have.
    pub(super) width: u64,
    /// Whether each row comes of one row of one table, and no two of the same: what is unique there
    /// is unique here.
    pub(super) is_of_one_table: bool,
    /// The node that picks some of the rows, and others each time.
    pub(super) picks: Option<&'static str>,
    /// Names that may be functions.
    pub(super) functions: Vec<String>,
}

/// Nodes that leave rows as they are, or leave some out.
const PLAIN: &[&str] = &[
    "Seq Scan",
    "Index Scan",
    "Index Only Scan",
    "Bitmap Heap Scan",
    "Bitmap Index Scan",
    "BitmapAnd",
    "BitmapOr",
    "Tid Scan",
    "Tid Range Scan",
    "Gather",
    "Gather Merge",
    "Sort",
    "Incremental Sort",
    "Result",
    "Subquery Scan",
    "Materialize",
    "Unique",
    "Aggregate",
    "Group",
    "WindowAgg",
];

/// Nodes that put the parts of a partitioned table together, or the parts of a UNION.
const APPENDS: &[&str] = &["Append", "Merge Append"];

impl Planned {
    /// Reads a plan; none where it makes no sense. Parts put together count as one table where it is
    /// known to be one.
    pub(super) fn read(text: &str, is_table: bool) -> Option<Self> {
        let plan: Value = serde_json::from_str(text).ok()?;
        let top = plan.get(0)?.get("Plan")?;
        let number = |name| top.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let mut planned = Self {
            rows: number("Plan Rows") as u64,
            width: number("Plan Width") as u64,
            is_of_one_table: true,
            ..Self::default()
        };
        let mut tables = 0;
        planned.node(top, is_table, true, &mut tables);
        planned.is_of_one_table &= tables == 1 || is_table && tables > 0;
        planned.functions.sort_unstable();
        planned.functions.dedup();
        Some(planned)
    }

    /// `is_source`: rows of the result come of it, and not only single values.
    fn node(&mut self, node: &Value, is_table: bool, is_source: bool, tables: &mut usize) {
        let kind = node.get("Node Type").and_then(Value::as_str).unwrap_or_default();
        if is_source {
            self.is_of_one_table &= PLAIN.contains(&kind) || is_table && APPENDS.contains(&kind);
            // Each row is in several groups, and what a group is not by is null in it.
            self.is_of_one_table &= node.get("Grouping Sets").is_none();
            *tables += usize::from(node.get("Relation Name").is_some());
            match kind {
                "Limit" => self.picks = Some("LIMIT or OFFSET"),
                "Sample Scan" => self.picks = Some("TABLESAMPLE"),
                "ModifyTable" => self.picks = Some("a statement that changes rows"),
                _ => {}
            }
        }
        for (name, value) in node.as_object().into_iter().flatten() {
            if name != "Plans" {
                self.texts(value);
            }
        }
        for child in node.get("Plans").and_then(Value::as_array).into_iter().flatten() {
            let relation = child.get("Parent Relationship").and_then(Value::as_str);
            let is_value = matches!(relation, Some("SubPlan" | "InitPlan"));
            // A query that is named (WITH) is a source, though it is planned apart.
            let is_named = child.get("Subplan Name").and_then(Value::as_str);
            let is_named = is_named.is_some_and(|name| name.starts_with("CTE"));
            self.node(child, is_table, is_source && (!is_value || is_named), tables);
        }
    }

    fn texts(&mut self, value: &Value) {
        match value {
            Value::String(text) => called(text, &mut self.functions),
            Value::Array(values) => values.iter().for_each(|value| self.texts(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(plan: &str, is_table: bool) -> Planned {
        Planned::read(&format!("[{{\"Plan\": {plan}}}]"), is_table).unwrap()
    }

    const SCAN: &str = r#"{"Node Type": "Seq Scan", "Relation Name": "t", "Plan Rows": 7,
        "Plan Width": 9, "Output": ["t.a", "lower(t.b)"], "Filter": "(random() > '0.5')"}"#;

    #[test]
    fn one_scan_is_of_one_table() {
        let planned = read(SCAN, false);
        let functions = ["lower", "random"].map(str::to_owned).to_vec();
        let expected = Planned { rows: 7, width: 9, is_of_one_table: true, picks: None, functions };
        assert_eq!(planned, expected);
    }

    #[test]
    fn joins_parts_and_limits_are_told() {
        let above =
            |kind: &str, plans: &str| format!(r#"{{"Node Type": "{kind}", "Plans": [{plans}]}}"#);
        let two = format!("{SCAN}, {SCAN}");
        assert!(!read(&above("Hash Join", &two), false).is_of_one_table);
        assert!(!read(&above("Append", &two), false).is_of_one_table);
        assert!(read(&above("Append", &two), true).is_of_one_table);
        assert!(!read(&above("ProjectSet", SCAN), false).is_of_one_table);
        let sets = above("Aggregate", SCAN).replacen('{', r#"{"Grouping Sets": [], "#, 1);
        assert!(!read(&sets, false).is_of_one_table);
        assert!(!read(r#"{"Node Type": "Result"}"#, false).is_of_one_table);
        assert_eq!(read(&above("Limit", SCAN), false).picks, Some("LIMIT or OFFSET"));
        let value = SCAN.replacen('{', r#"{"Parent Relationship": "SubPlan", "#, 1);
        let value = format!(
            "{SCAN}, {}",
            above("Limit", &value).replacen('{', r#"{"Parent Relationship": "SubPlan", "#, 1)
        );
        let planned = read(&above("Gather", &value), false);
        assert_eq!((planned.is_of_one_table, planned.picks), (true, None));
        assert_eq!(Planned::read("[]", false), None);
    }
}
