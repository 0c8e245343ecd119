//! Opening: after a close, after a kill and after a power cut.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Figure, Job, Outcome, Role, Row, check, files};
use crate::child;
use crate::data::{Batch, EXTRA, checksum, expected, key};
use crate::peers::{Access, Durability, Peer};

/// Keys that a process inserts before it is killed.
const LAST: u64 = 1000;

/// Opens the store, and reads one value, since some stores open lazily. Milliseconds.
fn open_and_read<P: Peer>(job: &Job, row: Row) -> Result<(P, Figure)> {
    let model = job.model()?;
    let (number, version) = (0..job.keys).find_map(|number| model.entry(number)).unwrap_or_default();
    let start = Instant::now();
    let peer = job.open::<P>(Durability::Buffered, Access::Write)?;
    let found = peer.get(&key(number), checksum)?;
    let value = start.elapsed().as_secs_f64() * 1e3;
    check("the value after opening", found, Some(expected(number, version, job.value_len)))?;
    Ok((peer, Figure { row, value, is_partial: false }))
}

pub(super) fn closed<P: Peer>(job: &Job) -> Result<Outcome> {
    let (peer, figure) = open_and_read::<P>(job, Row::Open)?;
    peer.close()?;
    Ok(vec![figure])
}

/// Inserts some keys, says so, and waits to be killed.
pub(super) fn until_killed<P: Peer>(job: &Job, is_synced: bool) -> Result<Outcome> {
    let mut peer = job.open::<P>(Durability::Buffered, Access::Write)?;
    let batch = Batch::new((EXTRA..EXTRA + LAST).map(|number| (number, 1)), job.value_len);
    batch.iter().try_for_each(|(key, value)| peer.put(key, value))?;
    if is_synced {
        peer.sync()?;
    }
    child::say("written")?;
    BufReader::new(std::io::stdin()).read_line(&mut String::new())?;
    // Not killed: the parent process is gone.
    Ok(Vec::new())
}

/// How many of the killed process's keys are there.
fn survivors<P: Peer>(peer: &P, job: &Job) -> Result<u64> {
    let mut found = 0;
    for number in EXTRA..EXTRA + LAST {
        let value = peer.get(&key(number), checksum)?;
        check("a value that was there", value.unwrap_or_else(|| expected(number, 1, job.value_len)), {
            expected(number, 1, job.value_len)
        })?;
        found += u64::from(value.is_some());
    }
    Ok(found)
}

pub(super) fn after_kill<P: Peer>(job: &Job) -> Result<Outcome> {
    let mut victim = child::start(&Job { role: Role::Die { is_synced: false }, ..job.clone() })?;
    child::wait_for(&mut victim, "written")?;
    victim.kill()?;
    victim.wait()?;
    let (peer, figure) = open_and_read::<P>(job, Row::OpenAfterKill)?;
    let survived = survivors(&peer, job)?;
    ensure!(survived == LAST || !P::facts().survives_kill, "only {survived} of {LAST} puts have survived the kill");
    peer.close()?;
    Ok(vec![figure])
}

/// The files right after a sync, while the store is open, are a possible result of a power cut at that time. They are
/// opened in another place, and must be read from the disk.
pub(super) fn after_power_cut<P: Peer>(job: &Job) -> Result<Outcome> {
    let mut victim = child::start(&Job { role: Role::Die { is_synced: true }, ..job.clone() })?;
    child::wait_for(&mut victim, "written")?;
    let left = Job { folder: job.folder.join("left"), ..job.clone() };
    fs::create_dir_all(&left.folder)?;
    files::copy(&job.folder.join("store"), &left.store())?;
    fs::copy(job.model_path(), left.model_path())?;
    victim.kill()?;
    victim.wait()?;
    files::forget(&left.store())?;
    let (peer, figure) = open_and_read::<P>(&left, Row::OpenAfterPowerCut)?;
    let survived = survivors(&peer, job)?;
    ensure!(survived == LAST, "only {survived} of {LAST} synced puts have survived the power cut");
    peer.close()?;
    fs::remove_dir_all(&left.folder)?;
    Ok(vec![figure])
}
