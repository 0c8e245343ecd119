//! What is flushed, and what a superblock vouches for.

use std::sync::atomic::AtomicU64;

use super::*;

/// Records which ranges are flushed.
#[derive(Default)]
struct Flushes(Mutex<Vec<(Offset, Offset)>>);

impl Recorder for Flushes {
    fn flush(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().push((Offset(offset), Offset(offset + len)));
        Ok(())
    }
}

/// One of two processes has synced up to a place in an extent that the other one has since emptied, freed and taken
/// again.
#[test]
fn a_sync_flushes_an_extent_that_was_taken_again_from_its_beginning() {
    let (_folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let (one, other) = (open(&path), Engine::open(&path, settings).unwrap());
    let flushes = Arc::new(Flushes::default());
    one.mapping.set_recorder(flushes.clone());
    one.put(DEFAULT_MAP, b"key", &[1; 2000], None).unwrap();
    one.sync().unwrap();
    let (ended, seq) = (one.mapping.live_offset(live::TAIL).unwrap(), one.visible().unwrap());
    let mut number = 0;
    let again = loop {
        other.put(DEFAULT_MAP, &key(number % 5), &[2; 100], None).unwrap();
        other.checkpoint().unwrap();
        number += 1;
        let tail = other.mapping.live_offset(live::TAIL).unwrap();
        let extent = *other.space_now().unwrap().unwrap().log_extent_of(tail).unwrap();
        if extent.count > seq.count() && extent.contains(ended) && tail > ended {
            break extent;
        }
        assert!(number < 100_000, "the extent is taken again");
    };
    flushes.0.lock().unwrap().clear();
    one.put(DEFAULT_MAP, b"key", b"value", None).unwrap();
    one.sync().unwrap();
    let flushed = flushes.0.lock().unwrap().clone();
    assert!(flushed.iter().any(|&(start, end)| start <= again.offset && end > ended), "{again:?}: {flushed:?}");
}

/// Counts queries for the length of the file.
struct Lengths(AtomicU64);

impl Recorder for Lengths {
    fn call(&self, call: witness::Call) -> std::io::Result<()> {
        self.0.fetch_add(u64::from(call == witness::Call::Length), Ordering::SeqCst);
        Ok(())
    }
}

/// A query for the length makes the next flush write the inode as well.
#[test]
fn a_synced_commit_asks_for_no_length() {
    let (_folder, path) = scratch();
    let settings = Settings { durability: Durability::Synced, ..Settings::default() };
    let engine = Engine::open(&path, settings).unwrap();
    (0..20).for_each(|number| engine.put(DEFAULT_MAP, &key(number), b"before", None).unwrap());
    let lengths = Arc::new(Lengths(AtomicU64::new(0)));
    let _standing = witness::stand(lengths.clone());
    let asked = || lengths.0.load(Ordering::SeqCst);
    (0..20).for_each(|number| engine.put(DEFAULT_MAP, &key(number), b"after", None).unwrap());
    assert_eq!(asked(), 0);
    // But when the log continues in another extent, the length must be checked.
    engine.put(DEFAULT_MAP, b"long", &[1; 200_000], None).unwrap();
    assert!(asked() > 0);
}

/// Cleans the log while a checkpoint is being flushed.
struct CleansInFlush {
    engine: OnceLock<Weak<Engine>>,
    done: AtomicBool,
}

impl Recorder for CleansInFlush {
    fn flush(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return Ok(()) };
        if !self.done.swap(true, Ordering::SeqCst) {
            let turn = engine.turn().unwrap();
            let mut writing = turn.write();
            for _ in 0..5 {
                writing.clean(clean::Portion { bytes: 2000, aim: clean::Aim::Upkeep }).unwrap();
            }
        }
        Ok(())
    }
}

/// A superblock with a head past records that were moved beyond its durable part would lose them.
#[test]
fn a_checkpoint_vouches_for_all_that_was_moved_from_before_its_head() {
    let (_folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), auto_compact: None, ..Settings::default() };
    let engine = Arc::new(Engine::open(&path, settings).unwrap());
    some_log(&engine);
    let (head, tail) = (engine.head().unwrap(), engine.mapping.live_offset(live::TAIL).unwrap());
    let recorder = Arc::new(CleansInFlush { engine: OnceLock::new(), done: AtomicBool::new(false) });
    engine.mapping.set_recorder(recorder.clone());
    recorder.engine.set(Arc::downgrade(&engine)).unwrap();
    engine.checkpoint().unwrap();
    assert_ne!(engine.head().unwrap(), head, "it was cleaned meanwhile");
    let superblock = engine.superblock().unwrap();
    assert_eq!(superblock.log_end(), tail);
    assert_eq!(head::LogHead::of_superblock(&superblock).head, head.head);
}

/// A checkpoint takes as long as a flush. A writer that finds one due and already under way continues.
#[test]
fn nobody_who_writes_waits_for_the_checkpoint_of_another() {
    let (_folder, path) = scratch();
    let settings = Settings { checkpoint_every: 4096, ..Settings::default() };
    let engine = Arc::new(Engine::open(&path, settings).unwrap());
    let checkpoint = engine.lock_superblock(Duration::ZERO).unwrap();
    let (done, told) = std::sync::mpsc::channel();
    let of_thread = Arc::clone(&engine);
    let writer = std::thread::spawn(move || {
        for number in 0..100 {
            of_thread.put(DEFAULT_MAP, &key(number), &[1; 1000], None).unwrap();
        }
        done.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(60)).expect("the writer waits for the checkpoint");
    let generation = checkpoint.generation.get();
    drop(checkpoint);
    writer.join().unwrap();
    engine.put(DEFAULT_MAP, b"one more", &[1; 5000], None).unwrap();
    assert!(engine.superblock().unwrap().generation.get() > generation, "the next one takes it");
}
