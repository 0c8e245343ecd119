//! Is a history of operations on one key that of a register that does one after the other?
//!
//! The search of Wing and Gong (*Testing and Verifying Concurrent Objects*, 1993) with the memory of Lowe (*Testing for
//! linearizability*, 2017): it tries every order that the times allow, and remembers which operations were done with
//! which outcome, since how it got there does not matter.

use std::collections::HashSet;

/// What was done, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Insert(u64),
    /// Whether the key was there.
    Remove(bool),
    Get(Option<u64>),
}

/// An operation on one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) operation: Operation,
    /// When it was called and when it had returned, on a clock that all processes share. `None`: its process was killed
    /// before, so it may have happened, at any time after, or never.
    pub(crate) called: u64,
    pub(crate) returned: Option<u64>,
}

/// The value after an operation, if that can have had the outcome that it had.
fn step(value: Option<u64>, event: &Event) -> Option<Option<u64>> {
    match event.operation {
        Operation::Insert(new) => Some(Some(new)),
        // Nobody has seen what it returned.
        Operation::Remove(_) if event.returned.is_none() => Some(None),
        Operation::Remove(was_there) => (was_there == value.is_some()).then_some(None),
        Operation::Get(seen) => (event.returned.is_none() || seen == value).then_some(value),
    }
}

/// Whether the events can have happened one after the other, each between its call and its return, on a key that had no
/// value in the beginning.
pub(crate) fn is_linearizable(events: &[Event]) -> bool {
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.called);
    let mut seen = HashSet::new();
    let mut stack = vec![(vec![false; events.len()], None)];
    while let Some((done, value)) = stack.pop() {
        let left = || events.iter().zip(&done).filter(|(_, done)| !**done).map(|(event, _)| event);
        if left().all(|event| event.returned.is_none()) {
            return true;
        }
        if !seen.insert((done.clone(), value)) {
            continue;
        }
        // Whatever was called after something else had returned comes after that.
        let horizon = left().filter_map(|event| event.returned).min().unwrap_or(u64::MAX);
        for (index, event) in
            events.iter().enumerate().filter(|(index, event)| !done[*index] && event.called <= horizon)
        {
            if let Some(after) = step(value, event) {
                let mut done = done.clone();
                done[index] = true;
                stack.push((done, after));
            }
        }
    }
    false
}

#[test]
fn the_checker_knows_good_histories_from_bad_ones() {
    use Operation::{Get, Insert, Remove};

    let event = |operation, called, returned| Event { operation, called, returned: Some(returned) };
    let lost = |operation, called| Event { operation, called, returned: None };
    let good: [&[Event]; 5] = [
        &[],
        &[event(Insert(1), 0, 1), event(Get(Some(1)), 2, 3), event(Remove(true), 4, 5), event(Get(None), 6, 7)],
        // Two at the same time, in the other order than they were called.
        &[event(Insert(1), 0, 9), event(Get(None), 1, 2), event(Get(Some(1)), 3, 4)],
        &[lost(Insert(1), 0), event(Get(None), 1, 2), event(Get(Some(1)), 3, 4)],
        &[lost(Insert(1), 0), event(Get(None), 1, 2)],
    ];
    for history in good {
        assert!(is_linearizable(history), "{history:?}");
    }
    let bad: [&[Event]; 6] = [
        &[event(Get(Some(1)), 0, 1)],
        &[event(Insert(1), 0, 1), event(Get(None), 2, 3)],
        &[event(Remove(true), 0, 1)],
        // The value goes away again.
        &[event(Insert(1), 0, 9), event(Get(Some(1)), 1, 2), event(Get(None), 3, 4)],
        &[event(Insert(1), 0, 1), event(Insert(2), 2, 3), event(Get(Some(1)), 4, 5)],
        // What did not return may still not happen before it was called, nor twice.
        &[event(Get(Some(1)), 0, 1), lost(Insert(1), 2)],
    ];
    for history in bad {
        assert!(!is_linearizable(history), "{history:?}");
    }
}
