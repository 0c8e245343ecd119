//! Backups that are killed at every store, cut off from power when they get their name, and whose calls fail.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::calls::Faults;
use super::kills::{STORES, Stop};
use super::medium::{Cuts, Image, Medium};
use super::support::setting;
use super::{Content, NAMED, Version, check, content, put, support};
use crate::engine::Engine;
use crate::engine::backup::options::BackupOptions;
use crate::engine::open::place::part_of;
use crate::engine::read::pinned::Pinned;
use crate::engine::settings::{Durability, Opened, Settings};
use crate::error::{Error, Result};
use crate::file::layout::{BLOCK, CREATION_MAGIC};
use crate::file::witness::{self, Call, Recorder};

/// A store in memory with this many keys in two maps, and its content. What happens to its memory is not looked at.
fn source(keys: u16) -> (Arc<Engine>, Content) {
    let engine = Arc::new(Engine::in_memory(Settings::default()).unwrap());
    let mut all = Content::new();
    for number in 0..keys {
        for at in [number, number | NAMED] {
            put(&engine, at, (1, 9)).unwrap();
            let new = (u32::from(number), u32::from(number % 90) + 5);
            put(&engine, at, new).unwrap();
            all.insert(at, new);
        }
    }
    assert_eq!(content(&engine).unwrap(), all);
    (engine, all)
}

fn back_up(engine: &Arc<Engine>, path: &Path, options: BackupOptions<'_>) -> Result<()> {
    let report = Pinned::here(engine)?.back_up(path, options)?;
    assert!(report.finished);
    Ok(())
}

/// Stops the process at a store, or at one of the last steps.
struct StopAtCalls(Stop);

impl Recorder for StopAtCalls {
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.0.write(offset, bytes);
    }
    fn store(&self, offset: u64, value: u64) {
        self.0.store(offset, value);
    }
    fn flush(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.flush(offset, len)
    }
    fn set_len(&self, len: u64) {
        self.0.set_len(len);
    }
    fn call(&self, call: Call) -> io::Result<()> {
        if matches!(call, Call::Rename | Call::Folder) {
            self.0.set_len(0);
        }
        Ok(())
    }
}

#[test]
#[ignore = "what another test starts in a process of its own"]
fn child() {
    let Some((_, path)) = support::role() else { return };
    let (engine, _) = source(60);
    let left = AtomicU64::new(std::env::var(STORES).unwrap().parse().unwrap());
    let _standing = witness::stand(Arc::new(StopAtCalls(Stop { left })));
    back_up(&engine, &path, BackupOptions::new()).unwrap();
    support::say("ended");
    std::process::exit(0);
}

/// Runs the child until its nth store or call, and says whether it came to its end.
fn run_until(path: &Path, stores: u64) -> bool {
    let mut child = support::child_of("engine::tests::faults::backup::child", "killed", path);
    let mut child = child.env(STORES, stores.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| support::said(&line.unwrap()).map(str::to_owned)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    said == "ended"
}

#[test]
fn a_kill_at_every_store_of_a_backup() {
    let folder = support::folder();
    let (engine, expected) = source(60);
    let (mut kills, mut begun, mut named) = (0, 0, 0);
    let step = setting("SLOTLOG_TEST_STEP", 1);
    loop {
        let path = folder.path().join(kills.to_string());
        let ended = run_until(&path, kills);
        begun += u64::from(part_of(&path).exists());
        if path.exists() {
            named += 1;
            let copy = Engine::open(&path, Settings { create: false, ..Settings::default() }).unwrap();
            assert_eq!(copy.opened, Opened::Clean, "killed at store {kills}");
            assert_eq!(content(&copy).unwrap(), expected, "killed at store {kills}");
            check(&copy).unwrap();
        } else {
            assert!(!ended);
        }
        // The next backup takes the place of what is left.
        back_up(&engine, &path, BackupOptions::new().overwrite(true)).unwrap();
        let copy = Engine::open(&path, Settings { create: false, ..Settings::default() }).unwrap();
        assert_eq!(content(&copy).unwrap(), expected, "killed at store {kills}");
        assert!(!part_of(&path).exists());
        fs::remove_file(&path).unwrap();
        if ended {
            break;
        }
        kills += step;
    }
    println!("{kills} stores and calls; {begun} unfinished files, {named} with a name");
    assert!(kills > 200 && begun > kills / step / 2 && named > 1, "{kills}, {begun}, {named}");
}

/// A disk under the unfinished file, which is looked at when the file gets its name.
struct AtName {
    medium: Arc<Medium>,
    images: Mutex<Vec<Image>>,
    changed_since: AtomicBool,
}

impl Recorder for AtName {
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.changed_since.store(true, Ordering::SeqCst);
        self.medium.write(offset, bytes);
    }
    fn store(&self, offset: u64, value: u64) {
        self.changed_since.store(true, Ordering::SeqCst);
        self.medium.store(offset, value);
    }
    fn flush(&self, offset: u64, len: u64) -> io::Result<()> {
        self.medium.flush(offset, len)
    }
    fn set_len(&self, len: u64) {
        self.changed_since.store(true, Ordering::SeqCst);
        self.medium.set_len(len);
    }
    fn call(&self, call: Call) -> io::Result<()> {
        if call == Call::Rename {
            self.medium.state().most_images = 300;
            for _ in 0..600 {
                self.medium.cut_now();
            }
            self.medium.state().cuts = Cuts::Exhaustive;
            self.medium.cut_now();
            *self.images.lock().unwrap() = std::mem::take(&mut self.medium.state().images);
            self.changed_since.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Whatever of the unflushed stores has reached the disk when a backup gets its name, it is whole.
#[test]
fn a_power_cut_leaves_a_whole_backup_under_its_name() {
    for keys in [0, 60, 900] {
        let folder = support::folder();
        let path = folder.path().join("copy");
        let (engine, expected) = source(keys);
        let mut mark = CREATION_MAGIC.to_vec();
        mark.resize(BLOCK as usize, 0);
        let medium = Medium::of_image(&Image::blank(mark), Cuts::Sampled, u64::from(keys) + 1);
        medium.state().most_images = 0;
        medium.state().contents = vec![Version::new(expected)];
        let disk = Arc::new(AtName { medium, images: Mutex::default(), changed_since: AtomicBool::new(false) });
        let standing = witness::stand(disk.clone());
        back_up(&engine, &path, BackupOptions::new()).unwrap();
        drop(standing);
        assert!(!disk.changed_since.load(Ordering::SeqCst), "nothing is stored once it has its name");
        let images = std::mem::take(&mut *disk.images.lock().unwrap());
        assert!(images.len() > 300, "{} images", images.len());
        let cut = folder.path().join("cut");
        for image in &images {
            fs::write(&cut, &image.bytes).unwrap();
            let opened = Engine::open(&cut, Settings { create: false, ..Settings::default() });
            let copy = opened.unwrap_or_else(|error| panic!("{}: {error}", image.cut));
            assert_eq!(content(&copy).unwrap(), image.accepted[0].content, "{}", image.cut);
            check(&copy).unwrap();
            drop(copy);
            fs::remove_file(&cut).unwrap();
        }
    }
}

/// The calls that matter, in their order.
#[derive(Default)]
struct Order(Mutex<Vec<Call>>);

impl Recorder for Order {
    fn call(&self, call: Call) -> io::Result<()> {
        if matches!(call, Call::Flush | Call::Rename | Call::Folder) {
            self.0.lock().unwrap().push(call);
        }
        Ok(())
    }
}

#[test]
fn the_folder_is_flushed_after_the_name_is_given() {
    let (engine, _) = source(20);
    for (durability, last) in [(Durability::Synced, Call::Folder), (Durability::Buffered, Call::Rename)] {
        for overwrite in [false, true] {
            let folder = support::folder();
            let order = Arc::new(Order::default());
            let standing = witness::stand(order.clone());
            let options = BackupOptions::new().durability(durability).overwrite(overwrite);
            back_up(&engine, &folder.path().join("copy"), options).unwrap();
            drop(standing);
            let calls = std::mem::take(&mut *order.0.lock().unwrap());
            assert_eq!(calls.iter().filter(|&&call| call == Call::Rename).count(), 1);
            assert_eq!(calls.last(), Some(&last), "{calls:?}");
            let named = calls.iter().position(|&call| call == Call::Rename).unwrap();
            assert!(calls[..named].contains(&Call::Flush) && !calls[named..].contains(&Call::Flush), "{calls:?}");
        }
    }
}

/// Checks what is left of a backup that has failed: nothing, and the next one succeeds.
fn check_failed(folder: &Path, engine: &Arc<Engine>, before: Option<&[u8]>, note: &str) {
    let path = folder.join("copy");
    assert!(fs::read(&path).ok().as_deref() == before, "{note}: the file that was there has changed, or a new one is");
    if part_of(&path).exists() {
        // Several failures in a row also keep what has failed from being cleaned up. The next one does that.
        assert!(note.starts_with("Lock"), "{note}");
        back_up(engine, &path, BackupOptions::new().overwrite(true)).unwrap();
        assert!(!part_of(&path).exists(), "{note}");
    }
    back_up(engine, &folder.join("another"), BackupOptions::new()).unwrap();
    fs::remove_file(folder.join("another")).unwrap();
}

#[test]
fn a_call_that_fails_leaves_nothing_behind() {
    let (engine, expected) = source(300);
    let calls = [Call::Allocate, Call::Truncate, Call::Length, Call::Map, Call::Flush, Call::WriteBack, Call::Append];
    let mut all_calls = 0;
    for kind in calls.into_iter().chain([Call::Lock, Call::Barrier, Call::Rename, Call::Folder]) {
        for (overwrite, count) in [(false, 1), (true, 1), (true, 3)] {
            for first in 0.. {
                let folder = support::folder();
                let path = folder.path().join("copy");
                if overwrite {
                    drop(Engine::open(&path, Settings::default()).unwrap());
                }
                let before = fs::read(&path).ok();
                let (calls, failed) = (AtomicU64::new(0), AtomicBool::new(false));
                let faults = Arc::new(Faults { kind, first, count, truncate_too: false, calls, failed });
                let standing = witness::stand(faults.clone());
                let done = back_up(&engine, &path, BackupOptions::new().overwrite(overwrite));
                drop(standing);
                all_calls += 1;
                match &done {
                    Ok(()) => {
                        let copy = Engine::open(&path, Settings { create: false, ..Settings::default() }).unwrap();
                        assert_eq!(content(&copy).unwrap(), expected, "{kind:?} {first}");
                        check(&copy).unwrap();
                    }
                    // The last step: it has its name, and is whole.
                    Err(Error::Io { doing: "flush the folder", .. })
                        if path.exists() && fs::read(&path).ok() != before =>
                    {
                        let copy = Engine::open(&path, Settings { create: false, ..Settings::default() }).unwrap();
                        assert_eq!(content(&copy).unwrap(), expected, "{kind:?} {first}");
                    }
                    Err(Error::Io { .. } | Error::Full { .. } | Error::Poisoned { .. }) => {
                        let note = format!("{kind:?} {first}: {done:?}");
                        check_failed(folder.path(), &engine, before.as_deref(), &note);
                    }
                    Err(error) => panic!("{kind:?} {first}: {error:?}"),
                }
                if !faults.failed.load(Ordering::SeqCst) {
                    assert!(done.is_ok());
                    break;
                }
            }
        }
    }
    assert!(all_calls > 60, "{all_calls} calls");
}

/// A disk that is full from this length of a file on.
struct FullFrom(u64);

impl Recorder for FullFrom {
    fn allocate(&self, _file: &File, to: u64) -> io::Result<()> {
        if to <= self.0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

#[test]
fn a_full_disk_is_cleaned_up() {
    let (engine, expected) = source(3000);
    let folder = support::folder();
    let path: PathBuf = folder.path().join("copy");
    let mut refused = 0;
    for len in (0..).step_by(40_000) {
        let standing = witness::stand(Arc::new(FullFrom(len)));
        let done = back_up(&engine, &path, BackupOptions::new());
        drop(standing);
        match done {
            Ok(()) => break,
            Err(Error::Full { path: full, .. }) => assert_eq!(full, part_of(&path)),
            Err(error) => panic!("{len}: {error:?}"),
        }
        refused += 1;
        check_failed(folder.path(), &engine, None, "full");
    }
    assert!(refused > 5, "{refused}");
    assert_eq!(content(&Engine::open(&path, Settings::default()).unwrap()).unwrap(), expected);
}
