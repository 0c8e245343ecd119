//! Two processes and a mailbox between them, without a queue, a server or a port: who waits is woken by the commit.
//!
//! ```text
//! cargo run --release --example mailbox -- receive
//! cargo run --release --example mailbox -- send hello      # in another terminal
//! cargo run --release --example mailbox -- send stop
//! ```
//!
//! Messages that nobody waits for stay in the mailbox. Of several who receive, each message goes to one. The sender
//! names a topic by a word before a colon: of the same topic, only the newest message is there to be received.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "this is a program, not the library")]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use slotlog::{Map, Result, Store};

/// Where the mailbox is, in the working directory.
const STORE: &str = "mailbox.slotlog";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [command] if command == "receive" => receive(),
        [command, words @ ..] if command == "send" && !words.is_empty() => send(&words.join(" ")),
        _ => {
            eprintln!("usage: mailbox receive | mailbox send MESSAGE");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailbox: {error}");
            ExitCode::FAILURE
        }
    }
}

/// From a topic to its newest message.
fn mailbox(store: &Store) -> Result<Map<str, str>> {
    store.map("mailbox")
}

fn send(message: &str) -> Result<()> {
    let store = Store::open(STORE)?;
    let (topic, text) = message.split_once(": ").unwrap_or((message, message));
    if let Some(missed) = mailbox(&store)?.replace(topic, text)? {
        println!("nobody has received {missed:?}");
    }
    store.close()
}

fn receive() -> Result<()> {
    let store = Store::open(STORE)?;
    let mailbox = mailbox(&store)?;
    loop {
        // Before looking, so that a message that comes in between is not slept over.
        let seen = store.seq()?;
        for message in mailbox.drain()? {
            let (topic, text) = message?;
            if topic == "stop" {
                return Ok(());
            }
            println!("{topic}: {text}");
        }
        store.wait_for_change(seen, Duration::from_secs(3600))?;
    }
}
