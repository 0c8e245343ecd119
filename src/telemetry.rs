//! What an operator sees: events with the feature `tracing`; counters and histograms with the feature `metrics`.
//!
//! Each event is a function here, which is called after it has happened. Without the features the macros expand to
//! nothing, so that the functions are empty and a [`Watch`] has no size. With them, a read or a write that does no
//! upkeep still comes past none of these calls.
//!
//! What is called may hold locks of the store: code that receives an event must not use that store. `docs/watching.md`
//! tells users of all of them.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::fmt::{Debug, Display};
use std::path::Path;
use std::time::Duration;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use std::time::Instant;

#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $path:ident, $($fields_and_message:tt)+) => {
        tracing::event!(
            target: "slotlog", tracing::Level::$level, path = %$path.display(), $($fields_and_message)+
        )
    };
}
#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($($nothing:tt)*) => {};
}

#[cfg(feature = "metrics")]
macro_rules! count {
    ($name:literal, $path:ident) => {
        metrics::counter!($name, "store" => $path.display().to_string()).increment(1)
    };
}
#[cfg(not(feature = "metrics"))]
macro_rules! count {
    ($($nothing:tt)*) => {};
}

#[cfg(feature = "metrics")]
macro_rules! time {
    ($name:literal, $path:ident, $watch:ident) => {
        metrics::histogram!($name, "store" => $path.display().to_string()).record($watch.seconds())
    };
}
#[cfg(not(feature = "metrics"))]
macro_rules! time {
    ($($nothing:tt)*) => {};
}

/// How long something takes, if that is of interest to anyone.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    since: Instant,
}

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
const _: () = assert!(size_of::<Watch>() == 0);

impl Watch {
    #[inline(always)]
    pub(crate) fn start() -> Watch {
        Watch {
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            since: Instant::now(),
        }
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    fn seconds(self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }
}

/// A wait for the writer lock is announced once it has lasted this long.
pub(crate) const LONG_WAIT: Duration = Duration::from_millis(100);

#[inline]
pub(crate) fn on_opened(path: &Path, state: &dyn Debug, watch: Watch) {
    event!(INFO, path, state = ?state, seconds = watch.seconds(), "opened");
}

#[inline]
pub(crate) fn on_recovery_begun(path: &Path, file_len: u64) {
    event!(INFO, path, file_len, "recovery begun");
}

#[inline]
pub(crate) fn on_recovered(path: &Path, (records, log_bytes): (u64, u64), watch: Watch) {
    event!(INFO, path, records, log_bytes, seconds = watch.seconds(), "recovery ended");
    time!("slotlog_recovery_seconds", path, watch);
}

#[inline]
pub(crate) fn on_checkpoint(path: &Path, commits: u64, watch: Watch) {
    event!(DEBUG, path, commits, seconds = watch.seconds(), "checkpoint");
    time!("slotlog_checkpoint_seconds", path, watch);
}

#[inline]
pub(crate) fn on_length(path: &Path, before: u64, now: u64) {
    event!(DEBUG, path, before, now, "the length of the file has changed");
}

#[inline]
pub(crate) fn on_resize_begun(path: &Path, map: &dyn Display, (lines, target_lines): (u64, u64)) {
    event!(DEBUG, path, map = %map, lines, target_lines, "index resize begun");
}

#[inline]
pub(crate) fn on_index_replaced(path: &Path, map: &dyn Display, (lines, target_lines): (u64, u64)) {
    event!(DEBUG, path, map = %map, lines, target_lines, "index replaced");
}

#[inline]
pub(crate) fn on_cleaned(path: &Path, passed_bytes: u64, moved_bytes: u64) {
    event!(TRACE, path, passed_bytes, moved_bytes, "log cleaned");
}

#[inline]
pub(crate) fn on_compacted(path: &Path, report: &dyn Debug, watch: Watch) {
    event!(INFO, path, report = ?report, seconds = watch.seconds(), "compacted");
    time!("slotlog_compact_seconds", path, watch);
}

#[inline]
pub(crate) fn on_damage(path: &Path, offset: u64, what: &str) {
    event!(ERROR, path, offset, what, "damage found");
    count!("slotlog_damage_found_total", path);
}

#[inline]
pub(crate) fn on_quarantined(path: &Path, records: u64) {
    event!(ERROR, path, records, "damaged records put into quarantine");
}

#[inline]
pub(crate) fn on_rest(path: &Path, error: &dyn Display, left: Option<Duration>) {
    event!(WARN, path, error = %error, left = ?left, "upkeep rests");
    count!("slotlog_upkeep_failures_total", path);
}

#[inline]
pub(crate) fn on_long_wait(path: &Path, waited: Duration, holder: (u32, Duration)) {
    event!(WARN, path, waited = ?waited, pid = holder.0, held = ?holder.1, "waiting for the writer lock");
    count!("slotlog_long_lock_waits_total", path);
}

#[inline]
pub(crate) fn on_flush_failed(path: &Path, error: &dyn Display) {
    event!(ERROR, path, error = %error, "a flush has failed");
    count!("slotlog_flush_failures_total", path);
}

#[inline]
pub(crate) fn on_closed(path: &Path, error: Option<&dyn Display>, watch: Watch) {
    if let Some(error) = error {
        event!(WARN, path, error = %error, seconds = watch.seconds(), "not closed in order");
    } else {
        event!(INFO, path, seconds = watch.seconds(), "closed");
    }
}
