//! Which of many rows a table does not take, when all that is known is how each attempt ends: pure.

use std::ops::Range;

/// A search among rows of which at least one is refused. Rows are tried in order, and all that are
/// taken stay in.
///
/// An attempt ends at the first row that is refused. Where the server says which one that was, what
/// comes before it is tried again without it; where not, each half is tried alone. Attempts grow
/// while they go well and shrink when they don't, so that `k` bad rows among `n` cost at most about
/// `2 k + log n` attempts with lines and `2 k log n` without, and few rows are sent for nothing.
#[derive(Debug)]
pub(super) struct Search {
    // Ranges that are still to be tried, the first one last.
    left: Vec<Range<usize>>,
    // An attempt has at most so many rows.
    longest: usize,
    rejected: Vec<(usize, String)>,
}

impl Search {
    /// Among so many rows.
    pub(super) fn new(rows: usize) -> Self {
        let all = 0..rows;
        Self { left: vec![all], longest: usize::MAX, rejected: Vec::new() }
    }

    /// What to try next; it is to be [taken](Self::taken) or [refused](Self::refused).
    pub(super) fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let Range { start, end: last } = self.left.pop()?;
            let end = last.min(start.saturating_add(self.longest));
            if start < end {
                self.left.push(end..last);
                return Some(start..end);
            }
        }
    }

    /// All of an attempt went in.
    pub(super) fn taken(&mut self) {
        self.longest = self.longest.saturating_mul(2);
    }

    /// Nothing of an attempt went in, because of this line of it, counted from 1, or of one that is
    /// not known.
    pub(super) fn refused(&mut self, tried: Range<usize>, line: Option<usize>, reason: String) {
        let Range { start, end } = tried;
        let known = line.and_then(|line| start.checked_add(line.checked_sub(1)?));
        let bad = match known.filter(|bad| tried.contains(bad)) {
            None if tried.len() > 1 => {
                let middle = start + tried.len() / 2;
                self.left.extend([middle..end, start..middle]);
                self.longest = tried.len() / 2;
                return;
            }
            None => start,
            Some(bad) => bad,
        };
        self.rejected.push((bad, reason));
        self.left.extend([bad + 1..end, start..bad]);
        self.longest = 2 * (bad - start).max(1);
    }

    /// The rows that are refused, ascending, and why; all others are in.
    pub(super) fn into_rejected(mut self) -> Vec<(usize, String)> {
        self.rejected.sort_unstable_by_key(|(row, _)| *row);
        self.rejected
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Searches, and checks that what is taken is what is not bad, in order; gives how many attempts
    /// that took, and how many rows were sent.
    fn attempts(rows: usize, bad: &BTreeSet<usize>, says_line: bool) -> (usize, usize) {
        let mut search = Search::new(rows);
        let (mut taken, mut count, mut sent) = (Vec::new(), 0, 0);
        while let Some(tried) = search.next() {
            (count, sent) = (count + 1, sent + tried.len());
            assert!(!tried.is_empty());
            match bad.range(tried.clone()).next() {
                None => {
                    taken.extend(tried);
                    search.taken();
                }
                Some(first) => {
                    let line = says_line.then_some(first - tried.start + 1);
                    search.refused(tried, line, format!("bad {first}"));
                }
            }
        }
        let good: Vec<_> = (0..rows).filter(|row| !bad.contains(row)).collect();
        assert_eq!(taken, good);
        let rejected = search.into_rejected();
        let expected: Vec<_> = bad.iter().map(|row| (*row, format!("bad {row}"))).collect();
        assert_eq!(rejected, expected);
        (count, sent)
    }

    #[test]
    fn one_bad_row_costs_three_attempts_where_its_line_is_said() {
        let (count, sent) = attempts(8_192, &[5_000].into(), true);
        assert_eq!(count, 3);
        assert!(sent < 2 * 8_192 + 1, "{sent}");
    }

    #[test]
    fn nothing_but_bad_rows_costs_one_attempt_each() {
        let all = (0..8_192).collect();
        let (count, sent) = attempts(8_192, &all, true);
        assert!(count <= 8_192 && sent < 4 * 8_192, "{count}, {sent}");
        let (count, sent) = attempts(8_192, &all, false);
        assert!(count < 2 * 8_192 && sent < 14 * 8_192, "{count}, {sent}");
    }

    #[test]
    fn a_line_that_can_not_be_is_no_line() {
        let mut search = Search::new(2);
        assert_eq!(search.next(), Some(0..2));
        search.refused(0..2, Some(3), "why".into());
        assert_eq!(search.next(), Some(0..1));
        search.refused(0..1, Some(0), "why".into());
        assert_eq!(search.next(), Some(1..2));
        search.taken();
        assert_eq!(search.next(), None);
        assert_eq!(search.into_rejected(), [(0, "why".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_bad_rows_are_found_in_few_attempts(
            rows in 1_usize..3_000,
            bad in prop::collection::btree_set(0_usize..3_000, 1..40),
        ) {
            let bad: BTreeSet<_> = bad.into_iter().filter(|row| *row < rows).collect();
            let log = rows.ilog2() as usize + 2;
            let (count, sent) = attempts(rows, &bad, true);
            prop_assert!(count <= 4 * bad.len() + log, "{} for {}", count, bad.len());
            prop_assert!(sent <= 6 * rows + 16, "{} of {}", sent, rows);
            let (count, _) = attempts(rows, &bad, false);
            prop_assert!(count <= (2 * bad.len() + 2) * log, "{} for {}", count, bad.len());
        }
    }
}
