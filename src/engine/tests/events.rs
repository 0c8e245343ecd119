//! Failures are told, each when it happens.

#[path = "../../../tests/support/events.rs"]
mod support;

use support::{Told, told};

use super::*;
use crate::file::witness::{self, Call};

fn only<'t>(events: &'t [Told], what: &str) -> &'t Told {
    let found: Vec<&Told> = events.iter().filter(|event| event.what == what).collect();
    assert_eq!(found.len(), 1, "{what}: {events:?}");
    found[0]
}

/// Each flush fails.
struct NoFlush;

impl Recorder for NoFlush {
    fn call(&self, call: Call) -> std::io::Result<()> {
        if call == Call::Flush { Err(std::io::Error::other("the disk is gone")) } else { Ok(()) }
    }
}

#[test]
fn a_flush_that_fails_is_told_and_so_is_the_close_that_it_spoils() {
    let (_folder, path) = scratch();
    let engine = Engine::open(&path, Settings::default()).unwrap();
    engine.put(DEFAULT_MAP, b"key", b"value", None).unwrap();
    let standing = witness::stand(Arc::new(NoFlush));
    let (synced, events) = told(|| engine.sync());
    assert!(synced.is_err());
    let failed = only(&events, "a flush has failed");
    assert_eq!((failed.level, failed.fields["path"].as_str()), (tracing::Level::ERROR, path.to_str().unwrap()));
    assert!(failed.fields["error"].contains("the disk is gone"), "{failed:?}");
    drop(standing);
    let ((), events) = told(|| drop(engine));
    assert_eq!(only(&events, "not closed in order").level, tracing::Level::WARN);
    assert!(events.iter().all(|event| event.what != "closed"), "{events:?}");
}

/// The superblock lock is held for a while, so that a full store cannot be cleaned.
#[test]
fn upkeep_that_rests_is_told() {
    let (_folder, path) = scratch();
    let settings = Settings { max_size: 1 << 20, lock_timeout: Duration::from_millis(10), ..Settings::default() };
    let engine = Engine::open(&path, settings.clone()).unwrap();
    let other = Engine::open(&path, settings).unwrap();
    let put = |number: u32| _ = engine.put(DEFAULT_MAP, &key(number % 200), &[number as u8; 1000], None);
    let ((), events) = told(|| (0..1000).for_each(put));
    assert!(events.iter().all(|event| event.what != "upkeep rests"), "{events:?}");
    assert!(events.iter().any(|event| event.what == "log cleaned"));
    let _held = other.lock_superblock(Duration::ZERO).unwrap();
    let (rested, events) = told(|| {
        (0..5000).any(|number| {
            put(number);
            engine.upkeep.rest.resting().is_some()
        })
    });
    assert!(rested);
    let rests = only(&events, "upkeep rests");
    assert_eq!((rests.level, rests.fields["left"].as_str()), (tracing::Level::WARN, "Some(20ms)"));
    assert_eq!(rests.fields["error"], engine.upkeep.rest.resting().unwrap().why);
}
