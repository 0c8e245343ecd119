//! Why a command ends early.

use std::fmt::Display;
use std::io;

use slotlog::Error;

use super::common::output::Answer;

/// What a command comes to.
pub type Done = Result<Answer, Failure>;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// Something is wrong. What it is, where, and what to do, on one line.
    Message(String),
    /// The reader of the output has what it wants, like `head`. That is no error.
    ClosedPipe,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure::Message(message.into())
    }

    /// The output could not be written.
    pub fn of_output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Message(format!("could not print: {error}")),
        }
    }

    /// The same, with what can be done about it.
    pub fn with_advice(self, advice: &str) -> Failure {
        match self {
            Failure::Message(message) => Failure::Message(message + advice),
            other => other,
        }
    }

    /// The same, with what was being done before it.
    pub fn within(self, what: impl Display) -> Failure {
        match self {
            Failure::Message(message) => Failure::Message(format!("{what}: {message}")),
            other => other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            // The library names its options; these are called otherwise here.
            Error::AlreadyExists { path } => {
                Failure::Message(format!("{}: already exists; use --overwrite to replace it", path.display()))
            }
            error => Failure::Message(error.report()),
        }
    }
}
