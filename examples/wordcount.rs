//! Counts the words of files and folders, and keeps the counts in a store, so that each run adds to those before it:
//!
//! ```text
//! cargo run --release --example wordcount -- README.md src
//! ```
//!
//! The words of a file are counted in memory and then added to the store in one transaction. Ctrl-C at any moment
//! therefore leaves whole files: all words of one are in the store, or none is.

#![allow(clippy::print_stderr, reason = "this is a program, not the library")]

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use indicatif::{ProgressBar, ProgressStyle};
use slotlog::Store;
use walkdir::WalkDir;

/// Where the counts are kept, in the working directory.
const STORE: &str = "wordcount.slotlog";

/// How many of the most frequent words are printed.
const TOP: usize = 10;

/// A longer "word", in bytes, is data that happens to be letters, and could be longer than a key may be.
const LONGEST_WORD: usize = 256;

/// Whatever goes wrong ends up as a message on the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        eprintln!("usage: wordcount FILE_OR_FOLDER...");
        return ExitCode::from(2);
    }
    match run(&paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(paths: &[PathBuf]) -> Result<()> {
    let files = list(paths)?;
    let store = Store::open(STORE)?;
    let counted = count_files(&store, &files)?;
    let mut text = summary(&store)?;
    // Closing by hand, because dropping the store could not tell us that it failed.
    store.close()?;
    writeln!(
        text,
        "this run:   {} files, {} words, {} files skipped as not readable text",
        counted.files, counted.words, counted.skipped
    )?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// The files below `paths`, each once, without the store itself. Links within folders are not followed.
fn list(paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for path in paths {
        // Before anything is counted, so that a mistyped path does not leave half a run in the store.
        let root = fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for entry in WalkDir::new(root) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => _ = files.insert(entry.into_path()),
                Ok(_) => {}
                Err(error) => eprintln!("wordcount: left out: {error}"),
            }
        }
    }
    if let Ok(store) = fs::canonicalize(STORE) {
        files.remove(&store);
    }
    Ok(files)
}

/// What one run has done.
#[derive(Default)]
struct Counted {
    files: u64,
    words: u64,
    skipped: u64,
}

fn count_files(store: &Store, files: &BTreeSet<PathBuf>) -> Result<Counted> {
    let mut counted = Counted::default();
    // It draws on standard error, and only if that is a terminal.
    let progress = ProgressBar::new(files.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left  {wide_msg}")?);
    for file in progress.wrap_iter(files.iter()) {
        progress.set_message(file.display().to_string());
        match fs::read_to_string(file) {
            Ok(text) => {
                let counts = count_words(&text);
                add(store, &counts).map_err(|error| format!("{}: {error}", file.display()))?;
                counted.files += 1;
                counted.words += counts.values().sum::<u64>();
            }
            Err(error) => {
                counted.skipped += 1;
                // Not being UTF-8 text is nothing to complain about.
                if error.kind() != io::ErrorKind::InvalidData {
                    progress.suspend(|| eprintln!("wordcount: skipped: {}: {error}", file.display()));
                }
            }
        }
    }
    progress.finish_and_clear();
    Ok(counted)
}

/// The words of a text, in lower case, each with how often it occurs. A word consists of letters, digits and
/// apostrophes.
fn count_words(text: &str) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    let words = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .map(|word| word.trim_matches('\'').to_lowercase())
        .filter(|word| (1..=LONGEST_WORD).contains(&word.len()));
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Adds counts to those in the store: all of them, or none if anything goes wrong.
fn add(store: &Store, counts: &HashMap<String, u64>) -> Result<()> {
    let mut transaction = store.begin()?;
    for (word, count) in counts {
        let before = match transaction.get(word)? {
            Some(value) => decode(word.as_bytes(), &value)?,
            None => 0,
        };
        transaction.insert(word, before.saturating_add(*count).to_le_bytes())?;
    }
    transaction.commit()?;
    Ok(())
}

/// The most frequent words in the store, and its totals.
fn summary(store: &Store) -> Result<String> {
    // One commit's view: other threads could go on counting.
    let snapshot = store.snapshot()?;
    let mut words = Vec::new();
    for entry in &snapshot {
        let (word, value) = entry?;
        words.push((decode(word, value)?, word));
    }
    let total = words.iter().fold(0, |total: u64, &(count, _)| total.saturating_add(count));
    words.sort_unstable_by_key(|&(count, word)| (std::cmp::Reverse(count), word));

    let mut text = String::new();
    for (count, word) in words.iter().take(TOP) {
        writeln!(text, "{count:>10}  {}", String::from_utf8_lossy(word))?;
    }
    writeln!(text, "all runs:   {} distinct words, {total} words in {STORE}", snapshot.len())?;
    Ok(text)
}

/// The count that a value holds.
fn decode(word: &[u8], value: &[u8]) -> Result<u64> {
    let bytes = value.try_into().map_err(|_| format!("{STORE}: {:?} has no count", String::from_utf8_lossy(word)))?;
    Ok(u64::from_le_bytes(bytes))
}
