//! Writers and readers that never rest.

use super::*;

pub(super) const COUNTERS: u64 = 16;

/// Step `n` of a writer.
pub(super) enum Step {
    Insert,
    Remove(u64),
    /// In addition to an insert, raises this counter and sets this pair, all in one transaction.
    Transaction(u64),
}

pub(super) fn step(n: u64) -> Step {
    match n % 16 {
        15 => Step::Remove(n - 8),
        3 | 7 => Step::Transaction(n / 4 % COUNTERS),
        _ => Step::Insert,
    }
}

pub(super) fn own(writer: &str, n: u64) -> String {
    format!("own:{writer}:{n}")
}

/// Processor time of this thread, if the system provides it: other work on the same cores does not count.
#[cfg(unix)]
pub(super) fn thread_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the struct that it is given, which lives on this stack frame.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0;
    told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(not(unix))]
pub(super) fn thread_time() -> Option<Duration> {
    None
}

/// Reports an operation that was slow: that took much processor time, or waited for very long. Many processes share few
/// cores here, so wall-clock time means little.
pub(super) fn timed<T>(what: &str, operation: impl FnOnce() -> T) -> T {
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

/// Runs its steps until it is stopped, and reports the number of each when it has returned.
pub(super) fn write_on(path: &Path, name: &str) {
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
        // On a busy machine the content must not grow too long to be read. Most writers are killed before they come
        // here.
        if n > 5000 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    store.close().unwrap();
}

pub(super) fn read_on(path: &Path, access: Access) {
    let stop = stop_flag();
    let store = Store::options().access(access).open(path).unwrap();
    let mut counts = [0; COUNTERS as usize];
    let mut random = Random(u64::from(std::process::id()));
    say("ready");
    let mut rounds = 0_u64;
    loop {
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
        // A reader that is told to stop before it ran at all does its first round nevertheless.
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
    say(&format!("rounds {rounds}"));
}

/// The known progress of the writers: the number of the last step that had returned.
#[derive(Default)]
pub(super) struct Done(BTreeMap<String, Option<u64>>);

impl Done {
    fn hear(&mut self, writer: &str, lines: &[String]) {
        let done = self.0.entry(writer.to_owned()).or_default();
        for line in lines {
            *done = Some(line.parse().unwrap_or_else(|_| panic!("writer {writer} says {line}")));
        }
    }

    /// Compares the content with that: no returned step is missing, and the next step is there or not.
    fn check(&self, store: &Store) {
        assert_clean(store);
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

/// Kills players of a never-ending workload, and stops some for a while.
pub(super) fn kill_at_random(kills: u64, seed: u64) {
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
    // An index grows in one go, which all writers wait for: that is not timed here.
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
            signal(&players[index].1, libc::SIGSTOP);
            thread::sleep(Duration::from_millis(200));
            signal(&players[index].1, libc::SIGCONT);
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

/// Increments a shared counter `times` times.
pub(super) fn increment(path: &Path, times: u64) {
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
