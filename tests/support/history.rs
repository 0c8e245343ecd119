//! Is a history of operations on one key possible for a register that executes them one after the other?
//!
//! The search of Wing and Gong (*Testing and Verifying Concurrent Objects*, 1993) with the memory of Lowe (*Testing for
//! linearizability*, 2017): it tries every order that the times allow, and remembers the sets of operations done with
//! their outcome, since the way there does not matter.

use std::collections::HashSet;

/// An operation, with its outcome.
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
    /// Times of call and return, on a clock that all processes share. `None`: its process was killed before, so it may
    /// have happened, at any time after, or never.
    pub(crate) called: u64,
    pub(crate) returned: Option<u64>,
}

/// The value after an operation, if its outcome was possible.
fn step(value: Option<u64>, event: &Event) -> Option<Option<u64>> {
    match event.operation {
        Operation::Insert(new) => Some(Some(new)),
        // Its result was not seen.
        Operation::Remove(_) if event.returned.is_none() => Some(None),
        Operation::Remove(was_there) => (was_there == value.is_some()).then_some(None),
        Operation::Get(seen) => (event.returned.is_none() || seen == value).then_some(value),
    }
}

/// Whether the events can have happened one after the other, each between its call and its return, on a key without a
/// value at first.
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
        // An operation called after another one had returned comes after it.
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
        // Two at the same time, in the opposite order of their calls.
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
        // The value disappears again.
        &[event(Insert(1), 0, 9), event(Get(Some(1)), 1, 2), event(Get(None), 3, 4)],
        &[event(Insert(1), 0, 1), event(Insert(2), 2, 3), event(Get(Some(1)), 4, 5)],
        // An operation that did not return cannot happen before it was called, nor twice.
        &[event(Get(Some(1)), 0, 1), lost(Insert(1), 2)],
    ];
    for history in bad {
        assert!(!is_linearizable(history), "{history:?}");
    }
}
