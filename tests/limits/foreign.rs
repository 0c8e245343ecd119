//! Files that are something else, or not complete yet.

use super::*;

#[test]
fn a_file_that_is_something_else_is_refused_and_not_touched() {
    let folder = folder();
    let path = folder.path().join("file");
    let mut almost = vec![0; 4096];
    almost.extend(b"something");
    let mut marked = CREATION_MAGIC.to_vec();
    marked.extend(b" is how this letter happens to begin, and it must not be lost");
    let files: [&[u8]; 10] = [
        b"x",
        b"a letter to a friend\n",
        &[0],
        &[0; 4095],
        &[0; 4097],
        &[0; 8192],
        &[0xff; 100_000],
        b"SQLite format 3\0",
        &almost,
        &marked,
    ];
    for bytes in files {
        fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
}

#[test]
fn an_empty_file_is_a_store_to_be() {
    let folder = folder();
    let path = folder.path().join("store");
    fs::write(&path, "").unwrap();
    assert!(matches!(Store::options().access(Access::ReadOnly).open(&path), Err(Error::NotAStore { .. })));
    assert!(matches!(Store::options().create_new(true).open(&path), Err(Error::AlreadyExists { .. })));
    assert!(matches!(Store::options().create(false).open(&path), Err(Error::NotAStore { .. })));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Created);
    store.insert("key", "value").unwrap();
    assert_clean(&store);
}

#[test]
fn a_creation_that_was_cut_short_is_begun_anew() {
    let folder = folder();
    let path = folder.path().join("store");
    // The length of a new file before each step of its creation, and some lengths in between.
    for len in [0, 4096, 8192, 65536, 131_072, 200_000, 225_280] {
        for mark in [true, false] {
            if !mark && len > 4096 {
                continue;
            }
            let mut bytes = vec![0; len];
            if mark && len > 0 {
                bytes[..8].copy_from_slice(&CREATION_MAGIC);
            }
            // The parts built by then have no value, however many; the superblocks come last.
            if len > 16384 {
                bytes[LIVE as usize..12288].fill(7);
                bytes[len - 100..].fill(9);
            }
            fs::write(&path, &bytes).unwrap();
            let store = Store::open(&path).unwrap_or_else(|error| panic!("{len} bytes, mark {mark}: {error}"));
            assert_eq!(store.opened(), Opened::Created);
            store.insert("key", "value").unwrap();
            assert_clean(&store);
            store.close().unwrap();
            assert_eq!(Store::open(&path).unwrap().get("key").unwrap().unwrap(), b"value");
        }
    }
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    let folder = folder();
    let path = folder.path().join("store");
    let outcome = Store::options().max_size(90_000).open(&path);
    assert!(matches!(outcome, Err(Error::Full { why: FullReason::MaxSize(90_000), .. })), "{outcome:?}");
    assert!(!path.exists());
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Created);
}

/// A creation that fails removes its file, but never one in which another process has begun a store meanwhile.
#[test]
fn a_creation_that_fails_does_not_take_away_the_store_of_another() {
    let folder = folder();
    let path = folder.path().join("store");
    for _ in 0..1000 {
        let stores = std::thread::scope(|scope| {
            let failing = scope.spawn(|| {
                for _ in 0..4 {
                    assert!(Store::options().max_size(8192).open(&path).is_err() || path.exists());
                }
            });
            let store = (0..1000).find_map(|_| Store::open(&path).ok());
            failing.join().unwrap();
            store
        });
        let Some(store) = stores else { continue };
        assert!(path.exists(), "the file of an open store is gone");
        drop(store);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_newer_version_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 3);
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        overwrite(&path, at + 8, &(VERSION + 1).to_le_bytes());
    }
    let error = refused(&path);
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 2, .. }), "{error}");
}

/// Only its first bytes have reached the disk, over other data: that is not a superblock of another version.
#[test]
fn a_superblock_cut_short_is_not_believed_in_its_version() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 3);
    let [a, b] = [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| superblock(&path, at).generation.get());
    let older = if a < b { SUPERBLOCK_A } else { SUPERBLOCK_B };
    let whole = fs::read(&path).unwrap();
    for junk in [0, 0x5a] {
        overwrite(&path, older, &MAGIC);
        overwrite(&path, older + 8, &[junk; BLOCK as usize - 8]);
        let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
        assert_eq!(content(&reader).len(), 3);
        drop(reader);
        let store = Store::open(&path).unwrap();
        assert_eq!(content(&store).len(), 3);
        assert_clean(&store);
        drop(store);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn an_unknown_incompatible_feature_is_refused_and_a_compatible_one_is_not() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 3);
    let both = |change: fn(&mut Superblock)| {
        for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
            let mut superblock = superblock(&path, at);
            change(&mut superblock);
            overwrite(&path, at, superblock.sealed().as_bytes());
        }
    };
    both(|superblock| superblock.compatible = (1 << 40).into());
    let store = Store::open(&path).unwrap();
    assert_eq!(store.len().unwrap(), 3);
    store.insert("more", "").unwrap();
    store.close().unwrap();
    both(|superblock| superblock.incompatible = (1 << 40).into());
    let error = refused(&path);
    assert!(matches!(error, Error::UnsupportedFeature { features, .. } if features == 1 << 40), "{error}");
}
