//! What is sent to many, kept for those that are not so fast: frames in memory that all share, and who
//! waits for more of them.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use slab::Slab;

/// Frames, the oldest first, each with a number that counts from 0.
#[derive(Debug)]
pub(super) struct Ring {
    frames_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The number of the oldest.
    first: u64,
    readers: Slab<Reader>,
    /// How many of them have everything.
    idle: usize,
    /// None that must not miss anything, or not unknowingly, has yet to write a smaller number.
    written_min: u64,
    /// Who waits for room.
    writers: Vec<Waker>,
    /// Who waits for the end.
    ends: Vec<Waker>,
    closed: bool,
}

/// One that takes frames.
#[derive(Debug)]
struct Reader {
    kind: Kind,
    /// The next frame that it has not written; kept only of those that this matters for.
    next: u64,
    /// It has everything.
    idle: bool,
    waker: Option<Waker>,
}

/// What a reader may miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever it is too slow for.
    Whatever,
    /// That, too, but it is woken when it does.
    Told,
    /// Nothing: it is waited for.
    Nothing,
}

/// What a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many frames.
    Some(usize),
    /// It missed so many, and goes on with the oldest there is.
    Missed(u64),
    /// There is none yet; it is woken when there is.
    None,
    /// There will be none.
    End,
}

impl Ring {
    pub(super) fn new(frames_max: usize, bytes_max: usize) -> Self {
        let state = Mutex::default();
        Self { frames_max: frames_max.max(1), bytes_max, state }
    }

    /// Puts frames in, as soon as no reader that is waited for needs the room; takes out of `frames`
    /// what it put in.
    pub(super) fn poll_put(&self, frames: &mut VecDeque<Bytes>, cx: &mut Context<'_>) -> Poll<()> {
        let mut gone = Vec::new();
        let mut woken = Vec::new();
        let mut state = self.lock();
        let full = loop {
            let Some(frame) = frames.pop_front() else { break false };
            if state.closed {
                continue;
            }
            if !self.make_room(&mut state, frame.len(), &mut gone, &mut woken) {
                frames.push_front(frame);
                if !state.writers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.writers.push(cx.waker().clone());
                }
                break true;
            }
            state.bytes += frame.len();
            state.frames.push_back(frame);
        };
        state.wake_idle(&mut woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        drop(gone);
        if full { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Lets the oldest go; not where somebody that is waited for has not written it.
    fn make_room(
        &self,
        state: &mut State,
        bytes: usize,
        gone: &mut Vec<Bytes>,
        woken: &mut Vec<Waker>,
    ) -> bool {
        while !state.frames.is_empty()
            && (state.frames.len() >= self.frames_max || state.bytes + bytes > self.bytes_max)
        {
            if state.written_min <= state.first && !state.may_go(woken) {
                return false;
            }
            if let Some(oldest) = state.frames.pop_front() {
                state.bytes -= oldest.len();
                state.first += 1;
                gone.push(oldest);
            }
        }
        true
    }

    /// Frames from `next` on, at most so many and of so many bytes together, but one at least.
    pub(super) fn take(
        &self,
        key: usize,
        next: &mut u64,
        most: (usize, usize),
        mut give: impl FnMut(Bytes),
        cx: &Context<'_>,
    ) -> Taken {
        let mut state = self.lock();
        if let Some(missed) = state.first.checked_sub(*next).filter(|missed| *missed > 0) {
            *next = state.first;
            return Taken::Missed(missed);
        }
        let from = usize::try_from(*next - state.first).unwrap_or(usize::MAX);
        let (mut count, mut bytes) = (0, 0);
        for frame in state.frames.iter().skip(from).take(most.0) {
            bytes += frame.len();
            if count > 0 && bytes > most.1 {
                break;
            }
            give(frame.clone());
            count += 1;
        }
        *next += count as u64;
        if count > 0 {
            return Taken::Some(count);
        }
        if state.closed {
            return Taken::End;
        }
        let State { readers, idle, .. } = &mut *state;
        let old = readers.get_mut(key).and_then(|reader| {
            *idle += usize::from(!reader.idle);
            reader.idle = true;
            reader.leave(cx)
        });
        drop(state);
        drop(old);
        Taken::None
    }

    /// Another reader, of what is put in from now on: its key, and the number it begins with.
    pub(super) fn read(&self, kind: Kind) -> (usize, u64) {
        let mut state = self.lock();
        let next = state.first + state.frames.len() as u64;
        state.written_min = state.written_min.min(next);
        (state.readers.insert(Reader { kind, next, idle: false, waker: None }), next)
    }

    /// A reader has written all before `next`.
    pub(super) fn wrote(&self, key: usize, next: u64, cx: &Context<'_>) {
        let mut state = self.lock();
        let Some(reader) = state.readers.get_mut(key) else { return };
        let moved = mem::replace(&mut reader.next, next) != next;
        let old = if reader.kind == Kind::Told { reader.leave(cx) } else { None };
        let writers = match moved && reader.kind == Kind::Nothing {
            true => mem::take(&mut state.writers),
            false => Vec::new(),
        };
        drop(state);
        drop(old);
        writers.into_iter().for_each(Waker::wake);
    }

    /// A reader is gone.
    pub(super) fn gone(&self, key: usize) {
        let mut state = self.lock();
        let gone = state.readers.try_remove(key);
        state.idle -= usize::from(gone.as_ref().is_some_and(|reader| reader.idle));
        let writers = mem::take(&mut state.writers);
        drop(state);
        drop(gone);
        writers.into_iter().for_each(Waker::wake);
    }

    /// How many readers there are.
    pub(super) fn readers(&self) -> usize {
        self.lock().readers.len()
    }

    /// Waits until that; it is for few.
    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(());
        }
        if !state.ends.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.ends.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// No more is put in; readers end when they have what there is.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut woken = mem::take(&mut state.writers);
        woken.append(&mut state.ends);
        state.wake_idle(&mut woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Leaves the task's waker, and gives back the one it had.
    fn leave(&mut self, cx: &Context<'_>) -> Option<Waker> {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => self.waker.replace(cx.waker().clone()),
        }
    }
}

impl State {
    fn wake_idle(&mut self, woken: &mut Vec<Waker>) {
        if self.idle > 0 {
            for (_, reader) in self.readers.iter_mut().filter(|(_, reader)| reader.idle) {
                reader.idle = false;
                woken.extend(reader.waker.take());
            }
            self.idle = 0;
        }
    }

    /// Whether the oldest frame may go, as far as readers have to do with it; those that are to be
    /// told are woken.
    fn may_go(&mut self, woken: &mut Vec<Waker>) -> bool {
        let mut min = u64::MAX;
        for (_, reader) in &mut self.readers {
            match reader.kind {
                Kind::Whatever => {}
                _ if reader.next > self.first => min = min.min(reader.next),
                Kind::Nothing => return false,
                // It will never come back to what it missed.
                Kind::Told => woken.extend(reader.waker.take()),
            }
        }
        self.written_min = min;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task(Arc<Woken>, Waker);

    impl Task {
        fn new() -> Self {
            let woken = Arc::new(Woken::default());
            Self(Arc::clone(&woken), woken.into())
        }

        fn woken(&self) -> usize {
            self.0.0.swap(0, Ordering::Relaxed)
        }
    }

    fn put(ring: &Ring, frames: &[&'static str], task: &Task) -> usize {
        let mut frames = frames.iter().map(|frame| Bytes::from_static(frame.as_bytes())).collect();
        let _ = ring.poll_put(&mut frames, &mut Context::from_waker(&task.1));
        frames.len()
    }

    fn take(ring: &Ring, key: usize, next: &mut u64, task: &Task) -> (Taken, Vec<Bytes>) {
        let mut frames = Vec::new();
        let give = |frame| frames.push(frame);
        let taken = ring.take(key, next, (10, 100), give, &Context::from_waker(&task.1));
        (taken, frames)
    }

    #[test]
    fn a_reader_gets_all_from_when_it_came_and_is_told_what_it_missed() {
        let (ring, task, writer) = (Ring::new(3, 100), Task::new(), Task::new());
        assert_eq!(put(&ring, &["a", "b"], &writer), 0);
        let (key, mut next) = ring.read(Kind::Whatever);
        assert_eq!(take(&ring, key, &mut next, &task), (Taken::None, vec![]));
        put(&ring, &["c", "d"], &writer);
        assert_eq!(task.woken(), 1);
        let (taken, frames) = take(&ring, key, &mut next, &task);
        assert_eq!((taken, frames), (Taken::Some(2), vec!["c".into(), "d".into()]));
        put(&ring, &["e", "f", "g", "h", "i"], &writer);
        assert_eq!(task.woken(), 0, "it was not waiting");
        assert_eq!(take(&ring, key, &mut next, &task).0, Taken::Missed(2));
        let (taken, frames) = take(&ring, key, &mut next, &task);
        assert_eq!((taken, frames.concat()), (Taken::Some(3), b"ghi".to_vec()));
        ring.close();
        assert_eq!(take(&ring, key, &mut next, &task).0, Taken::End);
    }

    #[test]
    fn one_that_is_waited_for_holds_writers_up_until_it_has_written() {
        let (ring, task, writer) = (Ring::new(100, 4), Task::new(), Task::new());
        let (key, mut next) = ring.read(Kind::Nothing);
        assert_eq!(put(&ring, &["aa", "bb", "cc"], &writer), 1);
        let (taken, _) = take(&ring, key, &mut next, &task);
        assert_eq!((taken, writer.woken()), (Taken::Some(2), 0), "taken is not written");
        assert_eq!(put(&ring, &["cc"], &writer), 1);
        ring.wrote(key, 1, &Context::from_waker(&task.1));
        assert_eq!(writer.woken(), 1);
        assert_eq!(put(&ring, &["cc", "dd"], &writer), 1);
        ring.gone(key);
        assert_eq!((writer.woken(), put(&ring, &["dd"], &writer)), (1, 0));
    }

    #[test]
    fn one_that_is_to_be_told_is_woken_when_it_misses_something() {
        let (ring, task, writer) = (Ring::new(2, 100), Task::new(), Task::new());
        let (key, mut next) = ring.read(Kind::Told);
        put(&ring, &["a", "b"], &writer);
        take(&ring, key, &mut next, &task);
        ring.wrote(key, 1, &Context::from_waker(&task.1));
        put(&ring, &["c"], &writer);
        assert_eq!(task.woken(), 0, "it has written what went");
        put(&ring, &["d"], &writer);
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn readers_that_come_and_go_leave_nothing() {
        let (ring, writer) = (Ring::new(2, 100), Task::new());
        for _ in 0..100 {
            let task = Task::new();
            let (key, mut next) = ring.read(Kind::Whatever);
            take(&ring, key, &mut next, &task);
            take(&ring, key, &mut next, &task);
            ring.gone(key);
            put(&ring, &["a"], &writer);
            assert_eq!((task.woken(), Arc::strong_count(&task.0)), (0, 2));
        }
        let state = ring.lock();
        assert_eq!((state.idle, state.readers.len()), (0, 0));
    }

    #[test]
    fn a_frame_larger_than_all_passes_alone() {
        let (ring, task, writer) = (Ring::new(9, 2), Task::new(), Task::new());
        let (key, mut next) = ring.read(Kind::Whatever);
        assert_eq!(put(&ring, &["a", "bbbb"], &writer), 0);
        assert_eq!(take(&ring, key, &mut next, &task).0, Taken::Missed(1));
        assert_eq!(take(&ring, key, &mut next, &task).1, ["bbbb"]);
    }
}
