//! A role that plays in its own process, beside the test.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::basics::{child, listen};

/// Longer than anything that a test waits for may take.
pub(crate) const LONG: Duration = Duration::from_secs(60);

const ARGUMENT: &str = "SLOTLOG_TEST_ARGUMENT";

/// The argument that the test gave to the role of this process.
pub(crate) fn argument() -> String {
    std::env::var(ARGUMENT).unwrap_or_default()
}

/// A process that plays a role until it is told to stop, and what it says.
pub(crate) struct Player {
    role: String,
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Player {
    pub(crate) fn start(role: &str, argument: impl ToString, path: &Path) -> Player {
        let argument = argument.to_string();
        let mut command = child(role, path);
        command.env(ARGUMENT, &argument).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = listen(&mut child);
        Player { role: format!("{role} {argument}"), child, lines }
    }

    /// The next thing that it says.
    pub(crate) fn next(&self) -> String {
        self.lines.recv_timeout(LONG).unwrap_or_else(|error| panic!("{} says nothing: {error}", self.role))
    }

    /// Everything it has said so far.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Kills it. Processes it has started may live on, and hold its output open.
    pub(crate) fn kill_alone(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it, and returns the rest of what it said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.kill_alone();
        self.rest()
    }

    /// Tells it to stop, checks that it ends well, and returns the rest of what it said.
    pub(crate) fn stop(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LONG, "{} does not stop", self.role);
            thread::sleep(Duration::from_millis(2));
        };
        assert!(status.success(), "{}: {status}", self.role);
        self.rest()
    }

    fn rest(&self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(RecvTimeoutError::Timeout) => panic!("{} left its output open", self.role),
            }
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // If a test fails, nothing may be left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
