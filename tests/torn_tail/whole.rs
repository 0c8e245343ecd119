//! Complete logs: recovery yields the same store.

use super::*;

/// One operation on a store that will be recovered.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Put(u8, u32),
    Remove(u8),
    /// Puts (with the length of the value) and removals at once; committed or not.
    Transaction(Vec<(u8, Option<u32>)>, bool),
    Clear,
    Checkpoint,
    Reopen,
}

pub(super) fn lengths() -> impl Strategy<Value = u32> {
    // Around a sector, and longer than the smallest extent of the log.
    prop_oneof![2 => Just(0), 20 => 0..100_u32, 3 => 480..560_u32, 2 => 1000..9000_u32, 1 => 60_000..90_000_u32]
}

pub(super) fn operations() -> impl Strategy<Value = Operation> {
    let change = (any::<u8>(), prop::option::weighted(0.7, lengths()));
    prop_oneof![
        20 => (any::<u8>(), lengths()).prop_map(|(key, len)| Operation::Put(key, len)),
        10 => any::<u8>().prop_map(Operation::Remove),
        8 => (prop::collection::vec(change, 0..12), prop::bool::weighted(0.7))
            .prop_map(|(changes, committed)| Operation::Transaction(changes, committed)),
        1 => Just(Operation::Clear),
        1 => Just(Operation::Checkpoint),
        2 => Just(Operation::Reopen),
    ]
}

/// One of a few keys, so that they are overwritten and removed, some of them much longer than others.
pub(super) fn key(number: u8) -> Vec<u8> {
    vec![b'a' + number % 26; if number.is_multiple_of(29) { 700 } else { number as usize % 4 }]
}

pub(super) fn value(number: u8, len: u32) -> Vec<u8> {
    Random(number.into()).bytes(len as usize)
}

pub(super) fn run(store: &Store, operation: &Operation) {
    match operation {
        Operation::Put(number, len) => store.insert(key(*number), value(*number, *len)).unwrap(),
        Operation::Remove(number) => drop(store.remove(key(*number)).unwrap()),
        Operation::Transaction(changes, committed) => {
            let mut transaction = store.begin().unwrap();
            for (number, len) in changes {
                match len {
                    Some(len) => transaction.insert(key(*number), value(*number, *len)).unwrap(),
                    None => drop(transaction.remove(key(*number)).unwrap()),
                }
            }
            if *committed { transaction.commit().unwrap() } else { transaction.rollback() }
        }
        Operation::Clear => store.clear().unwrap(),
        Operation::Checkpoint => store.checkpoint().unwrap(),
        Operation::Reopen => {}
    }
}

/// The properties of a store that recovery must not change.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    content: BTreeMap<Vec<u8>, Vec<u8>>,
    len: u64,
    live_bytes: u64,
    uuid: String,
    /// Number, keys and bytes of the maps.
    maps: Vec<(u32, u64, u64)>,
}

impl Seen {
    fn of(store: &Store) -> Seen {
        assert_clean(store);
        let stats = store.stats().unwrap();
        Seen {
            content: support::content(store),
            len: store.len().unwrap(),
            live_bytes: stats.live_bytes,
            uuid: stats.uuid,
            maps: stats.maps.iter().map(|map| (map.id, map.entries, map.live_bytes)).collect(),
        }
    }
}

/// The file of a closed store, as if it had not been closed.
pub(super) fn unclosed(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let mut was_clean = false;
    for at in [SUPERBLOCK_A as usize, SUPERBLOCK_B as usize] {
        let mut superblock = Superblock::read_from_prefix(&bytes[at..]).unwrap().0;
        if superblock.magic == MAGIC {
            was_clean |= superblock.is_clean();
            superblock.flags = (superblock.flags.get() & !superblock_flags::CLEAN).into();
            bytes[at..at + 512].copy_from_slice(superblock.sealed().as_bytes());
        }
    }
    assert!(was_clean);
    bytes
}

/// Opens a file with these bytes, and checks that recovery has kept all properties of the store.
pub(super) fn recovered(path: &Path, bytes: &[u8], before: &Seen, (records, log_bytes, seq): (u64, u64, u64)) -> Store {
    anew(path, bytes);
    let store = as_it_is(path);
    assert_eq!(store.opened(), Opened::AfterPowerCut { records, bytes: log_bytes });
    // Not `assert_eq!`, which would print all values.
    let after = Seen::of(&store);
    let differs = before.content.iter().find(|(key, value)| after.content.get(*key) != Some(value));
    assert!(differs.is_none(), "the value of {:?} is another", differs.unwrap().0);
    assert!(after == *before, "{:?} became {:?}", before.maps, after.maps);
    // The new life is the next one, and its numbers are larger than all before.
    let now = u64::from(store.seq().unwrap());
    assert_eq!(now >> COUNT_BITS, (seq >> COUNT_BITS) + 1);
    assert!(now & ((1 << COUNT_BITS) - 1) > seq & ((1 << COUNT_BITS) - 1), "{seq:#x} became {now:#x}");
    store
}

/// Opens a store whose log is not changed by closing.
pub(super) fn as_it_is(path: &Path) -> Store {
    Store::options().auto_compact(None).open(path).unwrap()
}

/// The log as a recovery will find it: its records, its bytes, and its last number.
pub(super) fn log_of(store: &Store) -> (u64, u64, u64) {
    let stats = store.stats().unwrap();
    (stats.log_records, stats.log_bytes, store.seq().unwrap().into())
}

pub(super) fn config() -> ProptestConfig {
    let mut config = ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn recovery_of_a_whole_log_changes_nothing(operations in prop::collection::vec(operations(), 0..120)) {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let mut store = as_it_is(&path("store"));
        for operation in &operations {
            if matches!(operation, Operation::Reopen) {
                store.close().unwrap();
                store = as_it_is(&path("store"));
            }
            run(&store, operation);
        }
        // A write, so that the store no longer counts as closed.
        store.insert("the last", "put").unwrap();
        // From here the log is walked.
        store.checkpoint().unwrap();
        let (before, log) = (Seen::of(&store), log_of(&store));
        // The file that was copied while the store was open.
        drop(recovered(&path("copy"), &fs::read(path("store")).unwrap(), &before, log));
        // The file of the closed store, recovered, closed, and recovered again.
        store.close().unwrap();
        let once = recovered(&path("once"), &unclosed(&path("store")), &before, log);
        let log = log_of(&once);
        once.close().unwrap();
        let twice = recovered(&path("twice"), &unclosed(&path("once")), &before, log);
        // It continues from there.
        let seq = twice.seq().unwrap();
        twice.insert("the last", "word").unwrap();
        prop_assert!(twice.seq().unwrap() > seq);
        prop_assert_eq!(twice.changes_since(seq).unwrap().iter().count(), 1);
        prop_assert_eq!(twice.len().unwrap(), before.len);
    }
}
