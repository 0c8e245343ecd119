//! Is a history of operations on one key possible for a register that executes them one after the other?
//!
//! The search of Wing and Gong (*Testing and Verifying Concurrent Objects*, 1993) with the memory of Lowe (*Testing for
//! linearizability*, 2017): it tries every order that the times allow, and remembers the sets of operations done with
//! their outcome, since the way there does not matter.

use std::collections::HashSet;

/// What can be done with a register, with what it saw.
pub(crate) trait Operation: Copy {
    /// The value afterwards, if what it saw is possible on this value. Where it is not known what it saw, anything is.
    fn apply(self, value: Option<u64>, is_known: bool) -> Option<Option<u64>>;
}

/// An operation on one key, at times of a clock that all who use the key share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<O, T = u64> {
    pub(crate) operation: O,
    pub(crate) called: T,
    /// `None`: its process was killed before, or its outcome is unknown, so it may have happened, at any time after, or
    /// never.
    pub(crate) returned: Option<T>,
}

/// Whether the events can have happened one after the other, each between its call and its return, on a key without a
/// value at first.
pub(crate) fn is_linearizable<O: Operation, T: Copy + Ord>(events: &[Event<O, T>]) -> bool {
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
        let may_be_next = |event: &Event<O, T>| horizon.is_none_or(|horizon| event.called <= horizon);
        for (index, event) in events.iter().enumerate().filter(|(index, event)| !done[*index] && may_be_next(event)) {
            if let Some(after) = event.operation.apply(value, event.returned.is_some()) {
                let mut done = done.clone();
                done[index] = true;
                stack.push((done, after));
            }
        }
    }
    false
}
