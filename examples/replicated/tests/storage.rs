//! The storage by itself: the test suite of the engine, and what the engine does not test.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/power_cut.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod power_cut;

use std::error::Error;
use std::fs;
use std::io::{Seek, Write};
use std::path::Path;

use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine, Snapshot,
};
use openraft::testing::{StoreBuilder, Suite, log_id};
use openraft::{Entry, EntryPayload, StorageError, Vote};
use replicated::store::{self, Log, OpenError, State};
use replicated::{Change, NodeId, Request, Types};
use slotlog::Store;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const NODE: NodeId = 1;

/// A folder in memory if the system has one: these tests are not about the disk.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn create(folder: &Path) -> (Log, State) {
    store::open(folder, NODE, true, Store::options()).unwrap()
}

/// The node of a folder that this process or another one has used before.
fn reopen(folder: &Path) -> (Log, State) {
    store::open(folder, NODE, false, Store::options()).unwrap()
}

/// An entry that sets `keys` to its index.
fn entry(index: u64, keys: &[&str]) -> Entry<Types> {
    let put = |key: &&str| Request { key: (*key).into(), expected: None, change: Change::Put(text(index)) };
    Entry { log_id: log_id(1, NODE, index), payload: EntryPayload::Normal(keys.iter().map(put).collect()) }
}

fn text(index: u64) -> Vec<u8> {
    index.to_string().into()
}

fn value(state: &State, key: &str) -> Option<Vec<u8>> {
    state.get(key).unwrap().map(|(_, value)| value)
}

/// What a power cut would leave of a store in use after each of its commits that was not flushed, in a folder each.
fn after_each_commit(of: &Path) -> Vec<TempDir> {
    let now = fs::read(of.join("node.slotlog")).unwrap();
    let (first, last) = power_cut::commits(&now);
    assert!(last - first > 5, "there were commits that were not flushed");
    let after = |commit| {
        let mut file = now.clone();
        power_cut::cut_after(&mut file, commit);
        let after = folder();
        fs::write(after.path().join("node.slotlog"), file).unwrap();
        after
    };
    (first..=last).map(after).collect()
}

struct Builder;

impl StoreBuilder<Types, Log, State, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, State), StorageError<NodeId>> {
        let folder = folder();
        let (log, state) = create(folder.path());
        Ok((folder, log, state))
    }
}

/// All tests that the engine has for a storage.
#[test]
fn the_engine_is_content() -> Outcome {
    Ok(Suite::test_all(Builder)?)
}

#[tokio::test]
async fn what_was_confirmed_survives_a_power_cut() -> Outcome {
    let (folder, after) = (folder(), folder());
    let (mut log, mut state) = create(folder.path());
    log.blocking_append([entry(0, &["a"]), entry(1, &["a"])]).await?;
    log.save_vote(&Vote::new(7, NODE)).await?;
    log.blocking_append([entry(2, &["a"])]).await?;
    // This is not flushed.
    state.apply([entry(0, &["a"])]).await?;

    let cut = after.path().join("node.slotlog");
    fs::copy(folder.path().join("node.slotlog"), &cut)?;
    assert!(power_cut::cut(&cut) > 0);
    let (mut log, mut state) = reopen(after.path());
    assert_eq!(log.try_get_log_entries(..).await?.len(), 3);
    assert_eq!(log.get_log_state().await?.last_log_id, Some(log_id(1, NODE, 2)));
    assert_eq!(log.read_vote().await?, Some(Vote::new(7, NODE)));
    assert_eq!(state.applied_state().await?.0, None);
    Ok(())
}

/// A node that forgot one could vote for another candidate in the same term. Nothing else is flushed after the vote.
#[tokio::test]
async fn a_vote_alone_survives_a_power_cut() -> Outcome {
    let folder = folder();
    let (mut log, _state) = create(folder.path());
    log.blocking_append([entry(0, &["a"])]).await?;
    for vote in [Vote::new(1, NODE), Vote::new(2, NODE + 1), Vote::new_committed(2, NODE + 1), Vote::new(7, NODE)] {
        log.save_vote(&vote).await?;
        let after = self::folder();
        let cut = after.path().join("node.slotlog");
        fs::copy(folder.path().join("node.slotlog"), &cut)?;
        power_cut::cut(&cut);
        assert_eq!(reopen(after.path()).0.read_vote().await?, Some(vote));
    }
    Ok(())
}

/// It would answer reads from a state that a power cut has set back.
#[tokio::test]
async fn a_leader_that_is_started_again_has_to_be_elected() -> Outcome {
    for (leader, leads) in [(NODE, false), (NODE + 1, true)] {
        let folder = folder();
        let (mut log, state) = create(folder.path());
        log.save_vote(&Vote::new_committed(7, leader)).await?;
        drop((log, state));
        let expected = if leads { Vote::new_committed(7, leader) } else { Vote::new(7, leader) };
        assert_eq!(reopen(folder.path()).0.read_vote().await?, Some(expected));
    }
    Ok(())
}

#[tokio::test]
async fn state_and_position_never_come_apart() -> Outcome {
    let folder = folder();
    let (_log, mut state) = create(folder.path());
    for index in 0..10 {
        state.apply([entry(2 * index, &["a", "b"]), entry(2 * index + 1, &["b", "a"])]).await?;
    }
    let mut positions = Vec::new();
    for after in after_each_commit(folder.path()) {
        // At first there was no node.
        let Ok((_, mut state)) = store::open(after.path(), NODE, false, Store::options()) else { continue };
        let position = state.applied_state().await?.0.map(|last| last.index);
        let expected = position.map(text);
        assert_eq!((value(&state, "a"), value(&state, "b")), (expected.clone(), expected));
        positions.push(position);
    }
    positions.dedup();
    let expected: Vec<_> = std::iter::once(None).chain((0..10).map(|index| Some(2 * index + 1))).collect();
    assert_eq!(positions, expected);
    Ok(())
}

/// A node that has applied entries 0 to 99 to a hundred keys, and a snapshot of it.
async fn with_snapshot(folder: &Path) -> Result<(State, Snapshot<Types>), Box<dyn Error>> {
    let (mut log, mut state) = create(folder);
    let entries: Vec<_> = (0..100).map(|index| entry(index, &[&format!("key {index}"), "last"])).collect();
    log.blocking_append(entries.clone()).await?;
    state.apply(entries).await?;
    let snapshot = state.get_snapshot_builder().await.build_snapshot().await?;
    Ok((state, snapshot))
}

#[tokio::test]
async fn a_snapshot_is_installed_as_a_whole() -> Outcome {
    let (from, to) = (folder(), folder());
    let (_source, snapshot) = with_snapshot(from.path()).await?;
    let (mut log, mut state) = create(to.path());
    log.blocking_append([entry(0, &["old"])]).await?;
    state.apply([entry(0, &["old"])]).await?;
    let vote = Vote::new(3, NODE);
    log.save_vote(&vote).await?;
    let before = to.path().join("node.slotlog");
    let flushed = power_cut::commits(&fs::read(&before)?).0;
    state.install_snapshot(&snapshot.meta, snapshot.snapshot).await?;
    assert_eq!(state.get_current_snapshot().await?.map(|current| current.meta), Some(snapshot.meta.clone()));

    // With each prefix of the commits of the installation: the old state, or the new one.
    let now = fs::read(&before)?;
    let last = power_cut::commits(&now).1;
    let mut installed = 0;
    for commit in flushed..=last {
        let mut file = now.clone();
        power_cut::cut_after(&mut file, commit);
        let after = folder();
        fs::write(after.path().join("node.slotlog"), file)?;
        let (mut log, mut state) = reopen(after.path());
        let position = state.applied_state().await?.0;
        let is_new = position == snapshot.meta.last_log_id;
        assert!(is_new || position == Some(log_id(1, NODE, 0)), "{position:?}");
        assert_eq!(value(&state, "old"), (!is_new).then(|| text(0)));
        for index in 0..100 {
            assert_eq!(value(&state, &format!("key {index}")), is_new.then(|| text(index)));
        }
        // What only this node has promised is untouched.
        assert_eq!(log.read_vote().await?, Some(vote));
        installed += u32::from(is_new);
    }
    assert!(installed > 0 && u64::from(installed) < last - flushed, "{installed} of {}", last - flushed);
    // It goes on from there, with the versions of the others.
    drop((log, state));
    let (_, mut state) = reopen(to.path());
    state.apply([entry(100, &["last"])]).await?;
    assert_eq!(state.get("last")?, Some((201, text(100))));
    Ok(())
}

#[tokio::test]
async fn another_snapshot_than_announced_or_a_damaged_one_is_refused() -> Outcome {
    let (from, to) = (folder(), folder());
    let (_source, mut snapshot) = with_snapshot(from.path()).await?;
    let (_log, mut state) = create(to.path());
    state.apply([entry(0, &["old"])]).await?;
    let mut other = snapshot.meta.clone();
    other.snapshot_id = "another one".into();
    let refused = state.install_snapshot(&other, Box::new(snapshot.snapshot.try_clone().await?)).await.unwrap_err();
    assert!(refused.to_string().contains("was announced"), "{refused}");

    let mut bytes = fs::read(from.path().join("snapshot.slotlog"))?;
    // In the log, which does not matter, and in the state.
    let places: Vec<_> = (0..bytes.len() - 8).filter(|&at| bytes[at..].starts_with(b"key 50")).collect();
    assert!(places.len() > 1);
    places.into_iter().for_each(|at| bytes[at + 8] ^= 1);
    let mut file = tempfile::tempfile()?;
    file.write_all(&bytes)?;
    file.rewind()?;
    snapshot.snapshot = Box::new(tokio::fs::File::from_std(file));
    let refused = state.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap_err();
    assert!(refused.to_string().contains("corrupt"), "{refused}");
    assert_eq!(value(&state, "old"), Some(text(0)));
    assert_eq!(value(&state, "last"), None);
    Ok(())
}

/// After a power cut, the file of a snapshot may be newer than the store, or the store than the file.
#[tokio::test]
async fn only_a_snapshot_that_fits_the_store_is_kept() -> Outcome {
    let folder = folder();
    let (state, snapshot) = with_snapshot(folder.path()).await?;
    drop(state);
    let current = async |folder: &Path| reopen(folder).1.get_current_snapshot().await.unwrap();
    assert_eq!(current(folder.path()).await.map(|found| found.meta), Some(snapshot.meta.clone()));

    let (mut log, state) = reopen(folder.path());
    log.purge(log_id(1, NODE, 99)).await?;
    drop((log, state));
    assert!(current(folder.path()).await.is_some(), "the log goes on from it");

    let (mut log, mut state) = reopen(folder.path());
    log.blocking_append([entry(100, &["a"])]).await?;
    state.apply([entry(100, &["a"])]).await?;
    log.purge(log_id(1, NODE, 100)).await?;
    drop((log, state));
    assert!(current(folder.path()).await.is_none(), "an entry after it is gone");

    // The end of the applied entries was not flushed.
    let (other, cut) = (self::folder(), self::folder());
    let (_state, _snapshot) = with_snapshot(other.path()).await?;
    for name in ["node.slotlog", "snapshot.slotlog"] {
        fs::copy(other.path().join(name), cut.path().join(name))?;
    }
    power_cut::cut(&cut.path().join("node.slotlog"));
    assert!(current(cut.path()).await.is_none(), "it is ahead of the state");
    Ok(())
}

#[tokio::test]
async fn what_is_read_for_one_message_has_a_limit() -> Outcome {
    let folder = folder();
    let (mut log, _state) = create(folder.path());
    let large = |index| {
        let change = Change::Put(vec![7; 1 << 20]);
        let requests = vec![Request { key: "key".into(), expected: None, change }];
        Entry { log_id: log_id(1, NODE, index), payload: EntryPayload::Normal(requests) }
    };
    log.blocking_append((0..20).map(large)).await?;
    assert_eq!(log.try_get_log_entries(0..20).await?.len(), 20);
    let some = log.limited_get_log_entries(3, 20).await?;
    assert_eq!(some[0].log_id.index, 3);
    assert!((1..=6).contains(&some.len()), "{}", some.len());
    Ok(())
}

#[test]
fn a_folder_belongs_to_one_node_that_was_once_new() {
    let folder = folder();
    let open = |node, new| store::open(folder.path(), node, new, Store::options()).map(drop);
    assert!(matches!(open(NODE, false), Err(OpenError::Missing(_))));
    assert!(open(NODE, true).is_ok());
    assert!(matches!(open(NODE, true), Err(OpenError::Store(slotlog::Error::AlreadyExists { .. }))));
    assert!(matches!(open(2, false), Err(OpenError::OtherNode { found: NODE, expected: 2, .. })));
    let _running = reopen(folder.path());
    assert!(matches!(open(NODE, false), Err(OpenError::Store(slotlog::Error::Locked { .. }))));
}
