//! Where a target keeps its files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, mem};

/// A folder that no other process uses, in memory if there is such a place.
///
/// The fuzzer ends its process without a chance to clean up. So the folders have numbers, and the first one that nobody
/// has locked is used again.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    for number in 0..1000 {
        let folder = root.join(format!("slotlog-fuzz-{number}"));
        // Both fail if the folder belongs to another user.
        let _ = fs::create_dir(&folder);
        let Ok(lock) = File::create(folder.join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            // Held for as long as the process lives.
            mem::forget(lock);
            return folder;
        }
    }
    panic!("no folder to be had in {}", root.display());
}

/// Makes this the content of a file, which stays the same file: that is what a killed store has to be found in.
pub fn write(path: &Path, image: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all(image).unwrap();
    file.set_len(image.len() as u64).unwrap();
}
