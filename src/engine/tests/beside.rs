//! Readers that have recovered the store in their own memory beside writers that take it over, and copies made while a
//! writer is killed.

use super::faults::support::{Random, setting};
use super::*;

/// Flips a bit of the mount that the live area names: the next opener takes the file for one in another mount
/// namespace, whose file system keeps no mark (or of a machine whose boot id it cannot read).
fn turn_mount(path: &Path) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let at = live::IDENTITY + 40;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

/// A file that becomes shorter takes away the private pages that a reader has in place of its end.
#[test]
fn a_file_does_not_become_shorter_below_a_reader_that_has_recovered_it() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_log(&engine);
    let (cut, len) = (copied(&path), engine.mapping.len());
    drop(engine);
    // The power was cut after the file had grown and before anything was written there.
    File::options().write(true).open(&cut).unwrap().set_len(len + (2 << 20)).unwrap();
    let settings = Settings { access: Access::ReadOnly, initial_capacity: 40_000, ..Settings::default() };
    let reader = Engine::open(&cut, settings).unwrap();
    assert!(reader.is_aside());
    let seen = content(&reader);
    let index = reader.index(DEFAULT_MAP).unwrap().unwrap();
    let end = (index.offset() + index.blocks() * BLOCK).0;
    let file_len = || fs::metadata(&cut).unwrap().len();
    assert!(len < end && end < file_len(), "its index lies where nothing was");

    let writer = open(&cut);
    let compact = || writer.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    compact();
    assert!(file_len() >= end);
    assert_eq!(content(&reader), seen);
    drop(reader);
    compact();
    assert!(file_len() < end, "nobody looks there any more");
}

/// The log between the superblock's head and the live head was emptied before the commit that a reader aside pins, so
/// the pin one commit below its own does not hold it.
#[test]
fn what_a_reader_has_of_the_log_is_not_used_again() {
    let (folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), checkpoint_every: u64::MAX, ..Settings::default() };
    let engine = Engine::open(&path, settings.clone()).unwrap();
    let mut number = 0u64;
    // Cleaning empties extents, and they wait for a checkpoint.
    loop {
        engine.put(DEFAULT_MAP, &key((number % 20) as u32), &[number as u8; 300], None).unwrap();
        number += 1;
        let head = engine.head().unwrap().head.at;
        if number > 200 && head != engine.superblock().unwrap().log_head() && engine.waiting().unwrap().0.checkpoint > 0
        {
            break;
        }
        assert!(number < 100_000, "nothing was ever emptied");
    }
    for _ in 0..3 {
        engine.put(DEFAULT_MAP, b"later", b"a few commits later", None).unwrap();
    }
    assert!(engine.waiting().unwrap().0.checkpoint > 0, "a checkpoint came in between");
    let expected = content(&engine);
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    drop(engine);
    turn_mount(&killed);
    let reader = Arc::new(Engine::open(&killed, Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap());
    assert!(reader.is_aside());
    turn_mount(&killed);
    let pin = Pin::take(Arc::clone(&reader)).unwrap();
    let behind = reader.head().unwrap().behind;
    let history = reader.history(behind, pin.seq()).unwrap();
    // The slices that `Changes::iter` lends.
    let lent: Vec<(&[u8], &[u8])> =
        reader.changes(&history, DEFAULT_MAP).map(|record| record.unwrap()).map(|r| (r.key(), r.value())).collect();
    let seen: Vec<(Vec<u8>, Vec<u8>)> = lent.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();

    let writer = Engine::open(&killed, settings).unwrap();
    assert_eq!(writer.opened, Opened::AfterKill);
    writer.checkpoint().unwrap();
    for number in 0..400u32 {
        writer.put(DEFAULT_MAP, &key(1000 + number), &[0xee; 200], None).unwrap();
    }
    assert!(content(&reader) == expected, "content");
    let changed = lent.iter().zip(&seen).filter(|((k, v), (ok, ov))| k != ok || v != ov).count();
    let again: Vec<_> = reader.changes(&history, DEFAULT_MAP).collect();
    let errors = again.iter().filter(|record| record.is_err()).count();
    let report = reader.verify().unwrap();
    assert!(
        changed == 0 && errors == 0 && again.len() == seen.len() && report.is_clean(),
        "{changed} of {} borrowed changes have other bytes now; walking again: {} with {errors} errors; {:?}",
        seen.len(),
        again.len(),
        report.findings()
    );
}

/// A writer is killed after the file has become longer, at the event that `killed_at` chooses; another one continues,
/// and a copy whose front is from before the kill, and the rest from after it, is put back over the file. It opens as
/// the content of one commit, or is refused.
fn copy_across_a_growth(next: Settings, found: impl Fn(Opened) -> bool, killed_at: impl Fn(&[Event]) -> usize) {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let expected = content(&engine);
    let tape = Arc::new(Tape::default());
    let base = fs::read(&path).unwrap();
    engine.mapping.set_recorder(tape.clone());
    engine.put(DEFAULT_MAP, b"long", &vec![1; 3_000_000], None).unwrap();
    let events = tape.0.lock().unwrap().clone();
    drop(engine);
    let at = |events: &[Event]| {
        let mut image = base.clone();
        events.iter().for_each(|event| replay(&mut image, event));
        image
    };
    let (front, killed_image) = (at(&events[..grows(&events)]), at(&events[..=killed_at(&events)]));
    let mut wrong = Vec::new();
    for commits in 1..6u8 {
        let killed = folder.path().join(format!("killed{commits}"));
        put_back(&killed, &killed_image);
        let next = Engine::open(&killed, next.clone()).unwrap();
        assert!(found(next.opened), "{:?}", next.opened);
        assert!(content(&next) == expected);
        let mut contents = vec![expected.clone()];
        for number in 0..commits {
            next.put(DEFAULT_MAP, &key(3 + u32::from(number)), &[number; 10], None).unwrap();
            contents.push(content(&next));
        }
        let rest = fs::read(&killed).unwrap();
        drop(next);
        let copy = [&front[..EXTENTS as usize], &rest[EXTENTS as usize..]].concat();
        put_back(&killed, &copy);
        match Engine::open(&killed, Settings::default()) {
            Ok(engine) => {
                let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| content(&engine)));
                let report = engine.verify().unwrap();
                let is_one = found.as_ref().is_ok_and(|found| contents.contains(found));
                if !is_one || !report.is_clean() {
                    wrong.push(format!(
                        "{commits} commits: {:?}, one commit: {is_one}, {:?}",
                        engine.opened,
                        report.findings()
                    ));
                }
            }
            Err(error) => assert!(error.to_string().contains("a copy of a store in use"), "{error}"),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The event at which the file becomes longer.
fn grows(events: &[Event]) -> usize {
    events.iter().position(|event| matches!(event, Event::SetLen(_))).unwrap()
}

/// Killed after the store of the seal's place.
#[test]
fn a_kill_while_the_seal_moves_leaves_no_old_one() {
    copy_across_a_growth(
        Settings::default(),
        |opened| opened == Opened::AfterKill,
        |events| {
            let names_the_seal = |event: &Event| matches!(event, Event::Write(at, _) if *at == live::SEAL_AT);
            let moved = events.iter().position(names_the_seal).unwrap();
            assert!(grows(events) < moved);
            moved
        },
    );
}

/// Killed when the file had grown and the seal had not moved; then everything is rebuilt from the log.
#[test]
fn a_walk_of_the_log_leaves_no_old_seal() {
    let next = Settings { untrusted: true, ..Settings::default() };
    copy_across_a_growth(next, |opened| matches!(opened, Opened::AfterPowerCut { .. }), grows);
}

/// Copies in two pieces, the front older than the rest, of a store that grows and shrinks all the time, and whose
/// writer is killed in between; they are put back over the file.
#[test]
fn copies_in_pieces_across_a_kill() {
    let (seed, rounds) = (setting("SLOTLOG_TEST_SEED", 1), setting("SLOTLOG_TEST_ROUNDS", 20));
    let mut random = Random(seed);
    let mut below = |n: u64| random.below(n);
    let (mut opened, mut wrong, mut tries) = (BTreeMap::<String, u64>::new(), Vec::new(), 0);
    for round in 0..rounds {
        let (folder, path) = scratch();
        let limits = if below(2) == 0 { Limits::tiny() } else { Limits::default() };
        let settings = Settings { limits, ..Settings::default() };
        let mut contents = Vec::new();
        let live = |engine: &Arc<Engine>, contents: &mut Vec<Content>, below: &mut dyn FnMut(u64) -> u64, ops: u64| {
            for _ in 0..ops {
                let number = below(20) as u32;
                match below(8) {
                    0 | 1 => drop(engine.compact(&mut |_| ControlFlow::Continue(())).unwrap()),
                    2 => drop(engine.remove(DEFAULT_MAP, &key(number)).unwrap()),
                    3 => engine.put(DEFAULT_MAP, &key(number), &[below(256) as u8; 9], None).unwrap(),
                    4 => {
                        let mut batch = Batch::begin(Arc::clone(engine)).unwrap();
                        for more in 0..4 {
                            let value = vec![round as u8; below(60_000) as usize];
                            batch.put(DEFAULT_MAP, &key(number + more), &value, None).unwrap();
                        }
                        batch.commit(Durability::Buffered).unwrap();
                    }
                    _ => {
                        let value = vec![round as u8; below(100_000) as usize];
                        engine.put(DEFAULT_MAP, &key(number), &value, None).unwrap();
                    }
                }
                contents.push(content(engine));
            }
        };
        let engine = Arc::new(Engine::open(&path, settings.clone()).unwrap());
        some_keys(&engine);
        engine.checkpoint().unwrap();
        let base = fs::read(&path).unwrap();
        let tape = Arc::new(Tape::default());
        engine.mapping.set_recorder(tape.clone());
        contents.push(content(&engine));
        let ops = 3 + below(8);
        live(&engine, &mut contents, &mut below, ops);
        let first_life = tape.0.lock().unwrap().clone();
        drop(engine);
        let moves = |events: &[Event]| -> Vec<usize> {
            (0..events.len())
                .filter(|&at| match &events[at] {
                    Event::SetLen(_) => true,
                    Event::Write(offset, _) => *offset == live::SEAL_AT,
                    _ => false,
                })
                .collect()
        };
        let moved = moves(&first_life);
        if moved.is_empty() {
            continue;
        }
        for _ in 0..12 {
            let kill = (moved[below(moved.len() as u64) as usize] + below(6) as usize).min(first_life.len());
            let mut image = base.clone();
            first_life[..kill].iter().for_each(|event| replay(&mut image, event));
            let killed = folder.path().join("killed");
            put_back(&killed, &image);
            let second_base = fs::read(&killed).unwrap();
            let tape = Arc::new(Tape::default());
            let is_untrusted = below(2) == 0;
            let standing = witness::stand(tape.clone());
            let engine = Engine::open(&killed, Settings { untrusted: is_untrusted, ..settings.clone() });
            drop(standing);
            let engine = Arc::new(engine.unwrap());
            let mut contents = contents.clone();
            contents.push(content(&engine));
            let ops = 1 + below(3);
            live(&engine, &mut contents, &mut below, ops);
            let second_life = tape.0.lock().unwrap().clone();
            drop(engine);
            for _ in 0..10 {
                tries += 1;
                let front = kill.saturating_sub(below(30) as usize);
                let end = second_life.len() - below(second_life.len() as u64 / 4 + 1) as usize;
                let mut image = base.clone();
                first_life[..front].iter().for_each(|event| replay(&mut image, event));
                let mut rest = second_base.clone();
                second_life[..end].iter().for_each(|event| replay(&mut rest, event));
                let copy = [&image[..EXTENTS as usize], &rest[EXTENTS as usize..]].concat();
                let place = folder.path().join("copy");
                put_back(&place, &copy);
                let what = format!(
                    "round {round}, untrusted {is_untrusted}, front {front}, kill {kill} of {}, then {end} of {}",
                    first_life.len(),
                    second_life.len()
                );
                match Engine::open(&place, Settings::default()) {
                    Ok(engine) => {
                        let name = format!("{:?}", engine.opened);
                        *opened.entry(name.split(' ').next().unwrap().to_owned()).or_default() += 1;
                        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| content(&engine)));
                        let report = engine.verify().unwrap();
                        let is_one = found.as_ref().is_ok_and(|found| contents.contains(found));
                        if !is_one || !report.is_clean() {
                            wrong.push(format!(
                                "try {tries}, {what}: {name}, one commit: {is_one}, {:?}",
                                report.findings().first()
                            ));
                        }
                    }
                    Err(error) => {
                        let is_told = error.to_string().contains("a copy of a store in use");
                        if !is_told {
                            wrong.push(format!("try {tries}, {what}: {error}"));
                        }
                        *opened.entry(if is_told { "refused" } else { "another error" }.to_owned()).or_default() += 1;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tries} wrong: {:#?} {opened:?}", wrong.len(), &wrong[..wrong.len().min(12)]);
}

/// One of two writers was killed when the file had become longer and the seal was still at its old end; the other
/// continues, beside a reader, and closes the store.
#[test]
fn a_growth_of_one_that_died_beside_another_is_completed() {
    let mut wrong = Vec::new();
    for (reader_there, seen) in [(true, false), (false, false), (true, true), (false, true)] {
        let (folder, path) = scratch();
        let engine = open(&path);
        some_keys(&engine);
        let file = File::options().write(true).open(&path).unwrap();
        // As the dead writer did.
        file.set_len(file.metadata().unwrap().len() + 20 * BLOCK).unwrap();
        if seen {
            engine.put(DEFAULT_MAP, b"more", &[7; 200_000], None).unwrap();
        }
        engine.put(DEFAULT_MAP, b"some more", b"value", None).unwrap();
        let reader = reader_there
            .then(|| Engine::open(&path, Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap());
        let expected = content(&engine);
        engine.close().unwrap();
        drop(engine);
        drop(reader);
        let copy = folder.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        for path in [&path, &copy] {
            let engine = open(path);
            if engine.opened != Opened::Clean || content(&engine) != expected {
                wrong.push(format!(
                    "reader {reader_there}, seen {seen}, {path:?}: {:?}, {}",
                    engine.opened,
                    content(&engine) == expected
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One of two writers was killed when the seal had moved forward and the file was not shorter yet; the other continues.
/// At the old end of the file the seal stays as it was. A copy with an older front finds it.
#[test]
fn a_file_that_was_to_be_shorter_keeps_no_old_seal() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    engine.put(DEFAULT_MAP, b"long", &vec![1; 3_000_000], None).unwrap();
    engine.remove(DEFAULT_MAP, b"long").unwrap();
    let before = content(&engine);
    let base = fs::read(&path).unwrap();
    let tape = Arc::new(Tape::default());
    engine.mapping.set_recorder(tape.clone());
    engine.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    let events = tape.0.lock().unwrap().clone();
    let last_cut = events.iter().rposition(|event| matches!(event, Event::SetLen(_))).unwrap();
    let moved = events[..last_cut]
        .iter()
        .rposition(|event| matches!(event, Event::Write(at, _) if *at == live::SEAL_AT))
        .unwrap();
    let mut front = base.clone();
    events[..moved].iter().for_each(|event| replay(&mut front, event));
    let len = fs::metadata(&path).unwrap().len() as usize;
    assert!(front.len() > len);
    // The dead writer did not make it shorter, so this one did.
    let mut file = File::options().write(true).open(&path).unwrap();
    file.set_len(front.len() as u64).unwrap();
    file.seek(SeekFrom::Start(len as u64)).unwrap();
    file.write_all(&front[len..]).unwrap();
    let mut contents = vec![before, content(&engine)];
    for number in 0..3u8 {
        engine.put(DEFAULT_MAP, &key(3 + u32::from(number)), &[number; 10], None).unwrap();
        contents.push(content(&engine));
    }
    let rest = fs::read(&path).unwrap();
    let copy = [&front[..EXTENTS as usize], &rest[EXTENTS as usize..]].concat();
    let place = folder.path().join("copy");
    put_back(&place, &copy);
    match Engine::open(&place, Settings::default()) {
        Ok(engine) => {
            let report = engine.verify().unwrap();
            assert!(report.is_clean(), "{:?} {:?}", engine.opened, report.findings());
            assert!(contents.contains(&content(&engine)), "{:?}", engine.opened);
        }
        Err(error) => assert!(error.to_string().contains("a copy of a store in use"), "{error}"),
    }
}

/// Covers what a reader aside sees in its index, not only in the log, beside a writer that takes over after the kill.
#[test]
fn a_reader_is_not_disturbed_by_a_writer_that_takes_over() {
    let rounds = setting("SLOTLOG_TEST_ROUNDS", 20);
    let mut random = Random(7);
    let mut below = |n: u64| random.below(n);
    let (mut content_changed, mut log_changed, mut done) = (0, 0, 0);
    for _ in 0..rounds {
        let (folder, path) = scratch();
        let settings = Settings { limits: Limits::tiny(), checkpoint_every: u64::MAX, ..Settings::default() };
        let engine = Arc::new(Engine::open(&path, settings.clone()).unwrap());
        let change = |engine: &Arc<Engine>, below: &mut dyn FnMut(u64) -> u64| match below(40) {
            0 => engine.clear(DEFAULT_MAP).unwrap(),
            1 | 2 => drop(engine.compact(&mut |_| ControlFlow::Continue(())).unwrap()),
            3 => engine.checkpoint().unwrap(),
            4..10 => drop(engine.remove(DEFAULT_MAP, &key(below(40) as u32)).unwrap()),
            _ => {
                let value = vec![below(256) as u8; below(900) as usize];
                engine.put(DEFAULT_MAP, &key(below(40) as u32), &value, None).unwrap();
            }
        };
        for _ in 0..50 + below(600) {
            change(&engine, &mut below);
        }
        let expected = content(&engine);
        let killed = folder.path().join("killed");
        put_back(&killed, &fs::read(&path).unwrap());
        drop(engine);
        turn_mount(&killed);
        let reader =
            Arc::new(Engine::open(&killed, Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap());
        turn_mount(&killed);
        if !reader.is_aside() {
            continue;
        }
        done += 1;
        let pin = Pin::take(Arc::clone(&reader)).unwrap();
        let history = reader.history(reader.head().unwrap().behind, pin.seq()).unwrap();
        let count = reader.changes(&history, DEFAULT_MAP).count();
        let writer = Arc::new(Engine::open(&killed, settings).unwrap());
        assert_eq!(writer.opened, Opened::AfterKill);
        for _ in 0..200 {
            change(&writer, &mut below);
        }
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| content(&reader)));
        content_changed += i32::from(!found.is_ok_and(|found| found == expected));
        log_changed +=
            i32::from(reader.changes(&history, DEFAULT_MAP).filter(|record| record.is_ok()).count() != count);
    }
    assert_eq!((content_changed, log_changed), (0, 0), "of {done}");
}

/// In another mount namespace, a reader may have to recover a store that a writer elsewhere continues. Pages that the
/// reader has not changed in memory show the file.
#[test]
fn a_writer_goes_on_beside_a_reader_that_has_recovered_for_itself() {
    let (folder, path) = scratch();
    let store = open(&path);
    some_keys(&store);
    if store.mapping.identity().is_none() {
        // Without an identity every opener would recover.
        return;
    }
    let expected = content(&store);
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    let mount = live::IDENTITY + 40;
    let turn = || {
        let mut file = File::options().read(true).write(true).open(&killed).unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(mount)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(mount)).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    };
    turn();
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Engine::open(&killed, settings).unwrap();
    assert!(matches!(reader.opened, Opened::AfterPowerCut { .. }) && reader.is_aside(), "{:?}", reader.opened);
    turn();
    assert!(reader.follow().is_none());
    let alone = Engine::open(&killed, Settings { exclusive: true, ..Settings::default() }).err().unwrap();
    assert!(matches!(alone, Error::Locked { by: HeldBy::Private, .. }), "{alone}");
    let writer = open(&killed);
    assert_eq!((writer.opened, content(&writer)), (Opened::AfterKill, expected.clone()));
    for round in 0..50 {
        for number in 0..40 {
            writer.put(DEFAULT_MAP, &key(number), &[round; 300], None).unwrap();
        }
        writer.compact(&mut |_| ControlFlow::Continue(())).unwrap();
        assert!(content(&reader) == expected);
        let report = reader.verify().unwrap();
        assert!(report.is_clean(), "{:?}", report.findings());
    }
    // By now the log begins elsewhere, so a rebuild from it would take what the reader sees for free space.
    writer.checkpoint().unwrap();
    drop(writer);
    let refused = Engine::open(&killed, Settings { untrusted: true, ..Settings::default() }).err().unwrap();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    assert!(content(&reader) == expected);
    let writer = open(&killed);
    let next = reader.follow().unwrap();
    assert_eq!(next.origin, reader.origin);
    assert!(!next.is_aside() && content(&next) == content(&writer));
    let len = writer.mapping.len();
    drop(reader);
    writer.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    drop(next);
    writer.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    assert!(writer.mapping.len() < len / 2, "{} of {len} bytes", writer.mapping.len());
}
