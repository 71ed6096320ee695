//! The lines on the standard error: a status that stays the last one, and what is printed above it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A text without what would break the line or talk to a terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

/// How the status is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not at all.
    Hidden,
    /// In one line that is written over.
    InPlace,
    /// In a new line each time, between what others print.
    Lines,
}

impl Status {
    /// As it suits the standard error: hidden where that is no terminal. Where data is printed on
    /// the same terminal, a line in place would be torn.
    pub(crate) fn suiting(data_on_stdout: bool) -> Self {
        match (io::stderr().is_terminal(), data_on_stdout && io::stdout().is_terminal()) {
            (false, _) => Status::Hidden,
            (true, true) => Status::Lines,
            (true, false) => Status::InPlace,
        }
    }

    /// Of a command whose output is no data: in place on a terminal, and else in lines.
    pub(crate) fn of_progress() -> Self {
        if io::stderr().is_terminal() { Status::InPlace } else { Status::Lines }
    }
}

/// The standard error, as one place for logs, status and last words.
pub(crate) struct Screen {
    state: Mutex<State>,
}

struct State {
    status: Status,
    // What is shown in place now.
    shown: Option<String>,
    out: Box<dyn Write + Send>,
}

/// Goes to the line's begin and clears it.
const CLEAR: &str = "\r\x1b[2K";
/// A status longer than the terminal is wide must not become two lines: no wrapping meanwhile.
const WRAP_OFF: &str = "\x1b[?7l";
/// Wrapping again.
const WRAP_ON: &str = "\x1b[?7h";

impl Screen {
    /// Of the standard error; without a status until it is told how to show one.
    pub(crate) fn new() -> Self {
        Self::on(Box::new(io::stderr()))
    }

    fn on(out: Box<dyn Write + Send>) -> Self {
        Self { state: Mutex::new(State { status: Status::Hidden, shown: None, out }) }
    }

    /// Says how the status is shown from here on.
    pub(crate) fn show_status(&self, status: Status) {
        self.lock().status = status;
    }

    /// Shows the status.
    pub(crate) fn status(&self, line: &str) {
        let mut state = self.lock();
        match state.status {
            Status::Hidden => {}
            Status::Lines => state.write(&format!("{line}\n")),
            Status::InPlace => {
                state.write(&format!("{CLEAR}{WRAP_OFF}{line}{WRAP_ON}"));
                state.shown = Some(line.to_owned());
            }
        }
    }

    /// Prints whole lines above the status.
    pub(crate) fn print(&self, lines: &[u8]) {
        let mut state = self.lock();
        let shown = state.shown.clone();
        if shown.is_some() {
            state.write(CLEAR);
        }
        // Where the standard error is gone, nobody is left to be told.
        let _ = state.out.write_all(lines);
        if let Some(status) = shown {
            state.write(&format!("{WRAP_OFF}{status}{WRAP_ON}"));
        }
    }

    /// Takes the status away, for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.status = Status::Hidden;
        if state.shown.take().is_some() {
            state.write(CLEAR);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a screen of this kind writes for a status, a log line, a status, and the end.
    fn written(status: Status) -> String {
        let out = Shared::default();
        let screen = Screen::on(Box::new(out.clone()));
        screen.show_status(status);
        screen.status("10 %");
        screen.print(b"a log line\n");
        screen.status("20 %");
        screen.close();
        screen.status("30 %");
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().replace(WRAP_OFF, "<").replace(WRAP_ON, ">")
    }

    #[test]
    fn a_status_in_place_stays_below_what_is_printed() {
        let expected = format!("{CLEAR}<10 %>{CLEAR}a log line\n<10 %>{CLEAR}<20 %>{CLEAR}");
        assert_eq!(written(Status::InPlace), expected);
    }

    #[test]
    fn a_status_in_lines_is_not_repeated_and_a_hidden_one_not_shown() {
        assert_eq!(written(Status::Lines), "10 %\na log line\n20 %\n");
        assert_eq!(written(Status::Hidden), "a log line\n");
    }
}
