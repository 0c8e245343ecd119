//! The command line `slotlog`, run as a user runs it.

#![cfg(feature = "cli")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod bytes;
mod care;
mod formats;
mod keys;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod pages;
mod places;
#[cfg(unix)]
mod screen;
#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use slotlog::{Codec, Store};
use support::{everything_in, read_only};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_slotlog");

/// A folder, and the turn of a test. While a program is started, it has all open files of this process until it really
/// runs, and with them the lock of a store that another test is just closing; so the tests take turns.
struct Place {
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    fn new() -> Place {
        static TURN: Mutex<()> = Mutex::new(());
        // A failed test must not make the others fail.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Place { folder: support::folder(), _turn: turn }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = support::command(PROGRAM);
        command.current_dir(self.folder.path()).env_remove("COLUMNS").stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(&self.command().args(arguments).output().unwrap())
    }

    /// Runs the words of a line; there are no quotes.
    fn line(&self, line: &str) -> Ran {
        self.run(line.split(' '))
    }

    fn with_input(&self, line: &str, input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.spawn(line);
        // It may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Ran::of(&child.wait_with_output().unwrap())
    }

    fn spawn(&self, line: &str) -> Child {
        let mut command = self.command();
        command.args(line.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Names in the folder.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|at| at.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A store with a default map, typed maps, deadlines, and keys that are no text.
    fn example(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        let store = Store::open(&path).unwrap();
        let far = slotlog_far();
        for (key, value) in [
            (&b"alice"[..], &b"3 visits"[..]),
            (b"", b"the empty key"),
            (b"empty", b""),
            (b"\xff\xfe", b"\x00\x01\n\t\\"),
            ("gr\u{fc}n".as_bytes(), "\u{4e2d}".as_bytes()),
        ] {
            store.insert(key, value).unwrap();
        }
        store.insert_with_expiry("later", "gone", far).unwrap();
        let ages = store.map::<str, u32>("ages").unwrap();
        ages.insert("Ada", 36).unwrap();
        ages.insert_with_expiry("Grace", 85, far).unwrap();
        type Mixed = (Option<bool>, Vec<f32>, String);
        store
            .map_versioned::<(i8, char), Mixed>("mixed", 7)
            .unwrap()
            .insert((-1, 'x'), (Some(true), vec![0.1, f32::INFINITY, -0.0], "a \"b\"\n".to_owned()))
            .unwrap();
        store.map::<u64, ()>("set of numbers").unwrap().insert(u64::MAX, ()).unwrap();
        store.map::<[u8; 2], f64>("floats").unwrap().insert([255, 0], f64::NAN).unwrap();
        store.map::<str, Odd>("odd").unwrap().insert("bytes", vec![1, 2, 255]).unwrap();
        store.map::<str, str>("\u{7}nothing in it").unwrap();
        // Bytes that are no values of the types.
        let damaged = store.map_as_bytes("ages").unwrap();
        damaged.insert(&b"\xff"[..], &b"abc"[..]).unwrap();
        damaged.insert(&b"none"[..], &b""[..]).unwrap();
        drop((ages, damaged));
        store.close_last().unwrap();
        path
    }
}

fn slotlog_far() -> std::time::SystemTime {
    std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(4_102_444_800_123)
}

/// A codec of a program, which no tool knows.
struct Odd;

impl Codec for Odd {
    type Borrowed = [u8];
    type Owned = Vec<u8>;

    fn name() -> String {
        "odd".to_owned()
    }

    fn encode(value: &[u8]) -> Result<impl AsRef<[u8]>, slotlog::CodecError> {
        Ok(value)
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, slotlog::CodecError> {
        Ok(bytes.to_vec())
    }
}

/// Whether a shell cannot start the program, since an emulator has to.
#[cfg(unix)]
fn is_emulated() -> bool {
    let emulated = std::env::var_os("SLOTLOG_TEST_RUNNER").is_some();
    if emulated {
        eprintln!("skipped: a shell cannot start the program in the emulator");
    }
    emulated
}

/// What a program has printed, and how it has ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
    bytes: Vec<u8>,
}

impl Ran {
    fn of(output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Ran { code: output.status.code(), out, err, bytes: output.stdout.clone() }
    }

    /// It has done what it was to do, and had nothing else to say.
    #[track_caller]
    fn prints(&self, expected: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(0), expected, ""), "{self:?}");
    }

    /// It has done what it was to do.
    #[track_caller]
    fn done(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }

    /// The answer is no.
    #[track_caller]
    fn says_no(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        &self.out
    }

    /// An error, in one line that has all of these.
    #[track_caller]
    fn fails(&self, what: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(2), ""), "{self:?}");
        assert!(self.err.starts_with("slotlog: ") && self.err.lines().count() == 1, "{self:?}");
        for what in what {
            assert!(self.err.contains(what), "{what}: {self:?}");
        }
    }

    fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.out.lines().collect();
        lines.sort_unstable();
        lines
    }
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|path| everything_in(&read_only(path).unwrap()));
    assert_eq!(one, other);
}
