//! What all public types have in common; the rules of the Rust API Guidelines are in a table of `CONTRIBUTING.md`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use slotlog::*;

/// The names of types, each of which the compiler has found to have what all must have.
macro_rules! all_are {
    ($bound:ident: $($type:ty),+ $(,)?) => {
        [$({
            $bound::<$type>();
            stringify!($type).split(['<', ' ']).next().unwrap()
        }),+]
    };
}

fn shared<T: Debug + Send + Sync>() {}

fn printed<T: Debug>() {}

/// Nothing of the kind is held back by the life of what it borrows.
fn value<T: Debug + Clone + PartialEq + Send + Sync + 'static>() {}

fn error<T: std::error::Error + Send + Sync + 'static>() {}

/// What the root of the crate shows, modules and traits aside.
fn public() -> BTreeSet<String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let exports = code.split(';').filter_map(|statement| statement.split_once("pub use ")).map(|(_, path)| path);
    let names = exports.flat_map(|path| path.rsplit("::").next().unwrap().trim_matches(['{', '}', ' ']).split(','));
    let others = ["Arg", "Codec", "View", "Result", "repair", "repair_with", "zerocopy"];
    let names = names.map(str::trim).filter(|name| !name.is_empty() && !others.contains(name));
    // Constants are of the file format.
    let is_type = |name: &&str| name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
    names.filter(is_type).map(str::to_owned).collect()
}

#[test]
fn every_type_can_be_printed_and_all_that_last_can_be_sent_and_shared() {
    let mut seen = BTreeSet::new();
    seen.extend(all_are!(shared:
        Transaction, Savepoint, TransactionMap<'_, str, u64>, TransactionMapIter<'_, str, u64>, Store, Options,
        Snapshot, Iter<'_>, Keys<'_>, Values<'_>, Changes, ChangesIter<'_>, Change<'_>, ChangeKind<'_>, Map<str, u64>,
        MapIter<str, u64>, MapKeys<str, u64>, MapValues<str, u64>, MapChanges<str, u64>, MapChangesIter<'_, str, u64>,
        MapChange<String, u64>, SnapshotMap<'_, str, u64>, SnapshotMapIter<'_, str, u64>,
        SnapshotMapKeys<'_, str, u64>, SnapshotMapValues<'_, str, u64>, SnapshotMapRefs<'_, str, Pod<u64>>,
        ValueRef<Pod<u64>>, Pod<u64>, Serde<u64>, Feed, Commit, CommitIter<'_>, FeedChange<'_>, FeedChangeKind<'_>,
        Export, Import,
    ));
    // They hold code of the user's, which the call that they are for runs, and no other thread.
    seen.extend(all_are!(printed: Entry<'_, str, u64>, BackupOptions<'_>, RepairOptions<'_>, CensusOptions<'_>));
    seen.extend(all_are!(value:
        Seq, Access, Durability, Policy, Opened, Expiry, RecoveryPhase, RecoveryProgress, VerifyScope, VerifyProgress,
        VerifyReport, Finding, CompactReport, CompactProgress, BackupReport, BackupProgress, RepairReport,
        RepairProgress, Bookmark, Origin, MapInfo, ExportEntry, Stats, DamageStats, EvictionStats, ExtentStats,
        MapStats, PinStats, ProcessStats, ResizeStats, RestingStats, UpkeepStats, WaitingStats, Census, CensusProgress,
        ExtentCensus, LargeEntry, MapCensus, Bucket, Distribution,
    ));
    seen.extend(all_are!(error:
        Error, CodecError, CodecPart, CodecStep, FullReason, HeldBy, Numbers, OpenerStep,
    ));
    let seen: BTreeSet<String> = seen.into_iter().map(str::to_owned).collect();
    assert_eq!(seen, public(), "each public type stands in a list of this test");
}
