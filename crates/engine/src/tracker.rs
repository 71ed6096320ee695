//! Which positions may be committed: acks in any order in, the end of the longest settled run of
//! each partition out. No clock and no I/O.

use std::collections::{HashMap, VecDeque};

use tidegate_model::{Partition, Position, Verdict};

/// The open batches of one source.
///
/// Bounded by whoever registers: [`open`](Tracker::open) says how many there are. A partition
/// whose batches are all settled and taken is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    partitions: HashMap<Partition, Line>,
    open: usize,
    // Those of them that have no verdict yet.
    waiting: usize,
    failed: bool,
}

/// One partition's batches, in the order they were read.
#[derive(Debug, Default)]
struct Line {
    // The ticket number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    settled: bool,
}

/// A batch's place in its line.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    partition: Partition,
    number: u64,
}

impl Tracker {
    /// A batch was read, up to this position.
    pub(crate) fn register(&mut self, position: Position) -> Ticket {
        let line = self.partitions.entry(position.partition.clone()).or_default();
        let number = line.first + line.entries.len() as u64;
        let partition = position.partition.clone();
        line.entries.push_back(Entry { position, settled: false });
        self.open += 1;
        self.waiting += 1;
        Ticket { partition, number }
    }

    /// Its batch is settled. A failed one keeps its line from being committed any further.
    pub(crate) fn settle(&mut self, ticket: &Ticket, verdict: Verdict) {
        self.waiting = self.waiting.saturating_sub(1);
        if verdict == Verdict::Failed {
            self.failed = true;
            return;
        }
        let line = self.partitions.get_mut(&ticket.partition);
        let entry = line.and_then(|line| {
            let index = usize::try_from(ticket.number.checked_sub(line.first)?).ok()?;
            line.entries.get_mut(index)
        });
        if let Some(entry) = entry
            && !std::mem::replace(&mut entry.settled, true)
        {
            self.open -= 1;
        }
    }

    /// For each partition that has one: the end of the run of settled batches since the last call.
    pub(crate) fn take_settled(&mut self) -> Vec<Position> {
        let mut ends = Vec::new();
        self.partitions.retain(|_, line| {
            let mut end = None;
            while line.entries.front().is_some_and(|entry| entry.settled) {
                end = line.entries.pop_front().map(|entry| entry.position);
                line.first += 1;
            }
            ends.extend(end);
            !line.entries.is_empty()
        });
        ends
    }

    /// How many batches are not settled.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// How many batches have no verdict: those that failed have one.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether any batch has failed.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::HashMap;

    use super::*;

    fn position(partition: u8, sequence: u64) -> Position {
        let partition = Partition::from(partition.to_string());
        Position { partition, sequence, state: sequence.to_le_bytes().to_vec().into() }
    }

    fn ends(tracker: &mut Tracker) -> Vec<(String, u64)> {
        let taken = tracker.take_settled().into_iter();
        let mut ends: Vec<_> = taken.map(|p| (p.partition.to_string(), p.sequence)).collect();
        ends.sort();
        ends
    }

    #[test]
    fn a_gap_holds_back_what_is_behind_it() {
        let mut tracker = Tracker::default();
        let tickets: Vec<_> = (1..=3).map(|end| tracker.register(position(0, end * 10))).collect();
        tracker.settle(&tickets[1], Verdict::Delivered);
        tracker.settle(&tickets[2], Verdict::Dropped);
        assert_eq!((ends(&mut tracker), tracker.open()), (vec![], 1));
        tracker.settle(&tickets[0], Verdict::Delivered);
        assert_eq!((ends(&mut tracker), tracker.open()), (vec![("0".to_owned(), 30)], 0));
        assert_eq!(ends(&mut tracker), []);
    }

    #[test]
    fn a_failed_batch_is_never_passed() {
        let mut tracker = Tracker::default();
        let tickets: Vec<_> = (1..=3).map(|end| tracker.register(position(0, end * 10))).collect();
        for (ticket, verdict) in
            tickets.iter().zip([Verdict::Delivered, Verdict::Failed, Verdict::Delivered])
        {
            tracker.settle(ticket, verdict);
        }
        assert_eq!(ends(&mut tracker), [("0".to_owned(), 10)]);
        assert!(tracker.failed() && tracker.open() == 1);
        assert_eq!(tracker.waiting(), 0, "nobody waits for what has failed");
    }

    proptest! {
        /// Against the plainest model: a list of all batches and their verdicts.
        #[test]
        fn commits_the_end_of_the_longest_settled_run(
            steps in proptest::collection::vec((0_u8..3, 0_usize..12, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let mut tracker = Tracker::default();
            let mut tickets: Vec<(u8, Ticket, bool, u64)> = Vec::new();
            let mut committed: HashMap<String, u64> = HashMap::new();
            for (step, (partition, which, settles, take)) in steps.into_iter().enumerate() {
                let waiting: Vec<usize> =
                    (0..tickets.len()).filter(|index| !tickets[*index].2).collect();
                if settles && !waiting.is_empty() {
                    let index = waiting[which % waiting.len()];
                    tracker.settle(&tickets[index].1, Verdict::Delivered);
                    tickets[index].2 = true;
                } else {
                    let end = step as u64 + 1;
                    let ticket = tracker.register(position(partition, end));
                    tickets.push((partition, ticket, false, end));
                }
                let open = tickets.iter().filter(|ticket| !ticket.2).count();
                prop_assert_eq!(tracker.open(), open);
                if take {
                    committed.extend(ends(&mut tracker));
                    for partition in 0..3_u8 {
                        let mine = tickets.iter().filter(|ticket| ticket.0 == partition);
                        let run = mine.take_while(|ticket| ticket.2).last();
                        let name = partition.to_string();
                        prop_assert_eq!(committed.get(&name), run.map(|ticket| &ticket.3));
                        let open = tickets.iter().any(|ticket| ticket.0 == partition && !ticket.2);
                        let kept = tracker.partitions.contains_key(&Partition::from(name));
                        prop_assert_eq!(kept, open, "only what is open is kept");
                    }
                }
            }
        }
    }
}
