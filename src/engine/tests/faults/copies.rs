//! Torn copies: each block of the file as it was at some moment, none earlier than the block before it, as a program
//! reads a file that changes meanwhile. (Copies by real programs: `tests/copies.rs`.)
//!
//! A history is recorded store by store. Then copies of it are assembled and opened, in place of the original and
//! beside it. Each has the content of one commit, and of none before the last sync before it was begun, or is refused
//! with an error that says what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Event, Tape, replay};
use super::support::{self, Random};
use super::{Content, batch_of, check, content, put};
use crate::engine::Engine;
use crate::engine::settings::{Access, Durability, Limits, Opened, Settings};
use crate::engine::upkeep::clean::{Aim, Portion};
use crate::file::layout::{BLOCK, DEFAULT_MAP, SUPERBLOCK_A, SUPERBLOCK_B, live};
use crate::file::witness;

/// What happened to a store.
struct History {
    base: Vec<u8>,
    events: Vec<Event>,
    contents: Vec<Content>,
    /// The moments from which on a copy must have at least the given content.
    floors: Vec<(usize, usize)>,
}

/// Short, since a reader waits in vain for a lock whose holder is dead.
const TIMEOUT: Duration = Duration::from_millis(20);

fn settings() -> Settings {
    Settings { limits: Limits::tiny(), checkpoint_every: 16 << 10, lock_timeout: TIMEOUT, ..Settings::default() }
}

/// Makes a history at `path`, and closes the store.
fn history(path: &Path, random: &mut Random) -> History {
    let open = || Arc::new(Engine::open(path, settings()).unwrap());
    let (mut now, mut number) = (Content::new(), 0);
    let mut engine = open();
    for key in 0..20 {
        number += 1;
        put(&engine, key, (number, 200)).unwrap();
        now.insert(key, (number, 200));
    }
    drop(engine);
    let base = fs::read(path).unwrap();
    let tape = Arc::new(Tape::default());
    let _standing = witness::stand(tape.clone());
    let (mut contents, mut floors) = (vec![now.clone()], vec![(0, 0)]);
    engine = open();
    for _ in 0..120 {
        number += 1;
        let key = random.below(24) as u16;
        match random.below(16) {
            0 => {
                drop(engine);
                engine = open();
                floors.push((tape.len(), contents.len() - 1));
                continue;
            }
            1 => engine.checkpoint().unwrap(),
            2 | 3 => engine.sync().unwrap(),
            4..8 => {
                let made: Vec<_> = (0..1 + random.below(4) as u16)
                    .map(|more| (key + more, (!random.one_in(3)).then(|| (number, 8 + random.below(2000) as u32))))
                    .collect();
                for &(key, new) in &made {
                    match new {
                        Some(new) => drop(now.insert(key, new)),
                        None => drop(now.remove(&key)),
                    }
                }
                contents.push(now.clone());
                batch_of(&engine, made).unwrap().commit(Durability::Buffered).unwrap();
                continue;
            }
            8 | 9 => {
                now.remove(&key);
                contents.push(now.clone());
                engine.remove(DEFAULT_MAP, &super::key(key)).unwrap();
                continue;
            }
            _ => {
                let new = (number, 8 + random.below(3000) as u32);
                now.insert(key, new);
                contents.push(now.clone());
                put(&engine, key, new).unwrap();
                continue;
            }
        }
        floors.push((tape.len(), contents.len() - 1));
    }
    drop(engine);
    let events = std::mem::take(&mut *tape.0.lock().unwrap());
    History { base, events, contents, floors }
}

impl History {
    /// A copy that begins at the first of the moments; each entry is a block and the moment from that block on.
    fn copy(&self, moments: &BTreeMap<usize, usize>) -> Vec<u8> {
        let (mut image, mut at) = (self.base.clone(), 0);
        let (mut copy, mut block) = (Vec::new(), 0);
        loop {
            if let Some(&moment) = moments.get(&block) {
                self.events[at..moment].iter().for_each(|event| replay(&mut image, event));
                at = moment;
            }
            let start = block * BLOCK as usize;
            if start >= image.len() {
                return copy;
            }
            copy.extend_from_slice(&image[start..image.len().min(start + BLOCK as usize)]);
            block += 1;
        }
    }

    /// The next moment at which space is taken or given away.
    fn change_of_space(&self, moment: usize) -> usize {
        let is_change = |event: &Event| matches!(event, Event::Write(live::SPACE_CHANGES, _));
        self.events[moment..].iter().position(is_change).map_or(self.events.len(), |more| moment + more)
    }

    /// The next moment at which a superblock is written.
    fn change_of_superblock(&self, moment: usize) -> usize {
        let is_change = |event: &Event| matches!(event, Event::Write(SUPERBLOCK_A | SUPERBLOCK_B, _));
        self.events[moment..].iter().position(is_change).map_or(self.events.len(), |more| moment + more)
    }

    /// Two moments at which the durable head of the log is at the same place, in different extents: the moments from
    /// which on it is there, and the ends of these times.
    fn same_head(&self, random: &mut Random) -> Option<[(usize, usize); 2]> {
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let (mut heads, mut head): (Vec<(usize, u64, u64)>, _) = (Vec::new(), (0, 0));
        for (moment, event) in self.events.iter().enumerate() {
            match *event {
                Event::Write(live::DURABLE_HEAD, ref at) => head.0 = word(at),
                Event::Write(live::DURABLE_ORDINAL, ref ordinal) => head.1 = word(ordinal),
                _ => continue,
            }
            heads.push((moment + 1, head.0, head.1));
        }
        heads.push((self.events.len(), 0, 0));
        let times: Vec<_> = heads.windows(2).map(|two| ((two[0].0, two[1].0), (two[0].1, two[0].2))).collect();
        let is_same = |one: (u64, u64), other: (u64, u64)| one.0 == other.0 && one.1 < other.1;
        let pairs = times.iter().enumerate().flat_map(|(place, &(time, head))| {
            let later = times[place..].iter().filter(move |&&(_, later)| is_same(head, later));
            later.map(move |&(later, _)| [time, later])
        });
        let pairs: Vec<_> = pairs.collect();
        (!pairs.is_empty()).then(|| pairs[random.below(pairs.len() as u64) as usize])
    }

    /// The moment at which the next commit is made.
    fn next_commit(&self, moment: usize) -> usize {
        let is_commit = |event: &Event| matches!(event, Event::Write(live::COMMIT_POINT, _));
        self.events[moment..].iter().position(is_commit).map_or(self.events.len(), |more| moment + more)
    }

    /// The oldest content that a copy begun at this moment may have.
    fn floor(&self, moment: usize) -> usize {
        self.floors.iter().rev().find(|&&(from, _)| from <= moment).map_or(0, |&(_, content)| content)
    }

    /// Opens a copy at `path`, and returns the outcome.
    fn open(&self, path: &Path, access: Access, moment: usize) -> Result<&'static str, String> {
        let engine = match Engine::open(path, Settings { access, ..settings() }) {
            Ok(engine) => Arc::new(engine),
            Err(error) if error.to_string().contains("a copy of a store in use") => {
                return Ok("refused");
            }
            Err(error) => return Err(format!("does not open: {error}")),
        };
        let opened = match engine.opened {
            Opened::Clean => "Clean",
            Opened::AfterKill => "AfterKill",
            _ => "AfterPowerCut",
        };
        let found = content(&engine).map_err(|wrong| format!("{opened}: {wrong}"))?;
        if !self.contents[self.floor(moment)..].contains(&found) {
            let earlier = self.contents.contains(&found);
            return Err(format!("{opened}: the content is {}", if earlier { "too old" } else { "of no commit" }));
        }
        match check(&engine) {
            Ok(()) => {}
            // A reader cannot take the writer lock over from a dead holder, which it needs for a complete look.
            Err(wrong) if access == Access::ReadOnly && wrong.contains("gave up after") => {}
            Err(wrong) => return Err(format!("{opened}: {wrong}")),
        }
        if access == Access::ReadOnly {
            return Ok(opened);
        }
        // Its content is permanent, and it can be written to.
        let mut expected = found;
        for number in 0..6 {
            put(&engine, number, (number.into(), 1500)).map_err(|error| format!("{opened}, then: {error}"))?;
            expected.insert(number, (number.into(), 1500));
        }
        check(&engine).map_err(|wrong| format!("{opened}, written to: {wrong}"))?;
        match content(&engine) {
            Ok(found) if found == expected => Ok(opened),
            other => Err(format!("{opened}, written to: {other:?}")),
        }
    }
}

#[test]
fn a_copy_of_what_changes_is_one_commit_or_refused() {
    let rounds = support::setting("SLOTLOG_TEST_COPIES", 6);
    let each = support::setting("SLOTLOG_TEST_COPIES_EACH", 200);
    let first = support::setting("SLOTLOG_TEST_SEED", 0);
    let folder = support::folder();
    let (mut counts, mut wrong) = (BTreeMap::<String, u64>::new(), Vec::new());
    for seed in first..first + rounds {
        let random = &mut Random(seed);
        let (path, beside) = (folder.path().join(format!("{seed}")), folder.path().join("beside"));
        let history = history(&path, random);
        let last_block = history.base.len() / BLOCK as usize + 20;
        for copy in 0..each {
            // Most defects lie shortly after the front was read, and many of them before the next commit.
            let mut begin = random.below(history.events.len() as u64 + 1) as usize;
            match copy % 4 {
                0 => begin = history.change_of_space(begin).saturating_sub(random.below(3) as usize),
                1 => begin = history.change_of_superblock(begin).saturating_sub(random.below(3) as usize),
                _ => {}
            }
            let (mut moments, mut moment) = (BTreeMap::from([(0, begin)]), begin);
            for _ in 0..1 + random.below(3) {
                let end = if copy % 2 == 0 { history.next_commit(begin) } else { history.events.len() };
                let left = (end - moment) as u64;
                let most = [4, 30, 200, 2000][random.below(4) as usize];
                moment += random.below(left.min(most) + 1) as usize;
                let last = moments.last_key_value().map_or(0, |(&block, _)| block);
                moments.insert(last + 1 + random.below(last_block.saturating_sub(last) as u64 + 1) as usize, moment);
            }
            // The superblocks of one time, and all else of another one at which the log begins at the same place.
            if copy % 4 == 3
                && let Some([before, after]) = history.same_head(random)
            {
                let mut in_time = |(from, to): (usize, usize)| from + random.below((to - from) as u64 + 1) as usize;
                begin = in_time((before.0, before.1.min(history.change_of_superblock(before.0))));
                moments = BTreeMap::from([(0, begin), (2, in_time(after))]);
            }
            let image = history.copy(&moments);
            for (path, access) in [
                (&path, Access::ReadWrite),
                (&beside, Access::ReadWrite),
                (&path, Access::ReadOnly),
                (&beside, Access::CopyOnWrite),
            ] {
                fs::write(path, &image).unwrap();
                match history.open(path, access, begin) {
                    Ok(outcome) => *counts.entry(format!("{access:?} {outcome}")).or_default() += 1,
                    Err(why) => wrong.push(format!("SLOTLOG_TEST_SEED={seed}, copy {copy}, {access:?}: {why}")),
                }
            }
        }
    }
    println!("{counts:?}, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{} wrong of {counts:?}: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    for outcome in ["ReadWrite Clean", "ReadWrite AfterKill", "ReadWrite AfterPowerCut", "ReadOnly Clean"] {
        assert!(counts.contains_key(outcome), "{outcome} is among {counts:?}");
    }
}

/// A copy may have the previous superblock: that of a store that was closed. Since then the log has come to begin
/// elsewhere.
#[test]
fn a_copy_with_the_superblock_of_a_closed_store_is_not_as_a_killed_process_left_it() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let mut engine = Arc::new(Engine::open(&path, settings()).unwrap());
    put(&engine, 1, (1, 100)).unwrap();
    drop(engine);
    engine = Arc::new(Engine::open(&path, settings()).unwrap());
    let place = engine.mapping.live(live::SUPERBLOCK).unwrap() as usize;
    for number in 2..20 {
        put(&engine, number, (number.into(), 100)).unwrap();
    }
    let before = fs::read(&path).unwrap();
    engine.checkpoint().unwrap();
    assert_eq!(engine.mapping.live(live::SUPERBLOCK).unwrap() as usize, place);
    engine.lend_writing().clean(Portion { bytes: 1, aim: Aim::Compaction }).unwrap();
    let expected = content(&engine).unwrap();
    let mut image = fs::read(&path).unwrap();
    image[place..place + BLOCK as usize].copy_from_slice(&before[place..place + BLOCK as usize]);
    drop(engine);
    fs::write(&path, &image).unwrap();
    let engine = Engine::open(&path, settings()).unwrap();
    assert!(matches!(engine.opened, Opened::AfterPowerCut { .. }), "{:?}", engine.opened);
    assert_eq!(content(&engine), Ok(expected));
    check(&engine).unwrap();
}

/// A sync writes no superblock. Still, nothing that it made durable may be missing.
#[test]
fn a_copy_without_what_was_synced_is_refused() {
    let folder = support::folder();
    let (path, beside) = (folder.path().join("store"), folder.path().join("beside"));
    for synced in [false, true] {
        let engine = Arc::new(Engine::open(&path, settings()).unwrap());
        put(&engine, 1, (1, 100)).unwrap();
        engine.checkpoint().unwrap();
        let tail = engine.mapping.live(live::TAIL).unwrap() as usize;
        put(&engine, 2, (2, 100)).unwrap();
        // It says nothing of numbers without records.
        engine.lend_writing().skip_number().unwrap();
        if synced {
            engine.sync().unwrap();
        }
        let mut image = fs::read(&path).unwrap();
        fs::write(&beside, &image).unwrap();
        assert_eq!(content(&Engine::open(&beside, settings()).unwrap()).unwrap().len(), 2);
        // As if this place had been reused before the copy came there.
        image[tail..tail + 64].fill(0);
        fs::write(&beside, &image).unwrap();
        match Engine::open(&beside, settings()) {
            Ok(copy) => assert!(!synced && content(&copy).unwrap().len() == 1),
            Err(error) => assert!(synced && error.to_string().contains("the last commit that was synced"), "{error}"),
        }
        drop(engine);
        fs::remove_file(&path).unwrap();
    }
}
