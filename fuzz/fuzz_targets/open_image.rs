//! Damaged and hostile files.
//!
//! Whatever the bytes of a file, opening and using it may report damage; it must not panic, hang or read other memory.
//! A file that `verify` calls clean must be readable, and stay clean whatever is done with it. A file that is not
//! opened for writing stays as it is.
//!
//! An input: four bytes of [`damaged`], the number of changes, the changes, and [the uses](slotlog_fuzz::uses).
#![no_main]

use std::fs;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use slotlog::{Access, Options, Store};
use slotlog_fuzz::image::{PATH, damaged, seal};
use slotlog_fuzz::uses::{Used, apply, not_damaged, verify};
use slotlog_fuzz::{head, instructions, scratch, split};

/// The most uses: further ones find nothing more.
const USES: usize = 40;

/// The known state of a store that goes through several openings.
struct Run {
    bits: u8,
    used: Used,
    /// `verify` called it clean.
    clean: bool,
}

impl Run {
    fn new(bits: u8) -> Run {
        // A sealed record may have a deadline.
        Run { bits, used: Used { expiring: bits & seal::RECORDS != 0 }, clean: false }
    }

    fn options(&self, access: Access) -> Options {
        let options = Store::options().access(access).lock_timeout(Duration::from_millis(50)).max_size(16 << 20);
        options.verify_reads(self.bits & seal::VERIFY_READS != 0)
    }

    /// Opens the store; a clean one must open again.
    fn open(&self, access: Access) -> Option<Store> {
        match self.options(access).open(&*PATH) {
            Ok(store) => Some(store),
            Err(error) => {
                assert!(!self.clean, "a clean store could not be opened again: {error}");
                None
            }
        }
    }

    fn verify(&mut self, store: &Store) {
        let clean = verify(store, self.used.expiring);
        assert!(clean || !self.clean, "a clean store is clean no more: {:#?}", store.verify());
        self.clean = clean;
    }

    fn apply(&mut self, store: &Store, step: [u8; 4]) -> Option<Access> {
        match apply(store, &mut self.used, step) {
            Ok(again) => again,
            Err(error) => {
                if self.clean && self.bits & seal::RECORDS == 0 {
                    not_damaged(&error);
                }
                None
            }
        }
    }
}

/// Opens the file without changing it.
fn look(bits: u8, access: Access, image: &[u8], uses: &[u8]) {
    let mut run = Run::new(bits);
    let Some(store) = run.open(access) else { return };
    run.verify(&store);
    for step in instructions(uses).take(USES) {
        run.apply(&store, *step);
    }
    run.verify(&store);
    drop(store);
    assert!(fs::read(&*PATH).unwrap() == image, "an opening for {access:?} has changed the file");
}

fuzz_target!(|input: &[u8]| {
    let Some(([base @ .., changes], rest)) = head::<5>(input) else { return };
    let (changes, uses) = split::<12>(rest, changes % 16);
    let (_, image) = damaged(base, changes);
    scratch::write(&PATH, &image);

    let bits = base[1];
    if bits & seal::NOT_READ == 0 {
        look(bits, Access::ReadOnly, &image, uses);
    }
    if bits & seal::NOT_ASIDE == 0 {
        look(bits, Access::CopyOnWrite, &image, uses);
    }
    let mut run = Run::new(bits);
    let Some(mut store) = run.open(Access::ReadWrite) else { return };
    run.verify(&store);
    // The verdict on a private copy says nothing of the file, which is as it was before.
    let mut of_file = None;
    for step in instructions(uses).take(USES) {
        if let Some(access) = run.apply(&store, *step) {
            drop(store);
            run.clean = of_file.take().unwrap_or(run.clean);
            if access == Access::CopyOnWrite {
                of_file = Some(run.clean);
            }
            match run.open(access) {
                Some(again) => store = again,
                None => return,
            }
        }
    }
    run.verify(&store);
    run.clean = of_file.unwrap_or(run.clean);
    if store.close().is_ok()
        && let Some(store) = run.open(Access::ReadWrite)
    {
        run.verify(&store);
    }
});
