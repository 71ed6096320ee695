//! One side that does not end by itself: a server, fed and heard by whoever measures it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::{Cost, machine};
use super::Outcome;

/// A running server; killed when this is dropped.
#[derive(Debug)]
pub struct Served {
    child: Option<Child>,
}

impl Served {
    /// Starts it. What it prints goes nowhere.
    ///
    /// # Errors
    ///
    /// Where it can't be started.
    pub fn start(mut command: Command) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("can't start {command:?}: {error}"))?;
        Ok(Self { child: Some(child) })
    }

    /// Kills it, unless it has ended by itself. It did its work in this time by the clock; on
    /// processors it took what it has taken from its start, which is counted too.
    ///
    /// # Errors
    ///
    /// Where it had failed.
    pub fn end(mut self, wall: Duration) -> Outcome<Cost> {
        let mut child = self.child.take().ok_or("it was ended before")?;
        child.kill()?; // does nothing to one that has ended
        let (status, used) = machine::wait(child)?;
        if status.code().is_some_and(|code| code != 0) {
            return Err(format!("it failed: {status}").into());
        }
        Ok(used.during(wall))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wait_for;

    fn shell(script: &str) -> Served {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Served::start(command).unwrap()
    }

    #[test]
    fn what_runs_is_killed_and_counted_and_what_has_failed_is_told() {
        let wall = Duration::from_millis(3);
        assert_eq!(shell("while :; do :; done").end(wall).unwrap().wall, 3e6);
        for (script, fine) in [("exit 0", true), ("exit 3", false)] {
            let server = shell(script);
            let id = server.child.as_ref().unwrap().id();
            wait_for("its end", Duration::from_secs(20), || {
                let state = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
                state.contains(") Z ").then_some(())
            });
            assert_eq!(server.end(wall).is_ok(), fine, "{script}");
        }
    }
}
