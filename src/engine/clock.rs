//! Time: the clock, and which entries have expired.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::layout::Kind;
use crate::file::log::Record;

/// The time that deadlines are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The present time, read only when it matters: only records with a deadline cost a look at the clock.
    pub(crate) const NOW: Moment = Moment(0);

    /// One time for all that is read.
    pub(crate) fn fixed(milliseconds: u64) -> Moment {
        Moment(milliseconds)
    }

    fn milliseconds(self) -> u64 {
        if self.0 == 0 { now() } else { self.0 }
    }
}

impl Record<'_> {
    /// Whether its deadline has passed.
    #[inline(always)]
    pub(crate) fn is_expired(&self, at: Moment) -> bool {
        // The deadline of a damaged record is not believed.
        self.expires().is_some_and(|deadline| deadline <= at.milliseconds() && !self.is_damaged())
    }

    /// Whether it holds a value at this time.
    #[inline(always)]
    pub(crate) fn has_value(&self, at: Moment) -> bool {
        self.kind() == Some(Kind::Put) && !self.is_expired(at)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The time this many milliseconds after the beginning of 1970.
pub(crate) fn time(milliseconds: u64) -> SystemTime {
    // A damaged one can be later than the latest time of the system.
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}

/// A deadline as the log has it, in milliseconds since 1970, rounded down: from then on the entry is invisible. A
/// deadline before 1970 has long passed.
pub(crate) fn deadline(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}
