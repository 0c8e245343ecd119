//! Copies of a store in use: what they have of one commit comes back.

use super::*;

/// A copy made in pieces from the front, with changes in between, as `cp` makes it beside a writer.
fn torn_copy(store: &Store, path: &Path, random: &mut Random) -> (Vec<u8>, Vec<All>) {
    let mut copy = Vec::new();
    let mut commits = vec![everything(store)];
    loop {
        let file = fs::read(path).unwrap();
        let to = (copy.len() + 4096 * (1 + random.below(20) as usize)).min(file.len());
        if copy.len() >= to {
            return (copy, commits);
        }
        copy.extend(&file[copy.len()..to]);
        for _ in 0..random.below(80) {
            store.insert(format!("key {}", random.below(200)), random.bytes(80)).unwrap();
            commits.push(everything(store));
        }
    }
}

#[test]
fn a_copy_of_a_store_in_use_shows_one_of_its_commits() {
    let (mut whole, mut with_more) = (0, 0);
    for seed in 1..31 {
        let folder = folder();
        let path = folder.path().join("store");
        // In every second one, space is reused meanwhile, and the log goes back to places that were copied before.
        let is_reused = seed % 2 == 0;
        let options = Store::options();
        let options = if is_reused { options.tiny_steps() } else { options.auto_compact(None) };
        let store = options.open(&path).unwrap();
        let mut random = Random(seed);
        change(&store, &mut random, 1500, 200);
        let (copy, commits) = torn_copy(&store, &path, &mut random);
        let (found, report) = repaired(&copy, RepairOptions::new());
        let found = everything(&found);
        assert!(report.commit().is_some() || is_reused, "seed {seed}: {:?}", report.findings());
        if report.commit().is_some() {
            assert!(commits.contains(&found), "seed {seed}: {:?}", report.findings());
            whole += 1;
            with_more += u64::from(report.finding_count() > 0);
        } else {
            assert!(report.finding_count() > 0, "what is missing is said");
        }
    }
    assert!(whole > 15, "{whole} show a commit");
    assert!(with_more > 0, "some copies have pieces of later commits, and say so");
}

#[test]
fn a_copy_of_a_store_in_use_that_was_killed_equals_it() {
    for seed in 1..5 {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        change(&store, &mut Random(seed), 2000, 200);
        let before = everything(&store);
        let (found, report) = repaired(&fs::read(&path).unwrap(), RepairOptions::new());
        assert!(report.is_whole(), "{:?}", report.findings());
        assert_eq!(everything(&found), before);
    }
}
