//! What a write costs: to one store, and to three nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use slotlog::{Durability, Store};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::cluster::Cluster;

/// The value that is written.
const VALUE: [u8; 100] = [7; 100];
/// How many write at the same time.
const WRITERS: [usize; 2] = [1, 16];

/// How long each call took.
type Times = anyhow::Result<Vec<Duration>>;

/// Prints figures of writes that survive a power cut, each measured for `time`, with files in `folder`.
///
/// # Errors
/// Those of the stores and of the nodes.
pub async fn run(program: &Path, folder: &Path, time: Duration) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    println!("{:<30} {:>9} {:>10} {:>10}", "", "a second", "median", "99 %");
    let store = Store::options().durability(Durability::Synced).open(folder.path().join("one.slotlog"))?;
    for writers in WRITERS {
        let mut all = JoinSet::new();
        for writer in 0..writers {
            let store = store.clone();
            all.spawn_blocking(move || write_to_store(&store, writer, time));
        }
        report(&format!("one store, writes of {writers}"), time, all.join_all().await)?;
    }
    drop(store);

    let cluster = Cluster::start(program, folder.path(), &[]).await?;
    for writers in WRITERS {
        let mut all = JoinSet::new();
        for writer in 0..writers {
            all.spawn(write_to_nodes(cluster.client()?, writer, time));
        }
        report(&format!("three nodes, writes of {writers}"), time, all.join_all().await)?;
    }
    for readers in WRITERS {
        let mut all = JoinSet::new();
        for _ in 0..readers {
            all.spawn(read_from_nodes(cluster.client()?, time));
        }
        report(&format!("three nodes, reads of {readers}"), time, all.join_all().await)?;
    }
    Ok(())
}

fn write_to_store(store: &Store, writer: usize, time: Duration) -> Times {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let began = Instant::now();
        store.insert(format!("{writer} {}", times.len()), VALUE)?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn write_to_nodes(mut client: Client, writer: usize, time: Duration) -> Times {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let began = Instant::now();
        let _ = client.put(&format!("{writer} {}", times.len()), VALUE, None).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn read_from_nodes(mut client: Client, time: Duration) -> Times {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let began = Instant::now();
        client.get(&format!("0 {}", times.len() % 100)).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Prints a row.
fn report(what: &str, time: Duration, all: Vec<Times>) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for one in all {
        times.extend(one?);
    }
    times.sort_unstable();
    anyhow::ensure!(!times.is_empty(), "{what}: nothing was done");
    let at = |share: usize| format!("{:.2} ms", times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3);
    let rate = times.len() as f64 / time.as_secs_f64();
    println!("{what:<30} {rate:>9.0} {:>10} {:>10}", at(50), at(99));
    Ok(())
}
