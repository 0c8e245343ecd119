//! Histories that part: another store with the same identity and the same numbers, as a copy of the file has them.

use slotlog::{Access, Seq};

use super::*;

/// The three ways on which changes come to a follower.
#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    Sent,
    Increment,
}

const WAYS: [Way; 3] = [Way::Direct, Way::Sent, Way::Increment];

/// Makes a follower apply what it does not have.
fn catch_up(leader: &Store, follower: &Store, way: Way, folder: &Path) -> slotlog::Result<()> {
    let seen = follower.origin()?.map_or(Seq::ZERO, |origin| origin.seq);
    if let Way::Increment = way {
        let path = folder.join("increment");
        leader.backup_since_with(seen, &path, BackupOptions::new().overwrite(true))?;
        return follower.apply_increment(&path).map(drop);
    }
    let mut feed = leader.changes(seen)?;
    while let Some(commit) = feed.next_commit()? {
        if let Way::Direct = way {
            commit.apply(follower)?;
            continue;
        }
        let mut bytes = Vec::new();
        commit.write_to(&mut bytes)?;
        follower.apply_from(&bytes[..])?;
    }
    Ok(())
}

/// Refused, and nothing was applied.
fn assert_refused(leader: &Store, follower: &Store, way: Way, folder: &Path) {
    let before = everything_in(follower);
    let error = catch_up(leader, follower, way, folder).unwrap_err();
    let is_parted = matches!(&error, Error::CannotFollow { origin: Some(origin), after, .. }
        if (&origin.store, origin.seq) == (&after.store, after.seq) && origin.crc != after.crc);
    assert!(is_parted, "{way:?}: {error}");
    assert!(error.to_string().contains("begin again with a backup"), "{error}");
    assert_eq!(everything_in(follower), before, "{way:?}");
}

#[test]
fn who_followed_a_file_does_not_follow_an_older_one_in_its_place() {
    for way in WAYS {
        for at_the_last in [false, true] {
            let folder = folder();
            let (path, older) = (folder.path().join("leader"), folder.path().join("older"));
            let mut random = Random(7);
            let write = |times: u64, random: &mut Random| {
                let leader = Store::open(&path).unwrap();
                (0..times).for_each(|_| leader.insert([random.below(20) as u8], random.next().to_le_bytes()).unwrap());
                leader
            };
            let follower = Store::in_memory().unwrap();
            let leader = write(10, &mut random);
            catch_up(&leader, &follower, way, folder.path()).unwrap();
            leader.close().unwrap();
            std::fs::copy(&path, &older).unwrap();
            let leader = write(10, &mut random);
            catch_up(&leader, &follower, way, folder.path()).unwrap();
            leader.close().unwrap();

            std::fs::rename(&older, &path).unwrap();
            let leader = write(5, &mut random);
            let error = catch_up(&leader, &follower, way, folder.path()).unwrap_err();
            assert!(matches!(error, Error::HistoryTruncated { .. }), "{error}");
            leader.close().unwrap();
            let leader = write(if at_the_last { 5 } else { 15 }, &mut random);
            if at_the_last && !matches!(way, Way::Increment) {
                // It has nothing to tell yet.
                catch_up(&leader, &follower, way, folder.path()).unwrap();
                leader.insert("key", "value").unwrap();
            }
            assert_refused(&leader, &follower, way, folder.path());
        }
    }
}

#[test]
fn who_followed_a_private_copy_does_not_follow_the_file() {
    for way in WAYS {
        let folder = folder();
        let path = folder.path().join("leader");
        let leader = Store::open(&path).unwrap();
        leader.insert("key", "in both").unwrap();
        leader.close().unwrap();
        let private = Store::options().access(Access::CopyOnWrite).open(&path).unwrap();
        private.insert("key", "private").unwrap();
        let follower = Store::in_memory().unwrap();
        catch_up(&private, &follower, way, folder.path()).unwrap();
        private.close().unwrap();
        let leader = Store::open(&path).unwrap();
        leader.insert("key", "public").unwrap();
        leader.insert("key", "later").unwrap();
        assert_refused(&leader, &follower, way, folder.path());
    }
}

/// A commit that was sent is not taken for another one with its number.
#[test]
fn a_commit_is_not_taken_for_one_of_another_history() {
    let folder = folder();
    let path = folder.path().join("leader");
    Store::open(&path).unwrap().close().unwrap();
    let sent = |value: &str| {
        let private = Store::options().access(Access::CopyOnWrite).open(&path).unwrap();
        let mut feed = private.changes(0).unwrap();
        private.insert("key", value).unwrap();
        let mut bytes = Vec::new();
        feed.next_commit().unwrap().unwrap().write_to(&mut bytes).unwrap();
        bytes
    };
    let (one, other) = (sent("one"), sent("other"));
    let follower = Store::in_memory().unwrap();
    follower.apply_from(&one[..]).unwrap();
    follower.apply_from(&one[..]).unwrap();
    let error = follower.apply_from(&other[..]).unwrap_err();
    assert!(matches!(error, Error::CannotFollow { .. }), "{error}");
    assert_eq!(follower.get("key").unwrap().unwrap(), b"one");
}

/// Copies that were made at any moment, between the steps of compaction as well, know their commit and go on from it.
#[test]
fn a_copy_of_any_moment_goes_on() {
    let folder = folder();
    for seed in 0..6 {
        let path = folder.path().join(format!("leader {seed}"));
        let options = || if seed % 2 == 0 { Store::options().tiny_steps() } else { Store::options() };
        let mut leader = options().open(&path).unwrap();
        let mut random = Random(seed);
        let mut copies: Vec<Store> = Vec::new();
        for number in 0..400 {
            (0..random.below(20)).for_each(|_| change_and_keep_up(&leader, &mut random));
            if random.one_in(10) {
                let copy = folder.path().join(format!("copy {seed} {number}"));
                leader.backup_with(&copy, BackupOptions::new().overwrite(true)).unwrap();
                let copy = Store::options().access(Access::CopyOnWrite).open(&copy).unwrap();
                assert_ne!(copy.origin().unwrap().unwrap().crc, 0, "it is known");
                copies.push(copy);
            }
            if random.one_in(20) {
                leader.close().unwrap();
                leader = options().open(&path).unwrap();
            }
            let way = WAYS[random.below(3) as usize];
            copies.retain(|copy| match catch_up(&leader, copy, way, folder.path()) {
                Ok(()) => {
                    assert_eq!(everything_in(copy), everything_in(&leader), "seed {seed}, {way:?}");
                    true
                }
                Err(Error::HistoryTruncated { .. }) => false,
                Err(error) => panic!("seed {seed}, {way:?}: {error}"),
            });
        }
    }
}
