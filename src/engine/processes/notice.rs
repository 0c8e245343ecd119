//! Change notice: waiting for the next commit.
//!
//! A waiter sleeps on the word [`CHANGED`](live::CHANGED), the number of the last commit that changed something for a
//! user, and says so in another, [`WATCHERS`](live::WATCHERS). A writer stores `CHANGED` and then looks at `WATCHERS`,
//! a waiter the other way round, both in the single total order: so one of the two sees the other, and a writer makes
//! no system call while there are no waiters.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::error::Result;
use crate::file::layout::{Seq, live};
use crate::file::mapping::Half;

/// How often a waiter looks that cannot be woken: a read-only opener must not write that it waits.
const POLL: Duration = Duration::from_millis(2);

/// The longest sleep, should a wake-up be missed.
const LONGEST: Duration = Duration::from_millis(500);

impl Engine {
    /// Wakes the waiters for a change that was just stored.
    #[inline]
    pub(crate) fn wake_watchers(&self) -> Result<()> {
        if self.mapping.live_word(live::WATCHERS)?.seq_cst() != 0 { self.wake_slowly() } else { Ok(()) }
    }

    #[cold]
    fn wake_slowly(&self) -> Result<()> {
        self.mapping.swap_live(live::WATCHERS, 0)?;
        self.mapping.wake(live::CHANGED, Half::Low)
    }

    /// Waits until a commit that changed something and is newer than `seq` is visible, and says whether there is one.
    pub(crate) fn wait_for_change(&self, seq: Seq, timeout: Duration) -> Result<bool> {
        let start = Instant::now();
        loop {
            self.check_not_forked()?;
            let (changed, visible) = match self.at_rest()? {
                Some(at_rest) => (at_rest.visible, at_rest.visible),
                None => {
                    let changed = self.mapping.live_seq(live::CHANGED)?;
                    (changed, self.mapping.live_seq(live::VISIBLE)?)
                }
            };
            if changed > seq && visible >= changed {
                return Ok(true);
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            if self.read_only {
                std::thread::sleep(POLL.min(left));
            } else if changed > seq {
                // Stored, and about to be visible, unless its writer died; then the next writer continues from there.
                std::thread::sleep(Duration::from_micros(50).min(left));
            } else {
                self.mapping.swap_live(live::WATCHERS, 1)?;
                fence(Ordering::SeqCst);
                if self.mapping.live_word(live::CHANGED)?.seq_cst() == changed.0 {
                    self.mapping.sleep(live::CHANGED, Half::Low, changed.0 as u32, left.min(LONGEST))?;
                }
            }
        }
    }
}
