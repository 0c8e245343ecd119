//! What must not be written over.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use slotlog::format::{CREATION_MAGIC, MAGIC};

use super::figures::printable;

/// Makes sure that a file that is written anew is no store: what is printed about a store must not take its place.
pub fn spare_store(path: &Path) -> Result<(), String> {
    let is_file = std::fs::metadata(path).is_ok_and(|there| there.is_file());
    let mut magic = [0; 8];
    // What cannot be read is refused by whoever writes to it, if it cannot be written.
    let is_read = is_file && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok();
    match &magic {
        &MAGIC | &CREATION_MAGIC if is_read => {
            Err(format!("{}: is a store, and left unchanged; choose another path", printable(path)))
        }
        _ => Ok(()),
    }
}
