//! Stores that follow another one are equal to it.

use super::*;

/// A follower of each kind, for the same leader.
struct Followers<'f> {
    leader: &'f Store,
    folder: &'f Path,
    /// Applies the commits themselves, what was sent of them, and increments.
    direct: Store,
    sent: Store,
    increments: Store,
    feed: Feed,
    /// How often the history was gone.
    anew: u64,
}

impl<'f> Followers<'f> {
    fn new(leader: &'f Store, folder: &'f Path) -> Followers<'f> {
        let [direct, sent, increments] =
            ["direct", "sent", "increments"].map(|name| Store::options().tiny_steps().open(folder.join(name)).unwrap());
        Followers { leader, folder, direct, sent, increments, feed: leader.changes(0).unwrap(), anew: 0 }
    }

    fn catch_up(&mut self) {
        match catch_up(&mut self.feed, &self.direct) {
            Ok(_) => {}
            Err(Error::HistoryTruncated { .. }) => {
                self.anew += 1;
                self.direct = self.begin_anew("direct");
                self.feed = self.leader.changes(seen_by(&self.direct)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        match self.receive() {
            Ok(()) => {}
            Err(Error::HistoryTruncated { .. }) => self.sent = self.begin_anew("sent"),
            Err(error) => panic!("{error}"),
        }
        let path = self.folder.join("increment");
        let since = seen_by(&self.increments);
        match self.leader.backup_since_with(since, &path, BackupOptions::new().overwrite(true)) {
            Ok(report) => {
                let applied = self.increments.apply_increment(&path).unwrap();
                assert!(report.finished && (applied > 0 || report.seq == since), "{report:?}");
                assert_eq!(seen_by(&self.increments), report.seq);
                assert_eq!(self.increments.apply_increment(&path).unwrap(), 0);
            }
            Err(Error::HistoryTruncated { .. }) => self.increments = self.begin_anew("increments"),
            Err(error) => panic!("{error}"),
        }
        let expected = everything_in(self.leader);
        for (name, follower) in [("direct", &self.direct), ("sent", &self.sent), ("increments", &self.increments)] {
            assert_eq!(everything_in(follower), expected, "{name}");
        }
    }

    fn receive(&self) -> slotlog::Result<()> {
        let mut feed = self.leader.changes(seen_by(&self.sent))?;
        let mut bytes = Vec::new();
        while let Some(commit) = feed.next_commit()? {
            commit.write_to(&mut bytes)?;
        }
        let mut left = &bytes[..];
        while self.sent.apply_from(&mut left)?.is_some() {}
        assert!(left.is_empty());
        Ok(())
    }

    /// A new follower, from a backup of the leader.
    fn begin_anew(&self, name: &str) -> Store {
        let path = self.folder.join(format!("{name} {}", self.leader.seq().unwrap()));
        self.leader.backup(&path).unwrap();
        Store::options().tiny_steps().open(&path).unwrap()
    }
}

#[test]
fn followers_are_equal_to_their_leader() {
    let (mut anew, mut commits) = (0, 0);
    for seed in 1..=support::setting("SLOTLOG_FOLLOW_SEEDS", 6) {
        let mut random = Random(seed);
        let folder = folder();
        let leader = Store::options().tiny_steps().open(folder.path().join("leader")).unwrap();
        let mut followers = Followers::new(&leader, folder.path());
        for _ in 0..60 {
            for _ in 0..random.below(40) {
                change_and_keep_up(&leader, &mut random);
            }
            followers.catch_up();
        }
        for follower in [&followers.direct, &followers.sent, &followers.increments] {
            assert_clean(follower);
        }
        (anew, commits) = (anew + followers.anew, commits + leader.stats().unwrap().commits);
    }
    assert!(anew > 0 && commits > 1000, "{anew}, {commits}");
}

/// A chain: what follows a follower is equal to the first one.
#[test]
fn a_follower_can_be_followed() {
    let mut random = Random(7);
    let [first, second, third] = [(); 3].map(|()| Store::options().auto_compact(None).in_memory().unwrap());
    let (mut to_second, mut to_third) = (first.changes(0).unwrap(), second.changes(0).unwrap());
    for _ in 0..1000 {
        change(&first, &mut random);
        catch_up(&mut to_second, &second).unwrap();
        catch_up(&mut to_third, &third).unwrap();
    }
    assert_eq!(everything_in(&third), everything_in(&first));
    let origin = third.origin().unwrap().unwrap();
    assert_eq!((origin.store, origin.seq), (second.stats().unwrap().uuid, to_third.seq()));
}

/// A feed that has nothing to tell holds nothing.
#[test]
fn a_feed_that_waits_keeps_no_space() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    store.insert("key", "value").unwrap();
    let mut feed = store.changes(0).unwrap();
    assert!(feed.next_commit().unwrap().is_some());
    assert_eq!(store.stats().unwrap().pins, 1);
    assert!(feed.next_commit().unwrap().is_none());
    assert_eq!(store.stats().unwrap().pins, 0);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let commit = feed.wait_for_commit(Duration::from_secs(60)).unwrap();
            commit.map(|commit| commit.iter().count())
        });
        while store.stats().unwrap().pins > 0 {
            std::thread::yield_now();
        }
        store.insert("key", "again").unwrap();
        assert_eq!(waits.join().unwrap(), Some(1));
    });
    assert!(feed.wait_for_commit(Duration::from_millis(1)).unwrap().is_none());
}

#[test]
fn a_reader_tells_changes() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.map::<str, u32>("ages").unwrap().insert("Ada", 36).unwrap();
    let reader = support::read_only(&path).unwrap();
    let mut feed = reader.changes(0).unwrap();
    let follower = Store::in_memory().unwrap();
    assert_eq!(catch_up(&mut feed, &follower).unwrap(), 2);
    store.insert("key", "value").unwrap();
    assert!(feed.wait_for_commit(Duration::from_secs(60)).unwrap().unwrap().apply(&follower).unwrap());
    assert_eq!(everything_in(&follower), everything_in(&store));
    store.close_last().unwrap();
    // Of a closed store, too.
    let other = Store::in_memory().unwrap();
    catch_up(&mut reader.changes(0).unwrap(), &other).unwrap();
    assert_eq!(everything_in(&other), everything_in(&reader));
}

/// A leader loses commits that its follower has: the follower does not go on as if nothing had happened.
#[test]
fn a_follower_does_not_follow_a_leader_that_has_lost_its_commits() {
    let folder = folder();
    let (path, cut) = (folder.path().join("store"), folder.path().join("cut"));
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    store.set_bookmark("follower", store.seq().unwrap(), 1 << 20).unwrap();
    // A copy is what a power cut leaves.
    std::fs::copy(&path, &cut).unwrap();
    store.insert("lost", "value").unwrap();
    let [ahead, beside] = [(); 2].map(|()| Store::in_memory().unwrap());
    let mut feed = store.changes(0).unwrap();
    assert!(feed.next_commit().unwrap().unwrap().apply(&beside).unwrap());
    catch_up(&mut store.changes(0).unwrap(), &ahead).unwrap();

    let store = Store::open(&cut).unwrap();
    store.insert("new", "value").unwrap();
    let error = store.changes(seen_by(&ahead)).unwrap_err();
    assert!(matches!(error, Error::HistoryTruncated { .. }), "{error}");
    let from_the_bookmark = || store.changes(store.bookmarks().unwrap()[0].seq).unwrap();
    let before = everything_in(&ahead);
    let error = catch_up(&mut from_the_bookmark(), &ahead).unwrap_err();
    assert!(matches!(error, Error::CannotFollow { origin: Some(_), .. }), "{error}");
    assert_eq!(everything_in(&ahead), before);
    catch_up(&mut from_the_bookmark(), &beside).unwrap();
    assert_eq!(everything_in(&beside), everything_in(&store));
}
