//! Many processes, one file. Each test here starts this program several times, and kills some of the processes.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(unsafe_code, reason = "signals, forks and a clock that processes share")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use slotlog::{Access, ChangeKind, Error, HeldBy, Opened, Options, Snapshot, Store, Transaction, format};

mod forks;
mod growth;
#[path = "../support/history.rs"]
mod history;
mod notice;
mod pins;
mod registers;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod together;
mod workload;

use forks::*;
use growth::*;
use history::{Event, Operation, is_linearizable};
use notice::*;
use pins::*;
use registers::*;
use stopped::*;
use support::{
    LONG, Player, Random, argument, assert_clean, folder, overwrite, role, say, setting, stop_flag, until_stopped,
};
use tables::*;
use together::*;
use workload::*;

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((role, path)) = role() else { return };
    let argument = argument();
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
        "fork in memory" => fork_in_memory(),
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

/// A signal to a process that plays a role.
#[cfg(unix)]
fn signal(player: &Player, signal: libc::c_int) {
    // SAFETY: a signal to a child that was not waited for yet, so the number is still its own.
    assert_eq!(unsafe { libc::kill(player.child.id() as libc::pid_t, signal) }, 0);
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
