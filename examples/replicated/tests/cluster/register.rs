//! What clients do with a key.

use std::time::Instant;

use crate::history;
use crate::history::Operation;

/// An operation, with what it saw. All numbers that are written are different, so a number stands for its version.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Put(u64),
    Delete,
    Get(Option<u64>),
    Exchange { expected: Option<u64>, new: u64, done: bool },
}

impl Operation for Action {
    fn apply(self, value: Option<u64>, is_known: bool) -> Option<Option<u64>> {
        match self {
            Action::Put(new) => Some(Some(new)),
            Action::Delete => Some(None),
            Action::Get(seen) => (seen == value).then_some(value),
            Action::Exchange { expected, new, .. } if !is_known => {
                Some(if expected == value { Some(new) } else { value })
            }
            Action::Exchange { expected, new, done: true } => (expected == value).then_some(Some(new)),
            Action::Exchange { expected, done: false, .. } => (expected != value).then_some(value),
        }
    }
}

pub type Event = history::Event<Action, Instant>;

#[test]
fn the_checker_knows_good_histories_from_bad_ones() {
    use crate::history::is_linearizable;
    use Action::{Delete, Exchange, Get, Put};

    let zero = Instant::now();
    let at = |time: u64| zero + std::time::Duration::from_secs(time);
    let event = |operation, called, returned| Event { operation, called: at(called), returned: Some(at(returned)) };
    let lost = |operation, called| Event { operation, called: at(called), returned: None };
    let exchange = |expected, new, done| Exchange { expected, new, done };
    let good: [&[Event]; 6] = [
        &[],
        &[event(Put(1), 0, 1), event(Get(Some(1)), 2, 3), event(Delete, 4, 5), event(Get(None), 6, 7)],
        // Two at the same time, in the opposite order of their calls.
        &[event(Put(1), 0, 9), event(Get(None), 1, 2), event(Get(Some(1)), 3, 4)],
        &[lost(Put(1), 0), event(Get(None), 1, 2), event(Get(Some(1)), 3, 4)],
        &[lost(Put(1), 0), event(Get(None), 1, 2)],
        &[event(exchange(None, 1, true), 0, 1), event(exchange(None, 2, false), 2, 3), event(Get(Some(1)), 4, 5)],
    ];
    for history in good {
        assert!(is_linearizable(history), "{history:?}");
    }
    let bad: [&[Event]; 7] = [
        &[event(Get(Some(1)), 0, 1)],
        &[event(Put(1), 0, 1), event(Get(None), 2, 3)],
        // The value disappears again.
        &[event(Put(1), 0, 9), event(Get(Some(1)), 1, 2), event(Get(None), 3, 4)],
        &[event(Put(1), 0, 1), event(Put(2), 2, 3), event(Get(Some(1)), 4, 5)],
        // Two exchanges of the same value cannot both succeed.
        &[event(exchange(None, 1, true), 0, 9), event(exchange(None, 2, true), 0, 9)],
        // An operation of which nothing is known cannot happen before it was called, nor twice.
        &[event(Get(Some(1)), 0, 1), lost(Put(1), 2)],
        &[lost(Put(1), 0), event(Get(Some(1)), 1, 2), event(Put(2), 3, 4), event(Get(Some(1)), 5, 6)],
    ];
    for history in bad {
        assert!(!is_linearizable(history), "{history:?}");
    }
}
