//! Logs that fall into pieces: long commits, transactions that were rolled back, pages in the wrong place.

use super::*;

/// Fills the page of the file that a record begins in.
fn damage_page_of(bytes: &mut [u8], record: &Logged) {
    let page = record.at / 4096;
    bytes[page * 4096..][..4096].fill(0xa5);
}

/// How many keys have a record that is as it was.
fn untouched(log: &[Logged], whole: &[u8], damaged: &[u8]) -> u64 {
    let is_put = |record: &&Logged| record.kind() == Kind::Put && u32::from(record.header.map()) == 1;
    let is_whole = |record: &&Logged| damaged[record.at..record.end()] == whole[record.at..record.end()];
    log.iter().filter(is_put).filter(is_whole).count() as u64
}

#[test]
fn pieces_of_one_long_commit_are_kept() {
    for others in [0, 20] {
        let whole = closed_store(|store| {
            (0..others).for_each(|number| store.insert(format!("before {number}"), "value").unwrap());
            let mut transaction = store.begin().unwrap();
            (0..3000).for_each(|number| transaction.insert(format!("key {number}"), [7; 50]).unwrap());
            transaction.commit().unwrap();
            (0..others).for_each(|number| store.insert(format!("after {number}"), "value").unwrap());
        });
        let log = log(&whole);
        for victims in [&[100, 2900][..], &[1000, 2000], &[600, 1200, 1800, 2400]] {
            for front in [0, 8192, 65536] {
                let mut damaged = whole.clone();
                victims.iter().for_each(|&victim| damage_page_of(&mut damaged, &log[victim]));
                damaged[..front].fill(0);
                let (store, report) = repaired(&damaged, RepairOptions::new());
                let expected = untouched(&log, &whole, &damaged);
                let what = format!("{others}, {victims:?}, {front}: {:?}", report.findings());
                assert_eq!(store.len().unwrap(), expected, "{what}");
                assert_eq!(report.doubtful_records(), 0, "{what}");
            }
        }
    }
}

#[test]
fn what_was_rolled_back_stays_away_beside_damage() {
    for is_closed in [true, false] {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().auto_compact(None).open(&path).unwrap();
        (0..100).for_each(|number| store.insert(format!("key {number:02}"), "committed").unwrap());
        let mut transaction = store.begin().unwrap();
        for number in 50..150 {
            transaction.insert(format!("key {number:02}"), "rolled back").unwrap();
        }
        let in_progress = fs::read(&path).unwrap();
        transaction.rollback();
        store.close_last().unwrap();
        let whole = if is_closed { fs::read(&path).unwrap() } else { in_progress };
        let log = log_until_commit(&whole);
        for victim in [10, 50, 99] {
            for front in [0, 8192] {
                let mut damaged = whole.clone();
                damaged[log[victim].at + 20] ^= 1;
                damaged[..front].fill(0);
                let (store, report) = repaired(&damaged, RepairOptions::new());
                let found = content(&store);
                let what = format!("closed {is_closed}, {victim}, {front}: {:?}", report.findings());
                assert!(found.values().all(|value| value == b"committed"), "{what}");
                assert_eq!(found.len(), 99, "{what}");
            }
        }
    }
}

/// The records from the beginning of the log to the last commit, whether the store was closed or not. Without their
/// keys and values.
fn log_until_commit(bytes: &[u8]) -> Vec<Logged> {
    let superblock = superblock(bytes);
    let (mut at, mut chain) = (superblock.log_head.get() as usize, superblock.head_chain.get());
    let mut records: Vec<Logged> = Vec::new();
    loop {
        let (header, _) = RecordHeader::read_from_prefix(&bytes[at..]).unwrap();
        let record = Logged { at, header, key: Vec::new(), value: Vec::new() };
        let holds = |content: &[u8]| crc32fast::hash(content) == header.crc.get();
        if header.chain.get() != chain || !bytes.get(at + 4..record.end()).is_some_and(holds) {
            break;
        }
        chain = header.crc.get();
        at = match record.kind() {
            Kind::Jump => u64::from_le_bytes(bytes[at + 32..at + 40].try_into().unwrap()) as usize,
            _ => record.end(),
        };
        records.push(record);
    }
    while records.last().is_some_and(|last| last.header.flags & flags::COMMIT == 0) {
        records.pop();
    }
    records
}

/// In a log that no longer begins at the beginning of an extent, what precedes it leads to it.
#[test]
fn a_damaged_first_record_loses_one_key() {
    for seed in 0..20 {
        let whole = closed_store(|store| {
            change(store, &mut Random(seed), 1500, 200);
            store.compact().unwrap();
            change(store, &mut Random(seed + 100), 300, 200);
        });
        let log = log(&whole);
        let mut damaged = whole.clone();
        damaged[log[0].at + 33] ^= 1;
        let (store, report) = repaired(&damaged, RepairOptions::new());
        let (all, _) = repaired(&whole, RepairOptions::new());
        let count = |store: &Store| everything(store).values().map(BTreeMap::len).sum::<usize>();
        assert!(count(&store) + 1 >= count(&all), "seed {seed}: {:?}", report.findings());
    }
}

/// A write that went to the wrong place.
#[test]
fn a_page_in_another_place_loses_no_other_keys() {
    let mut wrong = 0;
    for seed in 0..40 {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().tiny_steps().open(&path).unwrap();
        let mut random = Random(seed);
        for _ in 0..2000 {
            store.insert(format!("key {}", random.below(150)), random.bytes(80)).unwrap();
        }
        let before = content(&store);
        store.close_last().unwrap();
        let whole = fs::read(&path).unwrap();
        let log = log(&whole);
        for _ in 0..4 {
            let page_of = |record: &Logged| record.at / 4096 * 4096;
            let [from, to] = [(); 2].map(|()| page_of(&log[random.below(log.len() as u64) as usize]));
            let mut damaged = whole.clone();
            damaged.copy_within(from..from + 4096, to);
            let (store, report) = repaired(&damaged, RepairOptions::new());
            let found = content(&store);
            let lost: std::collections::BTreeSet<&Vec<u8>> = log
                .iter()
                .filter(|record| damaged[record.at..record.end()] != whole[record.at..record.end()])
                .map(|record| &record.key)
                .collect();
            let what = format!("seed {seed}, {from} over {to}: {:?}", report.findings());
            for (key, value) in &before {
                assert!(
                    found.get(key) == Some(value) || lost.contains(key),
                    "{what}: {}",
                    String::from_utf8_lossy(key)
                );
            }
            wrong += u64::from(from != to);
        }
    }
    assert!(wrong > 100);
}

/// After a power cut, the index may be older than the log, which alone was flushed.
#[test]
fn an_older_index_is_not_believed() {
    for is_removed in [false, true] {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().auto_compact(None).open(&path).unwrap();
        (0..100).for_each(|number| store.insert(format!("a {number}"), [1; 100]).unwrap());
        store.close_last().unwrap();
        let before = fs::read(&path).unwrap();
        let store = Store::options().auto_compact(None).open(&path).unwrap();
        for number in (0..100).filter(|_| is_removed) {
            store.remove(format!("a {number}")).unwrap();
        }
        (0..100).for_each(|number| store.insert(format!("b {number}"), [2; 100]).unwrap());
        store.sync().unwrap();
        let mut cut = fs::read(&path).unwrap();
        let log = log_until_commit(&cut);
        let is_log =
            |page: usize| log.iter().any(|record| record.at / 4096 <= page && page <= (record.end() - 1) / 4096);
        for page in (16..before.len() / 4096).filter(|&page| !is_log(page)) {
            cut[page * 4096..][..4096].copy_from_slice(&before[page * 4096..][..4096]);
        }
        let whole = cut.clone();
        let victim = log.iter().rposition(|record| record.kind() == Kind::Remove).unwrap_or(log.len() - 20);
        damage_page_of(&mut cut, &log[victim]);
        let (store, report) = repaired(&cut, RepairOptions::new());
        let found = content(&store);
        let of_b = |record: &&Logged| record.kind() == Kind::Put && whole[record.at + 32] == b'b';
        let is_whole = |record: &&Logged| cut[record.at..record.end()] == whole[record.at..record.end()];
        let expected = log.iter().filter(of_b).filter(is_whole).count();
        let what = format!("{is_removed}: {:?}", report.findings());
        assert_eq!(found.keys().filter(|key| key.starts_with(b"b")).count(), expected, "{what}");
        let of_a = found.keys().filter(|key| key.starts_with(b"a")).count() as u64;
        assert!(!is_removed || report.doubtful_keys() >= of_a, "{what}: {of_a} came back silently");
    }
}

#[test]
fn a_store_is_not_whole_if_nothing_tells_where_it_ended() {
    let whole = closed_store(|store| (0..100).for_each(|number| store.insert(format!("{number}"), "value").unwrap()));
    let log = log(&whole);
    let last = &log[log.len() - 1];
    for newest in [0, 4096] {
        let mut damaged = whole.clone();
        damaged[newest..newest + 4096].fill(0xa5);
        damaged[8192..65536].fill(0);
        damaged[last.at..last.end()].fill(0);
        let (store, report) = repaired(&damaged, RepairOptions::new());
        assert!(store.len().unwrap() == 99 && !report.is_whole(), "{report:?}");
    }
}

/// In a large index, much looks like the beginning of a record.
#[test]
fn a_large_store_is_whole() {
    let whole = closed_store(|store| {
        for first in (0..200_000u32).step_by(4000) {
            let mut transaction = store.begin().unwrap();
            (first..first + 4000).for_each(|number| transaction.insert(number.to_le_bytes(), [3; 100]).unwrap());
            transaction.commit().unwrap();
        }
    });
    let (store, report) = repaired(&whole, RepairOptions::new());
    assert!(report.is_whole() && store.len().unwrap() == 200_000, "{:?}", report.findings());
}

/// What a transaction has done since a savepoint, before it went back to it.
fn rolled_back(transaction: &mut Transaction, what: usize) {
    // Into other extents than those of the savepoint.
    (0..30).for_each(|number| transaction.insert(format!("filler {number}"), vec![7; 60_000]).unwrap());
    match what {
        0 => (0..50).for_each(|number| transaction.insert(format!("ghost {number}"), "rolled back").unwrap()),
        1 => (0..50).for_each(|number| transaction.insert(format!("old {number}"), "rolled back").unwrap()),
        2 => (0..50).for_each(|number| assert!(transaction.remove(format!("old {number}")).unwrap())),
        3 => assert!(transaction.drop_map("kept").unwrap()),
        _ => transaction.bytes().clear().unwrap(),
    }
    (0..50).for_each(|number| transaction.insert(format!("ghost {number}"), "rolled back").unwrap());
}

#[test]
fn what_went_back_to_a_savepoint_stays_away_beside_damage() {
    for case in 0..90 {
        let (what, is_closed, front) = (case % 5, case % 2 == 0, [0, 8192, 65536][case % 3]);
        let mut random = Random(case as u64);
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().auto_compact(None).open(&path).unwrap();
        let kept = store.map::<[u8], [u8]>("kept").unwrap();
        (0..50).for_each(|number| kept.insert(format!("kept {number}").as_bytes(), b"committed").unwrap());
        (0..50).for_each(|number| store.insert(format!("old {number}"), "committed").unwrap());
        let mut transaction = store.begin().unwrap();
        (0..50).for_each(|number| transaction.insert(format!("first {number}"), [b'f'; 300]).unwrap());
        let savepoint = transaction.savepoint().unwrap();
        rolled_back(&mut transaction, what);
        transaction.rollback_to(&savepoint).unwrap();
        let second = [50, 500][case / 2 % 2];
        (0..second).for_each(|number| transaction.insert(format!("second {number}"), [b's'; 300]).unwrap());
        transaction.commit().unwrap();
        (0..10).for_each(|number| store.insert(format!("after {number}"), "committed").unwrap());
        let in_use = fs::read(&path).unwrap();
        drop(kept);
        store.close_last().unwrap();
        let mut damaged = if is_closed { fs::read(&path).unwrap() } else { in_use };
        // Some pages of the commit.
        let is_of_it =
            |page: &&[u8]| [b'f', b's'].iter().any(|&fill| page.windows(200).any(|part| part == [fill; 200]));
        let mut pages: Vec<&mut [u8]> = damaged.chunks_mut(4096).filter(|page| is_of_it(&&**page)).collect();
        let inner = pages.len() as u64 - 3;
        (0..1 + case % 3).for_each(|_| pages[1 + random.below(inner) as usize].fill(0xa5));
        damaged[..front].fill(0);
        let (store, report) = repaired(&damaged, RepairOptions::new());
        let what = format!("{what}, closed {is_closed}, {front}: {:?}", report.findings());
        let all = everything(&store);
        let of = |of_map: &BTreeMap<Vec<u8>, Vec<u8>>, begin: &str| -> Vec<Vec<u8>> {
            of_map.iter().filter(|(key, _)| key.starts_with(begin.as_bytes())).map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(of(&all[""], "ghost").len() + of(&all[""], "filler").len(), 0, "{what}");
        assert_eq!(of(&all[""], "old"), vec![b"committed"; 50], "{what}");
        assert_eq!(of(&all[""], "after"), vec![b"committed"; 10], "{what}");
        let kept = of(&all[""], "first").len() + of(&all[""], "second").len();
        assert!(kept >= second + 10, "{what}: {kept}");
        assert_eq!(all["kept"].len(), 50, "{what}");
    }
}
