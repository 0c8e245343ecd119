//! Single keys as registers.

use super::*;

/// An operation, with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Insert(u64),
    /// Whether the key was there.
    Remove(bool),
    Get(Option<u64>),
}

impl Operation for Action {
    fn apply(self, value: Option<u64>, is_known: bool) -> Option<Option<u64>> {
        match self {
            Action::Insert(new) => Some(Some(new)),
            Action::Remove(_) if !is_known => Some(None),
            Action::Remove(was_there) => (was_there == value.is_some()).then_some(None),
            Action::Get(seen) => (!is_known || seen == value).then_some(value),
        }
    }
}

/// Nanoseconds of the clock that all processes of the system share.
#[cfg(not(unix))]
pub(super) fn clock() -> u64 {
    // The clock is not set during the test.
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

/// Nanoseconds of the clock that all processes of the system share.
#[cfg(unix)]
pub(super) fn clock() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the struct on this stack frame.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(super) const REGISTERS: u64 = 3;

/// Operations on a few keys, each reported at its call and at its return.
pub(super) fn use_registers(path: &Path, seed: u64) {
    let access = if seed.is_multiple_of(4) { Access::ReadOnly } else { Access::ReadWrite };
    let store = Store::options().tiny_steps().access(access).open(path).unwrap();
    let mut random = Random(seed);
    say("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for n in 0..150 {
        let register = random.below(REGISTERS);
        let key = format!("register {register}");
        let kind = if access == Access::ReadOnly { 2 } else { random.below(4) };
        let new = seed * 1000 + n;
        let called = clock();
        say(&format!("call {register} {kind} {new} {called}"));
        let outcome = match kind {
            0 => {
                store.insert(&key, value(new)).unwrap();
                0
            }
            1 => u64::from(store.remove(&key).unwrap()),
            _ => store.get_with(&key, number).unwrap().unwrap_or(0),
        };
        say(&format!("return {outcome} {}", clock()));
    }
}

/// The events of one process, by register.
pub(super) fn heard(lines: &[String], registers: &mut [Vec<Event<Action>>]) {
    let mut lines = lines.iter();
    while let Some(call) = lines.next() {
        let words: Vec<&str> = call.split(' ').collect();
        let ["call", register, kind, new, called] = words[..] else { panic!("{call}") };
        let returned = lines.next().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let ["return", outcome, returned] = words[..] else { panic!("{line}") };
            (outcome.parse::<u64>().unwrap(), returned.parse::<u64>().unwrap())
        });
        let outcome = returned.map_or(0, |(outcome, _)| outcome);
        let operation = match kind {
            "0" => Action::Insert(new.parse().unwrap()),
            "1" => Action::Remove(outcome == 1),
            _ => Action::Get((outcome > 0).then_some(outcome)),
        };
        let (called, returned) = (called.parse().unwrap(), returned.map(|(_, at)| at));
        registers[register.parse::<usize>().unwrap()].push(Event { operation, called, returned });
    }
}

#[test]
fn single_keys_are_linearizable() {
    use std::io::Write;

    let folder = folder();
    let mut random = Random(setting("SLOTLOG_TEST_SEED", 7));
    for round in 0..setting("SLOTLOG_TEST_ROUNDS", 12) {
        let path = folder.path().join(format!("store {round}"));
        drop(Store::open(&path).unwrap());
        let mut players: Vec<_> = (0..4).map(|n| Player::start("register", round * 8 + n + 4, &path)).collect();
        players.iter().for_each(|player| assert_eq!(player.next(), "ready"));
        for player in &mut players {
            writeln!(player.child.stdin.as_mut().unwrap()).unwrap();
        }
        let mut registers = vec![Vec::new(); REGISTERS as usize];
        if round % 3 == 2 {
            thread::sleep(Duration::from_micros(random.below(3000)));
            let killed = players.remove(1 + random.below(3) as usize);
            heard(&killed.kill(), &mut registers);
        }
        for player in players {
            heard(&player.stop(), &mut registers);
        }
        for (register, events) in registers.iter().enumerate() {
            assert!(events.len() > 50);
            assert!(is_linearizable(events), "round {round}, register {register}: {events:?}");
        }
    }
}

#[test]
fn the_checker_knows_good_histories_from_bad_ones() {
    use Action::{Get, Insert, Remove};

    let event = |operation, called, returned| Event { operation, called, returned: Some(returned) };
    let lost = |operation, called| Event { operation, called, returned: None };
    let good: [&[Event<Action>]; 5] = [
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
    let bad: [&[Event<Action>]; 6] = [
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
