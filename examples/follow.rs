//! A read replica: one process serves the change feed of a store over TCP, another keeps a copy that can be read all
//! the time.
//!
//! ```text
//! cargo run --example follow -- serve app.slotlog 127.0.0.1:7070
//! cargo run --example follow -- copy 127.0.0.1:7070 replica.slotlog my-replica
//! ```
//!
//! The store may be written by any process meanwhile, and the copy read by any. Either side may be killed and started
//! again: the copy says which commit it has, and gets what came after. If the leader no longer has that in its log, it
//! sends a backup instead. A bookmark under the copy's name keeps the log for it, up to a limit.
//!
//! The protocol, with all numbers little-endian:
//!
//! ```text
//! copy → leader   length of its name, 2 bytes; its name; UUID of its origin, 36 bytes; that commit's number, 8 bytes
//! leader → copy   1 byte: what follows
//!     CHANGES     again and again: length, 8 bytes, and so many bytes of commits; the copy answers each such piece
//!                 with the number of its last commit, 8 bytes. An empty piece asks whether it is still there.
//!     BACKUP      length, 8 bytes, and a store, which takes the place of the copy. Then the copy begins anew.
//! ```
//!
//! There is no encryption and no password here: use it on a loopback address, or through a tunnel.

#![allow(clippy::print_stderr, reason = "this is a program, not the library")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use slotlog::{BackupOptions, Feed, Seq, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CHANGES: u8 = 1;
const BACKUP: u8 = 2;

/// Commits are sent together until they have so many bytes.
const PIECE: usize = 1 << 20;
/// How many bytes of the log are kept for a copy that is away.
const KEPT: u64 = 1 << 30;
/// How often the leader asks whether the copy is still there, and moves its bookmark on.
const OFTEN: Duration = Duration::from_secs(1);
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// The UUID of a copy that has none yet.
const NONE: &str = "00000000-0000-0000-0000-000000000000";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", store, address] => serve(store.as_ref(), address),
        ["copy", address, copy, name] => follow(address, copy.as_ref(), name),
        _ => {
            eprintln!("usage: follow serve STORE ADDRESS | follow copy ADDRESS COPY NAME");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("follow: {error}");
            ExitCode::FAILURE
        }
    }
}

// The leader.

/// Serves the feed of a store to any number of copies, until it is stopped.
fn serve(path: &Path, address: &str) -> Result<()> {
    let store = Store::open(path)?;
    let listener = TcpListener::bind(address)?;
    say(&format!("serving on {}", listener.local_addr()?));
    for stream in listener.incoming() {
        let (store, path) = (store.clone(), path.to_owned());
        thread::spawn(move || {
            if let Err(error) = stream.map_err(Into::into).and_then(|stream| serve_one(&store, &path, stream)) {
                say(&format!("a copy has left: {error}"));
            }
        });
    }
    Ok(())
}

fn serve_one(store: &Store, path: &Path, stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (BufReader::new(stream.try_clone()?), BufWriter::new(stream));
    let name_len = u16::from_le_bytes(receive(&mut input)?);
    let name = receive_text(&mut input, name_len.into())?;
    let (uuid, seq) = (receive_text(&mut input, 36)?, u64::from_le_bytes(receive(&mut input)?));
    let feed = if uuid == store.stats()?.uuid { store.changes(seq) } else { store.changes(u64::MAX) };
    match feed {
        Ok(feed) => send_changes(store, &name, feed, (&mut input, &mut output)),
        Err(slotlog::Error::HistoryTruncated { .. }) => send_backup(store, path, &name, &mut output),
        Err(error) => Err(error.into()),
    }
}

/// Sends what comes, for as long as the copy is there.
fn send_changes(
    store: &Store,
    name: &str,
    mut feed: Feed,
    (input, output): (&mut impl Read, &mut impl Write),
) -> Result<()> {
    output.write_all(&[CHANGES])?;
    let mut piece = Vec::new();
    let mut marked: Option<(u64, Instant)> = None;
    loop {
        piece.clear();
        if let Some(commit) = feed.wait_for_commit(OFTEN)? {
            commit.write_to(&mut piece)?;
        }
        while piece.len() < PIECE {
            let Some(commit) = feed.next_commit()? else { break };
            commit.write_to(&mut piece)?;
        }
        output.write_all(&(piece.len() as u64).to_le_bytes())?;
        output.write_all(&piece)?;
        output.flush()?;
        let applied = u64::from_le_bytes(receive(input)?);
        // Each bookmark is a commit of its own, so there is not one for each piece.
        if marked.is_none_or(|(seq, when)| seq != applied && when.elapsed() > OFTEN) {
            store.set_bookmark(name, applied, KEPT)?;
            marked = Some((applied, Instant::now()));
        }
    }
}

/// Sends the whole store, as it is now.
fn send_backup(store: &Store, path: &Path, name: &str, output: &mut impl Write) -> Result<()> {
    let mut backup = path.as_os_str().to_owned();
    backup.push(format!(".for-{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
    let backup = PathBuf::from(backup);
    // The log is kept from before the backup on, so that the copy can go on after it.
    store.set_bookmark(name, store.seq()?, KEPT)?;
    store.backup_with(&backup, BackupOptions::new().overwrite(true))?;
    let mut file = File::open(&backup)?;
    output.write_all(&[BACKUP])?;
    output.write_all(&file.metadata()?.len().to_le_bytes())?;
    io::copy(&mut file, output)?;
    output.flush()?;
    fs::remove_file(&backup)?;
    Ok(())
}

// The copy.

/// Keeps a copy up to date, until it is stopped.
fn follow(address: &str, path: &Path, name: &str) -> Result<()> {
    let (mut was, mut begins_again) = (String::new(), false);
    loop {
        let Err(error) = follow_once(address, path, name, begins_again) else {
            begins_again = false;
            continue;
        };
        // An older file was put in the leader's place, and has other commits with the same numbers.
        begins_again = matches!(error.downcast_ref(), Some(slotlog::Error::CannotFollow { .. }));
        if error.to_string() != was {
            was = error.to_string();
            say(&format!("trying again: {was}"));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Follows as long as the connection holds, or takes a backup over.
fn follow_once(address: &str, path: &Path, name: &str, begins_again: bool) -> Result<()> {
    let copy = Store::open(path)?;
    let origin = copy.origin()?.filter(|_| !begins_again);
    let (uuid, seq) = origin.as_ref().map_or((NONE, Seq::ZERO), |origin| (origin.store.as_str(), origin.seq));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&u16::try_from(name.len())?.to_le_bytes())?;
    stream.write_all(name.as_bytes())?;
    stream.write_all(uuid.as_bytes())?;
    stream.write_all(&u64::from(seq).to_le_bytes())?;
    let mut input = BufReader::new(stream.try_clone()?);
    let [kind] = receive(&mut input)?;
    match kind {
        CHANGES => {
            say(&format!("following from commit {seq:#x}"));
            apply_changes(&copy, seq, &mut input, &mut stream)
        }
        BACKUP => {
            copy.close()?;
            take_backup(path, &mut input)?;
            say("taken a backup");
            Ok(())
        }
        other => Err(format!("the leader says {other}, which is nothing that this program knows").into()),
    }
}

fn apply_changes(copy: &Store, mut seq: Seq, input: &mut impl Read, output: &mut impl Write) -> Result<()> {
    let mut piece = Vec::new();
    loop {
        let len = u64::from_le_bytes(receive(input)?);
        piece.clear();
        // What was announced takes no memory before it is there.
        if input.take(len).read_to_end(&mut piece)? as u64 != len {
            return Err("the leader is gone".into());
        }
        let mut left = &piece[..];
        while let Some(applied) = copy.apply_from(&mut left)? {
            seq = applied;
        }
        output.write_all(&u64::from(seq).to_le_bytes())?;
    }
}

/// Puts a store that is received in the place of the copy. Those that have the old one open go on reading that.
fn take_backup(path: &Path, input: &mut impl Read) -> Result<()> {
    let mut incoming = path.as_os_str().to_owned();
    incoming.push(".incoming");
    let incoming = PathBuf::from(incoming);
    let len = u64::from_le_bytes(receive(input)?);
    let mut file = File::create(&incoming)?;
    if io::copy(&mut input.take(len), &mut file)? != len {
        return Err("the leader is gone".into());
    }
    file.sync_all()?;
    // It holds, and is a copy of something.
    let received = Store::options().create(false).open(&incoming)?;
    if received.origin()?.is_none() {
        return Err("what the leader sent is no backup".into());
    }
    received.close()?;
    fs::rename(&incoming, path)?;
    Ok(())
}

// Both.

/// Says what happens, to whoever listens.
fn say(what: &str) {
    let _ = writeln!(io::stdout(), "{what}");
}

fn receive<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn receive_text(input: &mut impl Read, len: u64) -> Result<String> {
    let mut bytes = Vec::new();
    input.take(len).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes)?)
}
