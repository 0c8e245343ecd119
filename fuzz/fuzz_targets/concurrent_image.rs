//! A file whose bytes change while it is opened for reading.
//!
//! A reader without a pin copies bytes that others may be writing, so it may see any mixture. It may give a wrong
//! answer or an error; it must not crash, allocate by an unchecked length, or run for ever. First another thread
//! changes words back and forth, then some changes stay.
//!
//! An input: four bytes of [`damaged`], the number of changes that come and go, and changes; the remaining ones stay.
//!
//! Reading in place, as snapshots do, and writing are left out: both trust the other processes, see the crate's
//! documentation.
#![no_main]

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use libfuzzer_sys::fuzz_target;
use slotlog::{Access, Map, Store};
use slotlog_fuzz::image::{PATH, damaged, key, seal};
use slotlog_fuzz::{head, instructions, scratch, split};

/// How often the changes come and go.
const ROUNDS: usize = 50;

type Places = Vec<(u64, Vec<u8>)>;

fn read(store: &Store, map: Option<&Map<u8, [u8]>>) {
    for number in 0..52 {
        let _ = black_box((store.get(key(number)), store.contains_key(key(number))));
    }
    if let Some(map) = map {
        for number in 0..14 {
            let _ = black_box((map.get(number), map.contains_key(number), map.expiry(number)));
        }
        let _ = black_box((map.len(), map.get_many(&[1, 2, 3])));
    }
    let _ = black_box((store.len(), store.stats(), store.seq(), store.probe_lengths()));
}

fuzz_target!(|input: &[u8]| {
    let Some(([base @ .., moving], rest)) = head::<5>(input) else { return };
    let (moving, staying) = split::<12>(rest, moving % 8);
    let (original, image) = damaged([base[0], base[1] & !seal::LEN, 0, 0], &[]);
    let places = |program: &[u8]| -> Places {
        let changes = instructions(program).take(8).map(|change| original.change(&image, change));
        // Changes that make the file longer are another matter.
        changes.filter(|(at, bytes)| at.saturating_add(bytes.len() as u64) <= image.len() as u64).collect()
    };
    let (moving, staying) = (places(moving), places(staying));
    scratch::write(&PATH, &image);
    let options = Store::options().access(Access::ReadOnly).lock_timeout(Duration::from_millis(20));
    let Ok(store) = options.verify_reads(base[1] & seal::VERIFY_READS != 0).open(&*PATH) else { return };
    let map = store.map("map").ok();

    let file = fs::OpenOptions::new().write(true).open(&*PATH).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                for (at, bytes) in &moving {
                    file.write_all_at(bytes, *at).unwrap();
                }
                for (at, bytes) in &moving {
                    file.write_all_at(&image[*at as usize..][..bytes.len()], *at).unwrap();
                }
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        read(&store, map.as_ref());
        done.store(true, Ordering::Relaxed);
    });
    for (at, bytes) in &staying {
        file.write_all_at(bytes, *at).unwrap();
        read(&store, map.as_ref());
    }
    let _ = store.map::<u8, [u8]>("another").map(|map| read(&store, Some(&map)));
});
