//! Folders, repeatable random numbers, settings, and parts of a test that run in their own process: for the tests of
//! the public interface and of the engine.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A folder in memory if the system has one: these tests are not about the disk, and real flushes would take most of
/// their time.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Random numbers (SplitMix64: Steele, Lea and Flood, 2014): the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// The emulator with its arguments, if this runs in one. `.ci/platforms` sets it.
const RUNNER: &str = "SLOTLOG_TEST_RUNNER";
const ROLE: &str = "SLOTLOG_TEST_ROLE";
const STORE: &str = "SLOTLOG_TEST_STORE";

/// This test program, about to play `role` with the store at `path` in its own process. The test file must have a test
/// named `child` for that, which acts on [`role`] and is ignored otherwise.
pub(crate) fn child(role: &str, path: &Path) -> Command {
    child_of("child", role, path)
}

/// Like [`child`], if the test that plays the role has another name.
pub(crate) fn child_of(test: &str, role: &str, path: &Path) -> Command {
    let mut command = command(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(ROLE, role).env(STORE, path);
    command
}

/// A program built for the same machine as this one: if that is emulated, only the emulator can start it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let runner = std::env::var(RUNNER).unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// An example of this crate, about to run in `folder`.
pub(crate) fn example(name: &str, folder: &Path) -> Command {
    static BUILDING: Mutex<()> = Mutex::new(());
    // This program is in `<target>/<profile>/deps`, and examples are in `<target>/<profile>/examples`.
    let this = std::env::current_exe().unwrap();
    let profile = this.ancestors().nth(2).unwrap();
    let program = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    // `cargo test` builds the examples, but with `--test` or `--all-targets` it does not.
    if !program.exists() {
        let of_profile = profile.file_name().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", name, "--profile"]);
        build.arg(if of_profile == "debug" { "dev".as_ref() } else { of_profile });
        build.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success());
    }
    drop(turn);
    let mut command = command(program);
    command.current_dir(folder);
    command
}

/// A number from the environment, for tests that can run longer than usual.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// The role of this process and its store; `None` in the process that the user started.
pub(crate) fn role() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(STORE)?.into()))
}

/// Runs a role to its end, and returns the lines that it [said](say).
pub(crate) fn run_child(role: &str, path: &Path) -> Vec<String> {
    let output = child(role, path).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the child `{role}` ended with {}:\n{stdout}\n{stderr}", output.status);
    stdout.lines().filter_map(said).map(str::to_owned).collect()
}

/// Waits until the parent process closes the pipe, or is gone.
pub(crate) fn until_stopped() {
    use std::io::Read;

    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Becomes true when the parent process wants this one to stop, or is gone.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    thread::spawn(move || {
        until_stopped();
        flag.store(true, Ordering::SeqCst);
    });
    stop
}

/// Says something to the parent process.
pub(crate) fn say(what: &str) {
    use std::io::Write;

    let mut out = std::io::stdout().lock();
    // In one write, so that a kill leaves a whole line or none.
    out.write_all(format!("\n>{what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Receives what a child says, as it says it. Its output must be a pipe.
pub(crate) fn listen(child: &mut Child) -> Receiver<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(said) = said(&line) {
                // There may be no receiver any more.
                let _ = sender.send(said.to_owned());
            }
        }
    });
    lines
}

/// The content of a line of a child's output, if [`say`] has written it.
pub(crate) fn said(line: &str) -> Option<&str> {
    line.strip_prefix('>')
}

/// Overwrites bytes in a file.
pub(crate) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};

    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}
