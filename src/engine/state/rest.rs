//! Rest: what upkeep does after a failure.
//!
//! A step that fails now may succeed in a moment: another process held a lock, a system call was interrupted. So upkeep
//! rests for a while, twice as long after each further failure, and tries again. After damage it rests for good: damage
//! found once is there the next time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::Error;

/// How long the first rest is.
const SHORTEST: Duration = Duration::from_millis(20);

/// How long the last ones are.
const LONGEST: Duration = Duration::from_secs(10);

/// Why nothing is done, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Resting {
    pub(crate) since: SystemTime,
    pub(crate) why: String,
    /// How long this rest is, and when it ends; `None` if it does not.
    pause: Option<(Duration, Instant)>,
}

impl Resting {
    /// How long the rest still lasts; `None` if for good.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.pause.map(|(_, end)| end.saturating_duration_since(Instant::now()))
    }
}

/// Whether upkeep rests.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// There may be something in `state`.
    begun: AtomicBool,
    state: Mutex<Option<Resting>>,
}

impl Rest {
    fn state(&self) -> MutexGuard<'_, Option<Resting>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to rest because of this error, and says for how long; `None` if for good.
    #[cold]
    pub(crate) fn begin(&self, error: &Error) -> Option<Duration> {
        let mut state = self.state();
        let before = state.take();
        let since = before.as_ref().map_or_else(SystemTime::now, |before| before.since);
        let again = before.and_then(|before| before.pause).map(|(pause, _)| (pause * 2).min(LONGEST));
        let pause = again.unwrap_or(SHORTEST);
        let is_damage = matches!(error, Error::Corrupt { .. });
        let pause = (!is_damage).then(|| (pause, Instant::now() + pause));
        *state = Some(Resting { since, why: error.report(), pause });
        self.begun.store(true, Ordering::Relaxed);
        pause.map(|(pause, _)| pause)
    }

    /// Whether nothing should be tried now.
    #[inline]
    pub(crate) fn goes_on(&self) -> bool {
        self.begun.load(Ordering::Relaxed) && self.left() != Some(Duration::ZERO)
    }

    #[cold]
    fn left(&self) -> Option<Duration> {
        self.state().as_ref().map_or(Some(Duration::ZERO), Resting::left)
    }

    /// Ends the rest: something was tried, and it succeeded.
    #[inline]
    pub(crate) fn end(&self) {
        if self.begun.load(Ordering::Relaxed) {
            *self.state() = None;
            self.begun.store(false, Ordering::Relaxed);
        }
    }

    /// The present rest, if there is one.
    pub(crate) fn resting(&self) -> Option<Resting> {
        self.state().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn momentary() -> Error {
        Error::io(Path::new("store"), "lock a byte", std::io::ErrorKind::Interrupted.into())
    }

    #[test]
    fn each_rest_is_twice_as_long_until_something_succeeds() {
        let rest = Rest::default();
        assert!(!rest.goes_on() && rest.resting().is_none());
        rest.begin(&momentary());
        assert!(rest.goes_on());
        let first = rest.resting().unwrap();
        assert!(first.why.contains("lock a byte"), "{}", first.why);
        assert!(first.left().unwrap() <= SHORTEST);
        rest.begin(&momentary());
        rest.begin(&momentary());
        let third = rest.resting().unwrap();
        assert_eq!((third.pause.unwrap().0, third.since), (SHORTEST * 4, first.since));
        for _ in 0..20 {
            rest.begin(&momentary());
        }
        assert_eq!(rest.resting().unwrap().pause.unwrap().0, LONGEST);
        rest.end();
        assert!(!rest.goes_on() && rest.resting().is_none());
        rest.begin(&momentary());
        while rest.goes_on() {
            std::thread::yield_now();
        }
        assert!(rest.resting().is_some(), "it is to be tried, and has not succeeded yet");
    }

    #[test]
    fn damage_is_for_good() {
        let rest = Rest::default();
        rest.begin(&Error::corrupt(Path::new("store"), 0, "damage"));
        assert!(rest.goes_on());
        assert_eq!(rest.resting().unwrap().left(), None);
    }
}
