//! Many processes, one file. Each test here starts this program several times over, and some of it gets killed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(unsafe_code, reason = "signals, forks and a clock that processes share")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use slotlog::{Access, ChangeKind, Error, HeldBy, Opened, Options, Snapshot, Store, Transaction, format};

#[path = "support/history.rs"]
mod history;
mod support;

use history::{Event, Operation, is_linearizable};
use support::{Random, folder, role, say, setting};

const ARGUMENT: &str = "SLOTLOG_TEST_ARGUMENT";

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);

/// A role that plays in a process of its own, and what it says.
struct Player {
    role: String,
    child: Child,
    lines: Receiver<String>,
}

impl Player {
    fn start(role: &str, argument: impl ToString, path: &Path) -> Player {
        let mut command: Command = support::child(role, path);
        command.env(ARGUMENT, argument.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = support::listen(&mut child);
        Player { role: format!("{role} {}", argument.to_string()), child, lines }
    }

    /// The next thing that it says.
    fn next(&self) -> String {
        self.lines.recv_timeout(LONG).unwrap_or_else(|error| panic!("{} says nothing: {error}", self.role))
    }

    #[cfg(unix)]
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: a signal to a child that nobody has waited for yet, so that the number is still its.
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, signal) }, 0);
    }

    /// Kills it, and returns what it had still said.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.rest()
    }

    /// Asks it to stop, sees that it ends well, and returns what it had still to say.
    fn stop(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LONG, "{} does not stop", self.role);
            thread::sleep(Duration::from_millis(2));
        };
        assert!(status.success(), "{}: {status}", self.role);
        self.rest()
    }

    fn rest(&self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(RecvTimeoutError::Timeout) => panic!("{} left its output open", self.role),
            }
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Should a test fail: nothing may be left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says whether the one who started this process wants it to stop, or is gone.
fn stop_flag() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::SeqCst);
    });
    stop
}

fn until_stopped() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((role, path)) = role() else { return };
    let argument = std::env::var(ARGUMENT).unwrap_or_default();
    match role.as_str() {
        "writer" => write_on(&path, &argument),
        "reader" => read_on(&path, Access::ReadWrite),
        "read-only reader" => read_on(&path, Access::ReadOnly),
        "register" => use_registers(&path, argument.parse().unwrap()),
        "transaction" => hold_a_transaction(&path),
        #[cfg(unix)]
        "opener" => open_again_and_again(&path, &argument),
        "idler" => idle(&path, Access::ReadWrite),
        "read-only idler" => idle(&path, Access::ReadOnly),
        "grower" => grow(&path),
        "open" => open_and_wait(&path, &argument),
        #[cfg(unix)]
        "fork" => fork_and_try(&path),
        #[cfg(unix)]
        "fork and live" => fork_and_live(&path),
        #[cfg(unix)]
        "fork and look" => fork_and_look(&path),
        "commits" => hold_commits(&path, argument.parse().unwrap()),
        "snapshots" => hold_snapshots(&path, argument.parse().unwrap()),
        "waiter" => wait_for_a_change(&path, Access::ReadWrite),
        "read-only waiter" => wait_for_a_change(&path, Access::ReadOnly),
        "changer" => change_at_random(&path, argument.parse().unwrap()),
        "increment" => increment(&path, argument.parse().unwrap()),
        other => panic!("unknown role {other}"),
    }
}

// Values that show damage: a number, filling that depends on it, a checksum.

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.extend(Random(number).bytes(number as usize % 90));
    let sum = checksum(&value);
    value.extend(sum.to_le_bytes());
    value
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn number(value: &[u8]) -> u64 {
    let (body, sum) = value.split_at(value.len() - 8);
    assert_eq!(checksum(body).to_le_bytes(), sum, "a value is damaged: {value:?}");
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

// Writers and readers that never rest.

const COUNTERS: u64 = 16;

/// What step `n` of a writer does.
enum Step {
    Insert,
    Remove(u64),
    /// Besides inserting, raises this counter and sets this pair, all in one transaction.
    Transaction(u64),
}

fn step(n: u64) -> Step {
    match n % 16 {
        15 => Step::Remove(n - 8),
        3 | 7 => Step::Transaction(n / 4 % COUNTERS),
        _ => Step::Insert,
    }
}

fn own(writer: &str, n: u64) -> String {
    format!("own:{writer}:{n}")
}

/// Processor time of this thread, if the system tells it: other work on the same cores does not count.
#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the struct that it is given, which lives on this stack frame.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0;
    told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}

/// Says if an operation was slow: if it took much processor time, or waited for very long. Many processes share few
/// cores here, so how long it takes by the clock says little.
fn timed<T>(what: &str, operation: impl FnOnce() -> T) -> T {
    let (start, begun) = (Instant::now(), thread_time());
    let result = operation();
    let elapsed = start.elapsed();
    if elapsed > Duration::from_secs(1) {
        let spent = begun.zip(thread_time()).map(|(begun, ended)| ended - begun);
        if spent.is_none_or(|spent| spent > Duration::from_secs(1)) || elapsed > Duration::from_secs(20) {
            say(&format!("slow: {what} took {elapsed:?}, {spent:?} of the processor"));
        }
    }
    result
}

/// Does its steps until it is stopped, and says the number of each when that has returned.
fn write_on(path: &Path, name: &str) {
    let stop = stop_flag();
    let store = Store::options().tiny_steps().open(path).unwrap();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        timed("a write", || match step(n) {
            Step::Insert => store.insert(own(name, n), value(n)).unwrap(),
            Step::Remove(old) => assert!(store.remove(own(name, old)).unwrap(), "step {old} is lost"),
            Step::Transaction(counter) => {
                let mut transaction = store.begin().unwrap();
                transaction.insert(own(name, n), value(n)).unwrap();
                let key = format!("counter:{counter}");
                let count = transaction.get(&key).unwrap().map_or(0, |value| number(&value));
                transaction.insert(&key, value(count + 1)).unwrap();
                transaction.insert(format!("left:{counter}"), value(n)).unwrap();
                transaction.insert(format!("right:{counter}"), value(n)).unwrap();
                transaction.commit().unwrap();
            }
        });
        say(&n.to_string());
        // What there is to be read must not grow with the time that all of this takes on a busy machine. Most writers
        // are killed before they come here.
        if n > 5000 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    store.close().unwrap();
}

fn read_on(path: &Path, access: Access) {
    let stop = stop_flag();
    let store = Store::options().access(access).open(path).unwrap();
    let mut counts = [0; COUNTERS as usize];
    let mut random = Random(u64::from(std::process::id()));
    say("ready");
    let mut rounds = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..50 {
            let counter = random.below(COUNTERS);
            let key = format!("counter:{counter}");
            let found = timed("a get", || match random.below(3) {
                0 => store.get(&key).unwrap().map(|value| number(&value)),
                1 => store.get_with(&key, number).unwrap(),
                _ => store.snapshot().unwrap().get(&key).unwrap().map(number),
            });
            let found = found.unwrap_or(0);
            let before = std::mem::replace(&mut counts[counter as usize], found);
            assert!(found >= before, "counter {counter} went back from {before} to {found}");
            assert_eq!(store.contains_key(&key).unwrap(), found > 0 || store.contains_key(&key).unwrap());
        }
        let snapshot = timed("a snapshot", || store.snapshot().unwrap());
        let content = || -> BTreeMap<Vec<u8>, u64> {
            let mut content = BTreeMap::new();
            let mut entries = snapshot.iter();
            while let Some(entry) = timed("a step of an iteration", || entries.next()) {
                let (key, value) = entry.unwrap();
                content.insert(key.to_vec(), number(value));
            }
            assert_eq!(content.len() as u64, snapshot.len(), "the number of keys");
            content
        };
        let first = content();
        for pair in 0..COUNTERS {
            let keys = [format!("left:{pair}"), format!("right:{pair}")];
            let values = snapshot.get_many(&keys).unwrap();
            assert_eq!(values[0], values[1], "half a transaction was seen");
        }
        thread::sleep(Duration::from_millis(random.below(5)));
        assert!(content() == first, "a snapshot has changed");
        rounds += 1;
    }
    assert!(rounds > 0);
    say(&format!("rounds {rounds}"));
}

/// What the writers are known to have done: the number of the last step that had returned.
#[derive(Default)]
struct Done(BTreeMap<String, Option<u64>>);

impl Done {
    fn hear(&mut self, writer: &str, lines: &[String]) {
        let done = self.0.entry(writer.to_owned()).or_default();
        for line in lines {
            *done = Some(line.parse().unwrap_or_else(|_| panic!("writer {writer} says {line}")));
        }
    }

    /// Holds the content against it: nothing that had returned is missing, the step after that is there or not.
    fn check(&self, store: &Store) {
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{:?}", report.findings());
        let snapshot = store.snapshot().unwrap();
        let mut left: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for entry in snapshot.iter() {
            let (key, value) = entry.unwrap();
            left.insert(key.to_vec(), number(value));
        }
        let mut at_least = [0; COUNTERS as usize];
        let mut at_most = [0; COUNTERS as usize];
        for (writer, last) in &self.0 {
            let next = last.map_or(0, |last| last + 1);
            for n in 0..=next {
                let certain = n < next;
                match step(n) {
                    Step::Transaction(counter) => {
                        at_least[counter as usize] += u64::from(certain);
                        at_most[counter as usize] += 1;
                    }
                    Step::Insert | Step::Remove(_) => {}
                }
                // A removal is eight steps later.
                let removed = matches!(step(n + 8), Step::Remove(_)) && n + 8 <= next;
                let removed_for_certain = removed && n + 8 < next;
                let found = left.remove(own(writer, n).as_bytes());
                if matches!(step(n), Step::Remove(_)) || removed_for_certain {
                    assert_eq!(found, None, "step {n} of writer {writer}, which was removed");
                } else if certain && !removed {
                    assert_eq!(found, Some(n), "step {n} of writer {writer}, which had returned");
                } else {
                    assert!(found.is_none_or(|found| found == n), "step {n} of writer {writer}");
                }
            }
        }
        for counter in 0..COUNTERS {
            let count = left.remove(format!("counter:{counter}").as_bytes()).unwrap_or(0);
            let range = at_least[counter as usize]..=at_most[counter as usize];
            assert!(range.contains(&count), "counter {counter} is {count} and should be in {range:?}");
            let sides = ["left", "right"].map(|side| left.remove(format!("{side}:{counter}").as_bytes()));
            assert_eq!(sides[0], sides[1], "half a transaction is left");
        }
        assert!(left.is_empty(), "nobody has written these: {:?}", left.keys().take(5).collect::<Vec<_>>());
    }
}

#[test]
fn writers_and_readers_of_many_processes() {
    let folder = folder();
    let path = folder.path().join("store");
    drop(Store::open(&path).unwrap());
    let before = fs::metadata(&path).unwrap().len();
    let writers: Vec<_> = (0..3).map(|n| (n.to_string(), Player::start("writer", n, &path))).collect();
    let readers: Vec<_> = ["reader", "reader", "read-only reader"].map(|role| Player::start(role, "", &path)).into();
    thread::sleep(Duration::from_secs(setting("SLOTLOG_TEST_SECONDS", 4)));
    let mut done = Done::default();
    for (name, player) in writers {
        done.hear(&name, &player.stop());
    }
    for reader in readers {
        let said = reader.stop();
        assert!(said.iter().all(|line| !line.starts_with("slow")), "{said:?}");
        assert!(said.last().unwrap().starts_with("rounds"));
    }
    assert!(done.0.values().all(|last| last.unwrap() > 300), "every one has had its turns: {:?}", done.0);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Clean, "the last one to go has closed it");
    assert!(fs::metadata(&path).unwrap().len() > 2 * before, "the file was to grow");
    done.check(&store);
}

/// Kills players of a never-ending game, and stops some for a while.
fn kill_at_random(kills: u64, seed: u64) {
    let mut random = Random(seed);
    let folder = folder();
    let path = folder.path().join("store");
    let mut done = Done::default();
    let mut names = 0_u64..;
    let roles = ["writer", "writer", "writer", "reader", "reader", "read-only reader"];
    let mut start = |role: &str| {
        let name = names.next().unwrap().to_string();
        (name.clone(), Player::start(role, name, &path))
    };
    // An index grows in one go, which all writers wait for: that is not what is timed here.
    drop(Store::options().initial_capacity(2_000_000).open(&path).unwrap());
    let mut players: Vec<_> = roles.iter().map(|role| start(role)).collect();
    let mut hear = |index: usize, name: &str, said: &[String]| {
        let slow = said.iter().find(|line| line.starts_with("slow"));
        assert_eq!(slow, None, "{} {name}", roles[index]);
        if roles[index] == "writer" {
            done.hear(name, said);
        }
    };
    let mut killed = 0;
    while killed < kills {
        thread::sleep(Duration::from_micros(random.below(30_000)));
        #[cfg(unix)]
        if random.one_in(20) {
            let index = random.below(roles.len() as u64) as usize;
            players[index].1.signal(libc::SIGSTOP);
            thread::sleep(Duration::from_millis(200));
            players[index].1.signal(libc::SIGCONT);
        }
        // Several at once, now and then.
        for _ in 0..=u64::from(random.one_in(4)) {
            let index = random.below(roles.len() as u64) as usize;
            let (name, player) = std::mem::replace(&mut players[index], start(roles[index]));
            hear(index, &name, &player.kill());
            killed += 1;
        }
    }
    for (index, (name, player)) in players.into_iter().enumerate() {
        hear(index, &name, &player.stop());
    }
    let steps: u64 = done.0.values().map(|last| last.map_or(0, |last| last + 1)).sum();
    println!("{killed} killed, {steps} steps had returned");
    assert!(steps > kills, "they were killed before they did anything");
    let store = Store::open(&path).unwrap();
    done.check(&store);
    assert_eq!(store.stats().unwrap().pins, 0, "the pins of the dead are gone");
}

#[test]
fn killing_any_of_them_hurts_nobody() {
    let seed = setting("SLOTLOG_TEST_SEED", u64::from(std::process::id()));
    println!("SLOTLOG_TEST_SEED={seed}");
    let mut left = setting("SLOTLOG_TEST_KILLS", 300);
    for round in 0.. {
        kill_at_random(left.min(300), seed + round);
        left = left.saturating_sub(300);
        if left == 0 {
            break;
        }
    }
}

/// Increments a counter of everybody's, so many times.
fn increment(path: &Path, times: u64) {
    let store = Store::options().tiny_steps().open(path).unwrap();
    for _ in 0..times {
        let mut transaction = store.begin().unwrap();
        let count = transaction.get("count").unwrap().map_or(0, |value| number(&value));
        transaction.insert("count", value(count + 1)).unwrap();
        transaction.commit().unwrap();
    }
}

#[test]
fn no_increment_is_lost() {
    const TIMES: u64 = 5000;

    let folder = folder();
    let path = folder.path().join("store");
    let players: Vec<_> = (0..4).map(|_| Player::start("increment", TIMES, &path)).collect();
    players.into_iter().for_each(|player| drop(player.stop()));
    assert_eq!(number(&Store::open(&path).unwrap().get("count").unwrap().unwrap()), 4 * TIMES);
}

#[test]
fn somebody_who_waits_to_write_is_served_although_others_never_rest() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let players: Vec<_> = (0..3).map(|n| Player::start("writer", n, &path)).collect();
    players.iter().for_each(|player| assert_eq!(player.next(), "0"));
    let mut longest = Duration::ZERO;
    for n in 0..100_u64 {
        let start = Instant::now();
        store.insert("mine", value(n)).unwrap();
        longest = longest.max(start.elapsed());
        thread::sleep(Duration::from_millis(3));
    }
    players.into_iter().for_each(|player| drop(player.stop()));
    println!("the longest wait was {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

// Single keys as registers.

/// Nanoseconds of the clock that all processes of the system share.
#[cfg(not(unix))]
fn clock() -> u64 {
    // Nobody sets it during the test.
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

/// Nanoseconds of the clock that all processes of the system share.
#[cfg(unix)]
fn clock() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the struct on this stack frame.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

const REGISTERS: u64 = 3;

/// Operations on a few keys, each said when it begins and when it has returned.
fn use_registers(path: &Path, seed: u64) {
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
fn heard(lines: &[String], registers: &mut [Vec<Event>]) {
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
            "0" => Operation::Insert(new.parse().unwrap()),
            "1" => Operation::Remove(outcome == 1),
            _ => Operation::Get((outcome > 0).then_some(outcome)),
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

// Somebody who holds the writer lock and does not go on.

fn hold_a_transaction(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("half", "done").unwrap();
    say("holding");
    until_stopped();
    transaction.commit().unwrap();
}

#[test]
fn a_stopped_holder_is_named_and_a_dead_one_replaced() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().lock_timeout(Duration::from_millis(200)).open(&path).unwrap();
    let holder = Player::start("transaction", "", &path);
    assert_eq!(holder.next(), "holding");
    // It does nothing anyway; stopped, it could not even.
    #[cfg(unix)]
    holder.signal(libc::SIGSTOP);
    for _ in 0..2 {
        let start = Instant::now();
        match store.insert("key", "value") {
            Err(Error::LockTimeout { pid, waited, held, .. }) => {
                assert_eq!(pid, holder.child.id());
                assert!(waited >= Duration::from_millis(200) && held >= waited, "{waited:?} {held:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(store.stats().unwrap().writing, Some(holder.child.id()));
    assert_eq!(store.get("key").unwrap(), None, "reading goes on");
    store.sync().unwrap();
    assert_eq!(holder.kill(), [""; 0]);
    let start = Instant::now();
    store.insert("key", "value").unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "the dead are found out soon: {:?}", start.elapsed());
    assert_eq!(store.get("half").unwrap(), None);
    assert!(store.verify().unwrap().is_clean());
}

// Somebody who opens the store and does not go on.

#[cfg(unix)]
fn open_again_and_again(path: &Path, access: &str) {
    let access = if access == "read-only" { Access::ReadOnly } else { Access::ReadWrite };
    say("begun");
    loop {
        drop(Store::options().access(access).open(path).unwrap());
    }
}

/// Wherever it is stopped.
#[cfg(unix)]
#[test]
fn a_stopped_opener_is_in_nobodys_way() {
    for access in ["read-write", "read-only"] {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().lock_timeout(Duration::from_millis(300)).open(&path).unwrap();
        let opener = Player::start("opener", access, &path);
        assert_eq!(opener.next(), "begun");
        let mut random = Random(7);
        for round in 0..100u32 {
            thread::sleep(Duration::from_micros(random.below(3000)));
            opener.signal(libc::SIGSTOP);
            store.insert("key", round.to_le_bytes()).unwrap();
            store.checkpoint().unwrap();
            store.stats().unwrap();
            opener.signal(libc::SIGCONT);
        }
        opener.kill();
        assert!(store.verify().unwrap().is_clean());
    }
}

// Growth.

fn idle(path: &Path, access: Access) {
    let store = Store::options().access(access).open(path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let before: Vec<_> = snapshot.iter().map(|entry| entry.unwrap().0.to_vec()).collect();
    say("ready");
    until_stopped();
    let after: Vec<_> = snapshot.iter().map(|entry| entry.unwrap().0.to_vec()).collect();
    assert_eq!(before, after);
    assert_eq!(store.len().unwrap(), 40_000);
    for n in [0, 1, 19_999, 39_999] {
        assert_eq!(number(&store.get(format!("key {n}")).unwrap().unwrap()), n);
    }
    let now = store.snapshot().unwrap();
    assert_eq!(now.iter().map(|entry| number(entry.unwrap().1)).sum::<u64>(), 39_999 * 40_000 / 2);
    if access == Access::ReadWrite {
        store.insert("mine", "too").unwrap();
        assert!(store.verify().unwrap().is_clean());
    }
}

fn grow(path: &Path) {
    let store = Store::open(path).unwrap();
    for n in 0..40_000 {
        store.insert(format!("key {n}"), value(n)).unwrap();
    }
    // Long values make the file larger than what anybody has mapped.
    store.insert("long", vec![7; 300 << 20]).unwrap();
    store.remove("long").unwrap();
}

#[test]
fn growth_is_seen_by_those_who_were_idle() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key 0", value(0)).unwrap();
    let before = fs::metadata(&path).unwrap().len();
    let idlers = [Player::start("read-only idler", "", &path), Player::start("idler", "", &path)];
    idlers.iter().for_each(|idler| assert_eq!(idler.next(), "ready"));
    Player::start("grower", "", &path).stop();
    assert!(fs::metadata(&path).unwrap().len() > 1024 * before, "the file was to double ten times");
    for idler in idlers {
        idler.stop();
    }
    assert_eq!(store.len().unwrap(), 40_001);
    assert!(store.verify().unwrap().is_clean());
}

// Who goes together with whom.

fn open_as(path: &Path, how: &str) -> slotlog::Result<Store> {
    match how {
        "shared" => Store::open(path),
        "exclusive" => Store::options().exclusive(true).open(path),
        "read-only" => Store::options().access(Access::ReadOnly).open(path),
        other => panic!("{other}"),
    }
}

fn open_and_wait(path: &Path, how: &str) {
    let store = open_as(path, how).unwrap();
    say("ready");
    until_stopped();
    drop(store);
}

#[test]
fn who_goes_together_with_whom() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().insert("key", "value").unwrap();
    for first in ["shared", "exclusive", "read-only"] {
        let player = Player::start("open", first, &path);
        assert_eq!(player.next(), "ready");
        for second in ["shared", "exclusive", "read-only"] {
            let outcome = open_as(&path, second);
            if first == "exclusive" || second == "exclusive" {
                let Err(Error::Locked { by, .. }) = outcome else { panic!("{first}, then {second}: {outcome:?}") };
                let pid = player.child.id();
                let named = match (first, by) {
                    ("exclusive", HeldBy::Exclusive { pid: named, .. }) => named == pid,
                    ("shared", HeldBy::Writer { pid: named, .. }) => named == pid,
                    ("read-only", HeldBy::Readers) => true,
                    _ => false,
                };
                assert!(named, "{first}, then {second}: {by}");
            } else {
                assert_eq!(outcome.unwrap().get("key").unwrap().unwrap(), b"value", "{first}, then {second}");
            }
        }
        player.stop();
    }
}

#[test]
fn a_reader_changes_not_a_byte() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for n in 0..1000_u64 {
        store.insert(n.to_le_bytes(), value(n)).unwrap();
    }
    store.checkpoint().unwrap();
    // A root user may write to it all the same; what counts is that nothing tries.
    // (Wine does not change the attributes of a file that is mapped.)
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let state = || (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let before = state();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!(reader.opened(), Opened::Attached);
    let snapshot = reader.snapshot().unwrap();
    assert_eq!((snapshot.iter().count(), reader.len().unwrap()), (1000, 1000));
    assert_eq!(number(&reader.get(7_u64.to_le_bytes()).unwrap().unwrap()), 7);
    assert!(reader.verify().unwrap().is_clean());
    assert_eq!(reader.stats().unwrap().processes.len(), 1);
    assert!(!reader.wait_for_change(reader.seq().unwrap(), Duration::from_millis(10)).unwrap());
    assert!(matches!(reader.insert("key", "value"), Err(Error::ReadOnly { .. })));
    assert!(matches!(reader.begin(), Err(Error::ReadOnly { .. })));
    drop(snapshot);
    reader.close().unwrap();
    assert!(state() == before);
}

/// A reader came when the store was closed, and somebody opens it for writing under its eyes.
#[test]
fn a_reader_of_a_closed_store_sees_it_come_to_life() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().insert("key", "old").unwrap();
    // Nobody vouches for the live area of a copy.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&copy).unwrap();
    assert_eq!(reader.opened(), Opened::Clean);
    let snapshot = reader.snapshot().unwrap();
    let writer = Store::open(&copy).unwrap();
    assert_eq!(reader.get("key").unwrap().unwrap(), b"old");
    writer.insert("key", "new").unwrap();
    assert_eq!(reader.get("key").unwrap().unwrap(), b"new");
    for n in 0..5000_u64 {
        writer.insert(n.to_le_bytes(), "").unwrap();
    }
    let retired =
        |store: &Store| store.stats().unwrap().extents.iter().find(|e| e.kind == "Retired").map_or(0, |e| e.count);
    assert!(retired(&writer) > 1, "the snapshot of the reader holds what the index was");
    assert_eq!((snapshot.get("key").unwrap(), snapshot.iter().count()), (Some(&b"old"[..]), 1));
    assert_eq!(reader.len().unwrap(), 5001);
    drop(snapshot);
    for n in 5000..20_000_u64 {
        writer.insert(n.to_le_bytes(), "").unwrap();
    }
    assert!(retired(&writer) <= 1, "and no longer than it lives");
}

// Forks.

/// Plays `child` in a forked process. What it holds stays with the parent, too, and is given back.
#[cfg(unix)]
fn fork<F: FnOnce() -> bool>(child: F) -> (libc::pid_t, F) {
    // SAFETY: the child does what it is given, in a process that had no thread that mattered, and ends without going
    // back.
    match unsafe { libc::fork() } {
        0 => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
            // SAFETY: ends this process, and nothing of what it has inherited is cleaned up.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        pid => {
            assert!(pid > 0);
            (pid, child)
        }
    }
}

#[cfg(unix)]
fn ended_well(pid: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: waits for a child of this process; the call fills in the integer.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status == 0
}

#[cfg(unix)]
fn fork_and_try(path: &Path) {
    let store = Store::open(path).unwrap();
    store.insert("key", "parent").unwrap();
    let snapshot = store.snapshot().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("open", "transaction").unwrap();
    let handles = (store.clone(), snapshot, transaction);
    let inherited = path.to_owned();
    let (pid, held) = fork(move || {
        fn forked<T>(outcome: slotlog::Result<T>) -> bool {
            matches!(outcome, Err(Error::Forked { .. }))
        }
        let (store, snapshot, mut transaction) = handles;
        let all = forked(store.get("key"))
            && forked(store.get_with("key", <[u8]>::len))
            && forked(store.len())
            && forked(store.insert("key", "child"))
            && forked(store.remove("key"))
            && forked(store.clear())
            && forked(store.snapshot())
            && forked(store.begin())
            && forked(store.sync())
            && forked(store.checkpoint())
            && forked(store.verify())
            && forked(store.stats())
            && forked(store.seq())
            && forked(store.changes_since(0))
            && forked(store.wait_for_change(0, Duration::ZERO))
            && forked(snapshot.get("key"))
            && snapshot.iter().next().is_some_and(forked)
            && forked(transaction.insert("more", ""))
            && forked(transaction.get("open"));
        drop((snapshot, transaction));
        let closed = forked(store.close());
        let anew = Store::options().lock_timeout(Duration::from_millis(50)).open(&inherited).unwrap();
        let reads = anew.get("key").unwrap().as_deref() == Some(b"parent");
        // The parent has a transaction open.
        let waits = matches!(anew.insert("child", "x"), Err(Error::LockTimeout { .. }));
        drop(anew);
        all && closed && reads && waits
    });
    assert!(ended_well(pid));
    // Snapshot and transaction of the parent are unharmed.
    drop(held);
    store.insert("after", "all").unwrap();
    say("tried");
    until_stopped();
    drop(store);
}

#[cfg(unix)]
#[test]
fn a_forked_child_leaves_the_store_to_its_parent() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("fork", "", &path);
    assert_eq!(player.next(), "tried");
    player.stop();
    let store = Store::open(&path).unwrap();
    assert!(store.verify().unwrap().is_clean());
    assert_eq!(store.get("key").unwrap().unwrap(), b"parent");
    assert_eq!((store.get("open").unwrap(), store.get("child").unwrap()), (None, None));
    assert_eq!(store.get("after").unwrap().unwrap(), b"all");
}

/// Forks; the child goes on where this was called. `None` there.
#[cfg(unix)]
fn fork_here() -> Option<libc::pid_t> {
    // SAFETY: the child goes back as far as where `unless_child` ends it, and allocates and reads memory, which the C
    // library allows it.
    match unsafe { libc::fork() } {
        0 => None,
        pid => {
            assert!(pid > 0);
            Some(pid)
        }
    }
}

/// Ends the process if it is the child of a fork, well if what it saw was good.
#[cfg(unix)]
fn unless_child(child: Option<bool>) {
    if let Some(good) = child {
        // SAFETY: ends this process, and nothing of what it has inherited is cleaned up.
        unsafe { libc::_exit(i32::from(!good)) }
    }
}

/// What a reader has borrowed stays as it is in a process that has a child, whatever else the child does, and whatever
/// others write.
#[cfg(unix)]
fn fork_and_look(path: &Path) {
    let store = Store::options().tiny_steps().open(path).unwrap();
    let map = store.map::<str, [u8]>("map").unwrap();
    let churn = |turn: u8| {
        for n in 0..100_u8 {
            store.insert("key", vec![turn ^ n; 2000]).unwrap();
            map.insert("key", vec![turn ^ n; 2000]).unwrap();
        }
        store.compact().unwrap();
    };
    churn(1);
    let forked = |error: &Error| matches!(error, Error::Forked { .. });

    // Inside a look at a value in place: of the store, of a map, and inside another look.
    type Look<'l> = &'l mut dyn FnMut(&[u8]) -> bool;
    let looks: [&dyn Fn(Look<'_>) -> bool; 3] = [
        &|look| store.get_with("key", look).unwrap().unwrap(),
        &|look| map.get_with("key", look).unwrap().unwrap(),
        &|look| store.get_with("key", |_| map.get_with("key", look).unwrap().unwrap()).unwrap().unwrap(),
    ];
    for (number, look) in looks.iter().enumerate() {
        let mut child = None;
        let stays = look(&mut |bytes| {
            let before = bytes.to_vec();
            child = fork_here();
            // The child leaves at once, and its parent goes on when it is done.
            thread::scope(|scope| {
                let Some(child) = child else { return true };
                assert!(ended_well(child));
                scope.spawn(|| churn(2)).join().unwrap();
                bytes == before
            })
        });
        unless_child(child.is_none().then(|| store.get("key").is_err_and(|error| forked(&error))));
        assert!(stays, "what was borrowed has changed: look {number}");
    }

    // With one of everything that keeps a commit.
    let snapshot = store.snapshot().unwrap();
    let value = map.get_ref("key").unwrap().unwrap();
    let mut entries = map.iter().unwrap();
    let drained = map.drain().unwrap();
    let changes = store.changes_since(store.seq().unwrap() - 1).unwrap();
    let before = (snapshot.get("key").unwrap().unwrap().to_vec(), value.to_vec());
    let mut iteration = snapshot.iter();
    let child = fork_here();
    if child.is_none() {
        let good = iteration.next().is_some_and(|entry| entry.is_err_and(|error| forked(&error)))
            && entries.next().is_some_and(|entry| entry.is_err_and(|error| forked(&error)))
            && changes.iter().next().is_some_and(|change| change.is_err_and(|error| forked(&error)))
            && snapshot.of(&map).get("key").is_err_and(|error| forked(&error));
        drop(iteration);
        drop((snapshot, value, entries, drained, changes));
        unless_child(Some(good));
        return;
    }
    assert!(child.is_some_and(ended_well));
    assert_eq!(store.stats().unwrap().pins, 2, "that of neither commit was given back by the child");
    churn(3);
    assert_eq!((snapshot.get("key").unwrap().unwrap(), &*value), (&*before.0, &*before.1));
    let entry = ("key".to_owned(), before.1.clone());
    assert_eq!((entries.next().unwrap().unwrap(), drained.last().unwrap().unwrap()), (entry.clone(), entry));
    assert_eq!(iteration.next().unwrap().unwrap(), (&b"key"[..], &*before.0));
    drop(iteration);
    drop((snapshot, value, entries, changes));
    assert_eq!(store.stats().unwrap().pins, 0);

    // In the middle of a change: the child has no turn, and makes none of it.
    store.insert("key", "before").unwrap();
    map.insert("key", *b"before").unwrap();
    let mut child = None;
    let updated = map.update("key", |value| {
        child = fork_here();
        // What the child still does, it has done before its parent goes on.
        assert!(child.is_none_or(ended_well));
        value.map(|_| b"updated".to_vec())
    });
    unless_child(child.is_none().then(|| updated.as_ref().is_err_and(forked)));
    updated.unwrap();
    let mut child = None;
    let retained = map.retain(|_, _| {
        child = fork_here();
        assert!(child.is_none_or(ended_well));
        false
    });
    unless_child(child.is_none().then(|| retained.as_ref().is_err_and(forked)));
    assert_eq!(retained.unwrap(), 1);
    for n in 0..500_u16 {
        store.insert(n.to_le_bytes(), vec![7; 2000]).unwrap();
    }
    for n in 0..450_u16 {
        store.remove(n.to_le_bytes()).unwrap();
    }
    let mut child = None;
    let mut asked = false;
    let compacted = store.compact_with(|_| {
        if !std::mem::replace(&mut asked, true) {
            child = fork_here();
            assert!(child.is_none_or(ended_well));
        }
        ControlFlow::Continue(())
    });
    unless_child((asked && child.is_none()).then(|| compacted.as_ref().is_err_and(forked)));
    compacted.unwrap();
    assert!(asked, "there was something to compact");
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings());
    say("looked");
    until_stopped();
}

#[cfg(unix)]
#[test]
fn a_forked_child_gives_nothing_back() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("fork and look", "", &path);
    assert_eq!(player.next(), "looked");
    let store = Store::open(&path).unwrap();
    assert!(store.verify().unwrap().is_clean());
    player.stop();
}

#[cfg(unix)]
fn fork_and_live(path: &Path) {
    let store = Store::options().exclusive(true).open(path).unwrap();
    store.insert("key", "parent").unwrap();
    let (_, _) = fork(|| {
        // Said here and not by the parent: as long as this process has not run at all, it holds everything.
        say(&std::process::id().to_string());
        thread::sleep(LONG);
        true
    });
    until_stopped();
    drop(store);
}

#[cfg(unix)]
#[test]
fn the_locks_of_a_dead_parent_do_not_live_on_in_its_child() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("fork and live", "", &path);
    let grandchild: libc::pid_t = player.next().parse().unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })));
    let mut player = player;
    player.child.kill().unwrap();
    player.child.wait().unwrap();
    // SAFETY: asks whether the process is there, which sleeps for a minute and is nobody's child any more.
    assert_eq!(unsafe { libc::kill(grandchild, 0) }, 0, "the child was to live on");
    let alone = Store::options().exclusive(true).open(&path);
    // SAFETY: ends that process.
    unsafe { libc::kill(grandchild, libc::SIGKILL) };
    assert_eq!(alone.unwrap().get("key").unwrap().unwrap(), b"parent");
}

// Another system.

#[test]
fn an_opener_on_another_system_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("open", "shared", &path);
    assert_eq!(player.next(), "ready");
    // As if the entry, whose lock is held, had been written under another kernel.
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(format::PROCESS_TABLE + format::process::BOOT)).unwrap();
    file.write_all(&[7; 8]).unwrap();
    for how in ["shared", "exclusive", "read-only"] {
        let Err(Error::Locked { by, .. }) = open_as(&path, how) else { panic!("{how}") };
        assert_eq!(by, HeldBy::OtherSystem { pid: player.child.id() }, "{how}");
    }
    // One who could not find out under which kernel it runs is not under another.
    file.seek(SeekFrom::Start(format::PROCESS_TABLE + format::process::BOOT)).unwrap();
    file.write_all(&[0; 8]).unwrap();
    assert_eq!(open_as(&path, "shared").unwrap().opened(), Opened::Attached);
    player.kill();
    Store::open(&path).unwrap();
}

fn live_bytes(store: &Store) -> u64 {
    store.stats().unwrap().extents.iter().filter(|extent| extent.kind == "Live").map(|extent| extent.bytes).sum()
}

#[test]
fn there_is_room_for_many_openers() {
    const MANY: u64 = 200;

    let folder = folder();
    let path = folder.path().join("store");
    let mut stores: Vec<_> = (0..MANY).map(|_| Store::open(&path).unwrap()).collect();
    for (store, number) in stores.iter().zip(0..MANY) {
        store.insert(number.to_le_bytes(), number.to_string()).unwrap();
    }
    assert!(stores.iter().all(|store| store.len().unwrap() == MANY), "all see what each has written");
    let stats = stores[150].stats().unwrap();
    assert_eq!(stats.processes.len() as u64, MANY);
    assert_eq!(live_bytes(&stores[150]), format::PROCESSES * format::PROCESS_LEN, "the table goes on in one extent");
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!((reader.stats().unwrap().processes.len() as u64, reader.len().unwrap()), (MANY, MANY));
    // Those whose entries lie in front of the extents go first, and a newcomer takes one of these.
    stores.drain(..100);
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Attached);
    assert!(matches!(Store::options().exclusive(true).open(&path), Err(Error::Locked { .. })));
    let report = stores[99].verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.findings());
    stores.drain(..).for_each(|store| store.close().unwrap());
    let store = Store::open(&path).unwrap();
    assert_eq!((store.opened(), store.len().unwrap(), live_bytes(&store)), (Opened::Clean, MANY, 0));
}

/// A table goes on by an extent, and only who has the turn knows what is free.
#[test]
fn the_tables_do_not_grow_in_the_turn_of_another_opening() {
    let folder = folder();
    let path = folder.path().join("store");
    let stores: Vec<_> = (0..128).map(|_| Store::open(&path).unwrap()).collect();
    for (store, number) in stores.iter().zip(0..128_u64) {
        store.insert(number.to_le_bytes(), "x").unwrap();
    }
    let mut snapshots = snapshots_of_commits(&stores[0], 510);
    let mut transaction = stores[0].begin().unwrap();
    let write = |transaction: &mut Transaction, from: u32| {
        for number in from..from + 200 {
            transaction.insert(number.to_le_bytes(), vec![number as u8; 10_000]).unwrap();
        }
    };
    write(&mut transaction, 0);
    // This thread has the turn, so it cannot wait for it; and what another opening knows of the file's space is old.
    snapshots.extend(stores[1..].iter().map(|store| store.snapshot().unwrap()));
    assert!(matches!(Store::open(&path), Err(Error::WouldDeadlock { .. })));
    let open = || Store::options().lock_timeout(Duration::from_millis(100)).open(&path).map(drop);
    let of_another_thread = thread::scope(|scope| scope.spawn(open).join().unwrap());
    assert!(matches!(of_another_thread, Err(Error::LockTimeout { .. })), "{of_another_thread:?}");
    write(&mut transaction, 200);
    transaction.commit().unwrap();
    snapshots.extend(stores[1..].iter().map(|store| store.snapshot().unwrap()));
    assert!(Store::open(&path).unwrap().verify().unwrap().is_clean());
    drop(snapshots);
    for number in 0..400_u32 {
        assert_eq!(stores[7].get(number.to_le_bytes()).unwrap(), Some(vec![number as u8; 10_000]));
    }
}

/// Whoever needs a longer table of processes needs a turn for it. Others who open or close the store do not wait for
/// that.
#[test]
fn one_who_waits_for_an_entry_holds_nobody_up_who_needs_none() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut stores: Vec<_> = (0..128).map(|_| Store::open(&path).unwrap()).collect();
    let mut transaction = stores[0].begin().unwrap();
    transaction.insert("key", "value").unwrap();
    let (long, short) = (Duration::from_secs(60), Duration::from_secs(5));
    let one_more = || Store::options().lock_timeout(long).open(&path).unwrap();
    let reader = || Store::options().access(Access::ReadOnly).open_timeout(short).open(&path).map(drop);
    thread::scope(|scope| {
        let waiting = scope.spawn(one_more);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(10));
            reader().unwrap();
        }
        assert!(!waiting.is_finished());
        // It gets the entry of one who goes, whoever writes.
        stores.swap_remove(5).close().unwrap();
        stores.push(waiting.join().unwrap());
        let waiting = scope.spawn(one_more);
        thread::sleep(Duration::from_millis(100));
        reader().unwrap();
        assert!(!waiting.is_finished());
        transaction.commit().unwrap();
        stores.push(waiting.join().unwrap());
    });
    assert_eq!(stores.len(), 129);
    stores[128].insert("key", "other").unwrap();
    assert_eq!(stores[0].stats().unwrap().processes.len(), 129);
    assert!(stores[0].verify().unwrap().is_clean());
    stores.into_iter().for_each(|store| store.close().unwrap());
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Clean);
}

#[test]
fn a_full_store_has_room_for_so_many_openers_and_no_more() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = || Store::options().max_size(512 << 10).open(&path);
    let mut stores: Vec<_> = (0..format::PROCESSES).map(|_| open().unwrap()).collect();
    for len in [16 << 10, 4 << 10, 1000] {
        while stores[0].insert(format!("{len} {}", stores[0].len().unwrap()), vec![1; len]).is_ok() {}
    }
    let one_more = open();
    assert!(matches!(one_more, Err(Error::ProcessesExhausted { max: format::PROCESSES, .. })), "{one_more:?}");
    Store::options().access(Access::ReadOnly).open(&path).unwrap();
    stores.swap_remove(17).close().unwrap();
    assert!(open().unwrap().len().unwrap() > 10);
    assert!(stores[99].verify().unwrap().is_clean());
}

// Pins.

fn hold_snapshots(path: &Path, count: usize) {
    let store = Store::open(path).unwrap();
    let snapshots: Vec<_> = (0..count).map(|_| store.snapshot().unwrap()).collect();
    say("holding");
    until_stopped();
    drop(snapshots);
}

/// Snapshots of so many commits.
fn snapshots_of_commits(store: &Store, count: usize) -> Vec<Snapshot> {
    let snapshot = |number: usize| {
        store.insert("number", number.to_le_bytes()).unwrap();
        store.snapshot().unwrap()
    };
    (0..count).map(snapshot).collect()
}

fn hold_commits(path: &Path, count: usize) {
    let store = Store::open(path).unwrap();
    let snapshots = snapshots_of_commits(&store, count);
    say("holding");
    until_stopped();
    drop(snapshots);
}

#[test]
fn pins_of_the_dead_are_free_again() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let holders: Vec<_> = [900, 300].map(|count| Player::start("commits", count, &path)).into();
    holders.iter().for_each(|holder| assert_eq!(holder.next(), "holding"));
    let few = snapshots_of_commits(&store, 10);
    assert_eq!(store.stats().unwrap().pins, 1210);
    let grown = live_bytes(&store);
    assert!(grown > 0);
    store.insert("key", "newer").unwrap();
    for holder in holders {
        holder.kill();
    }
    // The pins of the dead are used before the table grows any more.
    let again = snapshots_of_commits(&store, 1000);
    assert_eq!((store.stats().unwrap().pins, live_bytes(&store)), (1010, grown));
    assert_eq!(again[999].get("key").unwrap().unwrap(), b"newer");
    assert_eq!(few[3].get("number").unwrap().unwrap(), 3_usize.to_le_bytes());
    assert!(store.verify().unwrap().is_clean());
    // All of them are dead: the next one begins with small tables.
    let last = Player::start("commits", 2000, &path);
    assert_eq!(last.next(), "holding");
    drop((few, again));
    drop(store);
    last.kill();
    let store = Store::open(&path).unwrap();
    assert_eq!((store.stats().unwrap().pins, live_bytes(&store)), (0, 0));
    assert_eq!(store.get("number").unwrap().unwrap(), 1999_usize.to_le_bytes());
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn space_does_not_wait_for_the_dead() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let retired = || store.stats().unwrap().extents.iter().find(|e| e.kind == "Retired").map_or(0, |e| e.count);
    let holder = Player::start("snapshots", 1, &path);
    assert_eq!(holder.next(), "holding");
    let mut keys = 0_u64..;
    let mut insert = |count: usize| keys.by_ref().take(count).for_each(|n| store.insert(n.to_le_bytes(), "").unwrap());
    insert(5000);
    assert!(retired() > 1);
    let oldest = store.stats().unwrap().oldest_pin.unwrap();
    assert_eq!(oldest.pid, Some(holder.child.id()), "and who it is shows");
    assert!(oldest.since.is_some() && oldest.behind >= 5000, "{oldest:?}");
    // Ours are not taken for those of a dead one, although the kernel says that nobody else holds our lock.
    let mine = store.snapshot().unwrap();
    holder.kill();
    insert(40_000);
    assert!(retired() > 1, "one of ours holds it now");
    assert_eq!(mine.iter().count(), 5001);
    drop(mine);
    insert(80_000);
    assert!(retired() <= 1);
}

// Change notice.

fn wait_for_a_change(path: &Path, access: Access) {
    let store = Store::options().access(access).open(path).unwrap();
    let mut seq = store.seq().unwrap();
    say("ready");
    while store.wait_for_change(seq, LONG).unwrap() {
        seq = store.seq().unwrap();
        let key = store.get("key").unwrap().unwrap_or_default();
        say(&String::from_utf8(key).unwrap());
        if store.contains_key("stop").unwrap() {
            break;
        }
    }
}

#[test]
fn waiters_are_woken_by_commits_and_by_nothing_else() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let seq = store.seq().unwrap();
    assert!(!store.wait_for_change(seq, Duration::from_millis(20)).unwrap());
    let waiters: Vec<_> = ["waiter", "read-only waiter"].map(|role| Player::start(role, "", &path)).into();
    waiters.iter().for_each(|waiter| assert_eq!(waiter.next(), "ready"));
    for n in 0..20 {
        let mut undone = store.begin().unwrap();
        undone.insert("key", "never").unwrap();
        undone.rollback();
        thread::sleep(Duration::from_millis(10));
        let value = n.to_string();
        store.insert("key", &value).unwrap();
        let start = Instant::now();
        for waiter in &waiters {
            // One that was woken by the rollback would say the last number again.
            assert_eq!(waiter.next(), value);
        }
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    }
    assert!(store.wait_for_change(seq, Duration::ZERO).unwrap());
    store.insert("stop", "").unwrap();
    for waiter in waiters {
        waiter.stop();
    }
}

/// Compaction leaves of the history what is still needed.
fn whole_history() -> Options {
    Store::options().auto_compact(None)
}

/// Changes keys that belong to it alone at random, and says what it did.
fn change_at_random(path: &Path, seed: u64) {
    let store = whole_history().open(path).unwrap();
    let mut random = Random(seed);
    for n in 0..2000 {
        let key = format!("{seed}:{}", random.below(50));
        if random.one_in(3) {
            if store.remove(&key).unwrap() {
                say(&format!("{key} removed"));
            }
        } else {
            store.insert(&key, value(n)).unwrap();
            say(&format!("{key} {n}"));
        }
    }
}

/// What a part of the changes says of the keys of one process, in the words of [`change_at_random`].
fn told(store: &Store, since: u64, prefix: &str) -> Vec<String> {
    let changes = store.changes_since(since).unwrap();
    let mut last = since;
    let mut told = Vec::new();
    for change in &changes {
        let change = change.unwrap();
        assert!(change.seq >= last && change.seq <= changes.seq());
        last = change.seq;
        let (key, what) = match change.kind {
            ChangeKind::Insert { key, value } => (key, number(value).to_string()),
            ChangeKind::Remove { key } => (key, "removed".to_owned()),
            other => panic!("{other:?}"),
        };
        let key = String::from_utf8(key.to_vec()).unwrap();
        if key.starts_with(prefix) {
            told.push(format!("{key} {what}"));
        }
    }
    told
}

#[test]
fn the_changes_since_are_what_was_done() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = whole_history().open(&path).unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let start = store.seq().unwrap();
    let players = [Player::start("changer", 1, &path), Player::start("changer", 2, &path)];
    thread::sleep(Duration::from_millis(60));
    let middle = store.seq().unwrap();
    let [one, two] = players.map(Player::stop);
    for (name, done) in [("1:", one), ("2:", two)] {
        assert_eq!(told(&store, start, name), done);
        assert_eq!(told(&reader, start, name), done);
        let late = told(&store, middle, name);
        assert!(done.ends_with(&late));
    }
    let end = store.seq().unwrap();
    assert!(told(&store, end, "").is_empty());
    for wrong in [end + 1, u64::MAX, (1 << 60) + 5] {
        assert!(matches!(store.changes_since(wrong), Err(Error::HistoryTruncated { .. })));
    }
    store.clear().unwrap();
    let cleared = store.changes_since(end).unwrap();
    assert!(matches!(cleared.iter().next(), Some(Ok(change)) if change.kind == ChangeKind::Clear));
}

/// What a power cut has undone did happen to whoever saw it.
#[test]
fn changes_of_a_life_that_was_cut_short_are_told_apart() {
    let folder = folder();
    let (path, copy): (PathBuf, PathBuf) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::open(&path).unwrap();
    store.insert("key", "one").unwrap();
    let kept = store.seq().unwrap();
    fs::copy(&path, &copy).unwrap();
    store.insert("key", "two").unwrap();
    let undone = store.seq().unwrap();
    // A copy is recovered as after a power cut.
    let store = Store::open(&copy).unwrap();
    store.insert("key", "three").unwrap();
    let changes = store.changes_since(kept).unwrap();
    let values: Vec<_> = changes.iter().map(|change| change.unwrap().kind).collect();
    assert_eq!(values, [ChangeKind::Insert { key: b"key", value: b"three" }]);
    assert!(matches!(store.changes_since(undone), Err(Error::HistoryTruncated { .. })));
}
