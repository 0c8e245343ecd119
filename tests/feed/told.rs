//! What is told is what has happened: a model that knows nothing else has the same content.

use slotlog::Seq;

use super::*;

/// The maps of a store by their numbers, as its feed tells of them.
#[derive(Debug, Default)]
struct Model {
    maps: BTreeMap<u32, (String, String, u32, support::Entries)>,
    expired: u64,
}

impl Model {
    fn new() -> Model {
        let default = (String::new(), String::new(), 0, support::Entries::new());
        Model { maps: BTreeMap::from([(1, default)]), expired: 0 }
    }

    /// Applies all that is new.
    fn follow(&mut self, feed: &mut Feed) -> slotlog::Result<()> {
        while let Some(commit) = feed.next_commit()? {
            assert!(commit.iter().count() > 0);
            for told in &commit {
                let told = told?;
                if let FeedChangeKind::Create { version, types } = told.kind {
                    let map = (told.name.to_owned(), types.to_owned(), version, support::Entries::new());
                    assert!(self.maps.insert(told.map, map).is_none());
                    continue;
                }
                let (name, _, _, entries) = self.maps.get_mut(&told.map).unwrap();
                match told.kind {
                    FeedChangeKind::Rename { from } => {
                        assert_eq!(name, from);
                        told.name.clone_into(name);
                    }
                    _ => assert_eq!(name, told.name),
                }
                match told.kind {
                    FeedChangeKind::Insert { key, value, expires } => {
                        entries.insert(key.to_vec(), (value.to_vec(), expires));
                    }
                    FeedChangeKind::Remove { key } => drop(entries.remove(key).unwrap()),
                    FeedChangeKind::Expire { key } => {
                        let (_, until) = entries.remove(key).unwrap();
                        assert!(until.unwrap() <= SystemTime::now());
                        self.expired += 1;
                    }
                    FeedChangeKind::Clear => entries.clear(),
                    FeedChangeKind::Drop => drop(self.maps.remove(&told.map)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What a reader sees of it now.
    fn visible(&self) -> Everything {
        let now = SystemTime::now();
        let maps = self.maps.values().map(|(name, types, version, entries)| {
            let mut entries = entries.clone();
            entries.retain(|_, (_, until)| until.is_none_or(|until| until > now));
            (name.clone(), (types.clone(), *version, entries))
        });
        Everything(maps.collect())
    }
}

#[test]
fn a_model_that_follows_has_the_same_content() {
    let mut expired = 0;
    for seed in 1..=support::setting("SLOTLOG_FEED_SEEDS", 12) {
        let mut random = Random(seed);
        // The steps of compaction are tiny, and the feed lets go after each few records.
        let store = Store::options().tiny_steps().in_memory().unwrap();
        let mut feed = store.changes(0).unwrap();
        store.set_bookmark("model", 0, u64::MAX).unwrap();
        let mut model = Model::new();
        for step in 0..3000 {
            change_and_keep_up(&store, &mut random);
            if random.one_in(6) {
                model.follow(&mut feed).unwrap();
                store.set_bookmark("model", feed.seq(), u64::MAX).unwrap();
                assert_eq!(model.visible(), everything_in(&store), "seed {seed}, step {step}");
            }
        }
        expired += model.expired;
    }
    assert!(expired > 100, "{expired}");
}

/// The names of the maps are those of that time, wherever the feed begins.
#[test]
fn a_feed_from_anywhere_tells_the_same() {
    type Told = Vec<(Seq, u32, String, String)>;

    fn all(store: &Store, from: Seq) -> Told {
        let mut feed = store.changes(from).unwrap();
        let mut all = Told::new();
        while let Some(commit) = feed.next_commit().unwrap() {
            for told in &commit {
                let told = told.unwrap();
                all.push((commit.seq(), told.map, told.name.to_owned(), format!("{:?}", told.kind)));
            }
        }
        assert_eq!(feed.seq(), store.seq().unwrap());
        all
    }

    for seed in 1..6 {
        let mut random = Random(seed);
        let store = Store::options().auto_compact(None).in_memory().unwrap();
        for _ in 0..600 {
            change(&store, &mut random);
        }
        let from_the_start = all(&store, Seq::ZERO);
        let last = store.seq().unwrap();
        let mut seqs: Vec<Seq> = from_the_start.iter().map(|told| told.0).collect();
        seqs.dedup();
        for from in seqs.into_iter().chain([last]).filter(|_| random.one_in(7)) {
            let rest: Told = from_the_start.iter().filter(|told| told.0 > from).cloned().collect();
            assert_eq!(all(&store, from), rest, "seed {seed}, from {from:#x}");
        }
    }
}
