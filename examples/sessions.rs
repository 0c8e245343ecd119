//! Twenty short-lived processes, one a session, that share one store: as command-line helpers, language servers and
//! agents do. One of them dies in the middle of a transaction, and none of the others notices.
//!
//! ```text
//! cargo run --release --example sessions
//! ```
//!
//! It starts itself again for each session. Run it twice: the store goes on from where it was.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "this is a program, not the library")]

use std::error::Error;
use std::process::{Command, ExitCode};
use std::{env, io, process};

use slotlog::{Map, Store};

/// Where the sessions keep what they know, in the working directory.
const STORE: &str = "sessions.slotlog";

/// How many of them run at the same time, and how many notes each takes.
const SESSIONS: u32 = 20;
const NOTES: u32 = 10;

/// The session that dies.
const UNLUCKY: u32 = 7;

/// Whatever goes wrong ends up as a message on the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What all sessions share: how many there were, and what they have noted, by session and number.
struct Shared {
    store: Store,
    counts: Map<str, u64>,
    notes: Map<(u64, u32), str>,
}

fn main() -> ExitCode {
    let outcome = match env::args().nth(1) {
        None => start_all(),
        Some(number) => number.parse().map_err(Into::into).and_then(session),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sessions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn open() -> Result<Shared> {
    let store = Store::open(STORE)?;
    Ok(Shared { counts: store.map("counts")?, notes: store.map("notes")?, store })
}

/// What one process does: it opens the store, writes, and is gone.
fn session(number: u32) -> Result<()> {
    let Shared { store, counts, notes } = open()?;
    // All of it or nothing, and no session gets the number of another.
    let mut transaction = store.begin()?;
    let me = transaction.of(&counts).get("sessions")?.unwrap_or(0) + 1;
    transaction.of(&counts).insert("sessions", me)?;
    for note in 0..NOTES {
        transaction.of(&notes).insert((me, note), format!("process {}", process::id()))?;
        if number == UNLUCKY && note == NOTES / 2 {
            // As if it were killed: nothing is dropped, nothing is closed.
            process::exit(1);
        }
    }
    transaction.commit()?;
    drop((counts, notes));
    Ok(store.close()?)
}

fn start_all() -> Result<()> {
    let program = env::current_exe()?;
    let start = |number: u32| Command::new(&program).arg(number.to_string()).spawn();
    let mut sessions = (0..SESSIONS).map(start).collect::<io::Result<Vec<_>>>()?;
    let mut finished = 0;
    for session in &mut sessions {
        finished += u32::from(session.wait()?.success());
    }
    println!("{finished} sessions finished, {} died in a transaction", SESSIONS - finished);

    let Shared { store, counts, notes } = open()?;
    let snapshot = store.snapshot()?;
    let count = snapshot.of(&counts).get("sessions")?.unwrap_or(0);
    println!("{count} sessions are counted, and {} notes are in the store", snapshot.of(&notes).len()?);
    Ok(())
}
