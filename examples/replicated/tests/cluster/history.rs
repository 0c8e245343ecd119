//! Is a history of operations on one key possible for a register that executes them one after the other?
//!
//! The search of Wing and Gong (*Testing and Verifying Concurrent Objects*, 1993) with the memory of Lowe (*Testing for
//! linearizability*, 2017): it tries every order that the times allow, and remembers the sets of operations done with
//! their outcome, since the way there does not matter.

use std::collections::HashSet;
use std::time::Instant;

/// An operation, with what it saw. All numbers that are written are different, so a number stands for its version.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Put(u64),
    Delete,
    Get(Option<u64>),
    Exchange { expected: Option<u64>, new: u64, done: bool },
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub operation: Operation,
    pub called: Instant,
    /// `None`: its outcome is unknown, so it may have happened, at any time after, or never.
    pub returned: Option<Instant>,
}

/// The value after an operation, if what it saw was possible.
fn step(value: Option<u64>, event: &Event) -> Option<Option<u64>> {
    match event.operation {
        Operation::Put(new) => Some(Some(new)),
        Operation::Delete => Some(None),
        Operation::Get(seen) => (seen == value).then_some(value),
        Operation::Exchange { expected, new, .. } if event.returned.is_none() => {
            Some(if expected == value { Some(new) } else { value })
        }
        Operation::Exchange { expected, new, done: true } => (expected == value).then_some(Some(new)),
        Operation::Exchange { expected, done: false, .. } => (expected != value).then_some(value),
    }
}

/// Whether the events can have happened one after the other, each between its call and its return, on a key without a
/// value at first.
pub fn is_linearizable(events: &[Event]) -> bool {
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
        let horizon = left().filter_map(|event| event.returned).min();
        let may_be_next = |event: &Event| horizon.is_none_or(|horizon| event.called <= horizon);
        for (index, event) in events.iter().enumerate().filter(|(index, event)| !done[*index] && may_be_next(event)) {
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
    use Operation::{Delete, Exchange, Get, Put};

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
