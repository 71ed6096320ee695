//! What the system tells of processors and of who used them.

use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use wait4::{ResUse, Wait4};

use super::Cost;

/// The kernel adds running time to a thread's account when it leaves the processor; a nap this long
/// makes it do so before the account is read.
const NAP: Duration = Duration::from_micros(50);

/// CPU time of all living threads of this process, in nanoseconds; `None` where there is no Linux
/// `/proc`. What a thread used that ended meanwhile is missing: sides that need threads should keep
/// them.
pub(super) fn cpu_time() -> Option<u64> {
    thread::sleep(NAP);
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let account = fs::read_to_string(task.ok()?.path().join("schedstat")).ok();
        total += account.as_deref().map_or(Some(0), running_time)?;
    }
    Some(total)
}

/// The first number of a `schedstat`: nanoseconds on a processor.
fn running_time(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// What all children used that were waited for here, in nanoseconds.
static CHILDREN: AtomicU64 = AtomicU64::new(0);

/// What a child and its own children used until it ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Used {
    /// CPU time, user and system together, in nanoseconds.
    pub(super) cpu: u64,
    /// The most memory that one of them had, in bytes. What we have had ourselves when it was started
    /// counts as its own, so we keep little.
    pub(super) peak: u64,
}

impl Used {
    /// The same as a cost, of something that took so long by the clock.
    pub(super) fn during(self, wall: Duration) -> Cost {
        let Self { cpu, peak } = self;
        Cost { wall: wall.as_nanos() as f64, cpu: Some(cpu as f64), peak: Some(peak as f64) }
    }
}

/// Waits for a child, and says what it used.
pub(super) fn wait(child: Child) -> io::Result<(ExitStatus, Used)> {
    let ResUse { status, rusage } = child.wait4()?;
    let cpu = u64::try_from((rusage.utime + rusage.stime).as_nanos()).unwrap_or(u64::MAX);
    CHILDREN.fetch_add(cpu, Ordering::Relaxed);
    Ok((status, Used { cpu, peak: rusage.maxrss }))
}

/// The processor's name, or its architecture where the system doesn't tell.
pub(super) fn processor() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| model_name(&info))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How many processors this process may use.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The time of all processors so far and how much of it was used, by the machine's host too, in the
/// kernel's ticks; and what we and our children used of it, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Account {
    ticks: u64,
    busy_ticks: u64,
    own: u64,
}

/// Ticks a second of what `/proc/stat` tells: a part of Linux's interface, everywhere the same.
const TICKS_PER_SECOND: f64 = 100.0;

impl Account {
    /// The account as it is now; `None` where there is no Linux `/proc`.
    pub(super) fn now() -> Option<Self> {
        let own = cpu_time()? + CHILDREN.load(Ordering::Relaxed);
        Self::read(&fs::read_to_string("/proc/stat").ok()?, own)
    }

    fn read(stat: &str, own: u64) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; what follows is part of user and nice.
        let times = line.split_ascii_whitespace().take(8).map(|time| time.parse().ok());
        let times: Vec<u64> = times.collect::<Option<_>>()?;
        let ticks = times.iter().sum();
        Some(Self { ticks, busy_ticks: ticks - times.get(3)? - times.get(4)?, own })
    }

    /// The part of all processors' time since then that neither was idle nor ours.
    pub(super) fn used_by_others(&self, then: &Self) -> f64 {
        let all = self.ticks.saturating_sub(then.ticks) as f64;
        let busy = self.busy_ticks.saturating_sub(then.busy_ticks) as f64;
        let own = self.own.saturating_sub(then.own) as f64 / 1e9 * TICKS_PER_SECOND;
        ((busy - own) / all).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_systems_files_are_read() {
        assert_eq!(running_time("554461556 4616071 80\n"), Some(554_461_556));
        assert_eq!(running_time(""), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\n";
        assert_eq!(model_name(cpuinfo).as_deref(), Some("AMD EPYC"));
        assert_eq!(model_name("nothing"), None);
    }

    #[test]
    fn what_is_neither_idle_nor_ours_is_the_others() {
        let then = Account::read("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1\n", 1_000).unwrap();
        assert_eq!((then.ticks, then.busy_ticks), (1_000, 150));
        // Of 1,000 ticks more 400 were busy, and we used 3 seconds.
        let now = Account::read("cpu 500 0 50 1350 100 0 0 0 7 7\n", 3_000_001_000).unwrap();
        assert_eq!(now.used_by_others(&then), 0.1);
        assert_eq!(Account::read("nothing", 0), None);
    }

    #[test]
    fn what_a_child_used_is_known_when_it_has_ended() {
        let burn = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; exit 3";
        let before = CHILDREN.load(Ordering::Relaxed);
        let child = Command::new("sh").args(["-c", burn]).spawn().unwrap();
        let (status, Used { cpu, peak }) = wait(child).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(cpu > 0 && CHILDREN.load(Ordering::Relaxed) >= before + cpu);
        assert!((1 << 16..1 << 34).contains(&peak), "{peak}");
    }
}
