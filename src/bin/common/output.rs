//! How a program prints, and how it ends.

use std::io::{self, Write as _};
use std::process::ExitCode;

use super::plain::one_line;

/// What a program has to say by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or the answer is yes: 0.
    Yes,
    /// The answer is no, or there are findings: 1.
    No,
}

/// The exit code of a program that came to an answer, or to an error, which is reported: 2.
pub fn exit(program: &str, done: Result<Answer, String>) -> ExitCode {
    match done {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(message) => {
            // If this fails too, there is no way left to report it.
            let _ = writeln!(io::stderr(), "{program}: {}", one_line(&message));
            ExitCode::from(2)
        }
    }
}

/// Prints to standard output. A pipe closed early, as by `head`, is not a failure.
pub fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("could not print: {error}")),
        _ => Ok(()),
    }
}
