//! Three nodes, of which the leader is killed.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use crate::cluster::Cluster;

/// How many values are written before, and after.
const VALUES: u32 = 100;

/// Starts three nodes of `program`, kills the leader, and says what happens.
///
/// # Errors
/// Anything that should not happen.
pub async fn run(program: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    println!("Starting three nodes on this machine, each with a store of its own in {}:", folder.path().display());
    let mut cluster = Cluster::start(program, folder.path(), &[]).await?;
    for (id, address) in cluster.addresses() {
        println!("  node {id} at {address}");
    }
    let leader = cluster.leader().await?;
    println!("They have elected node {leader} as their leader.\n");

    let mut client = cluster.client()?;
    let start = Instant::now();
    for number in 0..VALUES {
        let _ = client.put(&format!("key {number}"), format!("value {number}"), None).await?;
    }
    let each = start.elapsed() / VALUES;
    println!("{VALUES} values are written, in {each:.1?} each. Every one is flushed on two nodes at least.");
    let (version, _) = client.get("key 0").await?;
    let first = client.put("key 0", "another value", Some(version)).await?;
    let second = client.put("key 0", "too late", Some(version)).await?;
    ensure!(first.is_ok() && second == Err(first.unwrap_or(0)), "one of two exchanges of the same version is done");
    println!("Of two compare-exchanges of version {version}, the first is done, and the second is refused.\n");

    println!("Node {leader} is killed (kill -9). A client goes on writing …");
    cluster.kill(leader)?;
    let start = Instant::now();
    let _ = client.put("after the kill", "accepted", None).await?;
    let pause = start.elapsed().as_millis();
    println!("… and its next value is accepted after {pause} ms. Node {} leads now.", cluster.leader().await?);
    let mut present = 0;
    for number in 1..VALUES {
        let (_, value) = client.get(&format!("key {number}")).await?;
        present += u32::from(value == Some(format!("value {number}").into_bytes()));
    }
    let (_, exchanged) = client.get("key 0").await?;
    present += u32::from(exchanged.as_deref() == Some(b"another value"));
    println!("Of the {VALUES} values from before, {present} are there.\n");
    ensure!(present == VALUES, "acknowledged values are lost");

    let start = Instant::now();
    cluster.restart(leader)?;
    cluster.caught_up(leader).await?;
    let status = cluster.status(leader).await?;
    let (took, applied) = (start.elapsed().as_millis(), status.applied.unwrap_or(0));
    println!(
        "Node {leader} is started again: after {took} ms it has what the others have, {applied} entries of the log."
    );
    println!("That is all. The nodes end, and their folders are removed.");
    Ok(())
}
