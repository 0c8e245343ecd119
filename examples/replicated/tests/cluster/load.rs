//! Clients that write and read until they are told to stop, and remember what they were told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use replicated::client::{Client, Error};
use replicated::cluster::Cluster;
use tokio::task::JoinSet;

use crate::history::is_linearizable;
use crate::register::{Action, Event};

/// Clients at the same time.
const CLIENTS: u64 = 4;
/// Keys that are used as registers at the same time.
const REGISTERS: u64 = 3;
/// After this many changes there are new registers, since a long history takes long to check.
const CHANGES: u64 = 150;

/// What all clients share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Told>,
}

/// What a client was told, or all of them.
#[derive(Default)]
pub struct Told {
    /// The keys that were written once, with an acknowledgement.
    pub written: Vec<String>,
    /// The operations on registers.
    registers: HashMap<String, Vec<Event>>,
    /// Changes of which the outcome is unknown.
    pub unknown: u64,
}

impl Load {
    /// Starts them, with values of `bytes`.
    pub fn start(cluster: &Cluster, bytes: usize) -> Load {
        let shared = Arc::<Shared>::default();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let worker = Worker {
                number,
                bytes,
                client: cluster.client().unwrap(),
                random: SmallRng::seed_from_u64(number),
                shared: Arc::clone(&shared),
                told: Told::default(),
                writes: 0,
            };
            clients.spawn(worker.work());
        }
        Load { shared, clients }
    }

    /// Waits until this many more changes are acknowledged.
    pub async fn goes_on(&self, changes: u64) {
        let goal = self.shared.acknowledged.load(Ordering::Relaxed) + changes;
        let start = Instant::now();
        while self.shared.acknowledged.load(Ordering::Relaxed) < goal {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is acknowledged any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the clients, and checks that the registers were registers.
    pub async fn stop(self) -> Told {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for told in self.clients.join_all().await {
            all.written.extend(told.written);
            all.unknown += told.unknown;
            for (register, events) in told.registers {
                all.registers.entry(register).or_default().extend(events);
            }
        }
        assert!(!all.written.is_empty());
        for (register, events) in &all.registers {
            assert!(is_linearizable(events), "{register} is no register: {events:?}");
        }
        all
    }
}

struct Worker {
    number: u64,
    bytes: usize,
    client: Client,
    random: SmallRng,
    shared: Arc<Shared>,
    told: Told,
    /// How many numbers it has written. They are different for all clients.
    writes: u64,
}

impl Worker {
    async fn work(mut self) -> Told {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.random.random() {
                self.write_once().await;
            } else {
                self.use_register().await;
            }
        }
        self.told
    }

    fn next_number(&mut self) -> u64 {
        self.writes += 1;
        self.writes * CLIENTS + self.number
    }

    /// Notes whether a change was acknowledged, and its result.
    fn outcome<T>(&mut self, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(result) => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some(result)
            }
            Err(Error::Unknown) => {
                self.told.unknown += 1;
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Writes a key that is not written again.
    async fn write_once(&mut self) {
        let key = format!("once/{}", self.next_number());
        let written = self.client.put(&key, value_of(&key, self.bytes), None).await;
        if self.outcome(written).is_some() {
            self.told.written.push(key);
        }
    }

    async fn use_register(&mut self) {
        let round = self.shared.acknowledged.load(Ordering::Relaxed) / CHANGES;
        let key = format!("register/{round}/{}", self.random.random_range(0..REGISTERS));
        let new = self.next_number();
        let mut called = Instant::now();
        let (operation, known) = match self.random.random_range(0..5) {
            0 | 1 => {
                let written = self.client.put(&key, new.to_string(), None).await;
                (Action::Put(new), self.outcome(written).is_some())
            }
            2 => {
                let removed = self.client.delete(&key, None).await;
                (Action::Delete, self.outcome(removed).is_some())
            }
            _ => {
                let (version, value) = self.client.get(&key).await.unwrap();
                let seen = value.map(|value| String::from_utf8(value).unwrap().parse().unwrap());
                let read = Event { operation: Action::Get(seen), called, returned: Some(Instant::now()) };
                self.told.registers.entry(key.clone()).or_default().push(read);
                called = Instant::now();
                let exchanged = self.client.put(&key, new.to_string(), Some(version)).await;
                let outcome = self.outcome(exchanged);
                let done = outcome.is_some_and(|exchanged| exchanged.is_ok());
                (Action::Exchange { expected: seen, new, done }, outcome.is_some())
            }
        };
        let event = Event { operation, called, returned: known.then(Instant::now) };
        self.told.registers.entry(key).or_default().push(event);
    }
}

/// The value that belongs to a key that is written once.
pub fn value_of(key: &str, bytes: usize) -> Vec<u8> {
    key.bytes().cycle().take(bytes.max(key.len())).collect()
}
