//! `slotlog`: shows what is in a store, and changes it.
//!
//! Exit code: 0; 1 if the answer is no, or there are findings; 2 for an error.

#[path = "../common/mod.rs"]
mod common;

mod arguments;
/// What the other program takes, for its completions and its page of the manual.
#[allow(dead_code, reason = "only its definition is used")]
#[path = "../slotlog-stats/arguments.rs"]
mod stats_arguments;

mod bench;
mod care;
mod copies;
mod diff;
mod export;
mod failure;
mod formats;
mod import;
mod json;
mod keys;
mod lists;
mod notation;
mod open;
mod out;
mod sort;
mod text;
mod types;
mod values;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use common::output::{Answer, exit};
use failure::Failure;

fn main() -> ExitCode {
    let arguments = match arguments::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return arguments::refuse(&error),
    };
    let done = match arguments.command.run() {
        Ok(answer) => Ok(answer),
        Err(Failure::ClosedPipe) => Ok(Answer::Yes),
        Err(Failure::Message(message)) => Err(message),
    };
    exit("slotlog", done)
}
