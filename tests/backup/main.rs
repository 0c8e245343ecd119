//! Backups: what is in them, where they cannot go, and what is left of them when they fail or are killed.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod content;
mod kills;
mod places;
#[path = "../support/mod.rs"]
mod support;
mod writers;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use slotlog::{Access, BackupOptions, Durability, Error, HeldBy, Opened, Store};
use support::{Player, Random, argument, assert_clean, content, content_of, folder, role, say, setting, stop_flag};

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((role, path)) = role() else { return };
    match role.as_str() {
        "writer" => writers::write_on(&path, argument().parse().unwrap()),
        "backup" => kills::back_up_again_and_again(&path),
        "holder" => places::hold(&path, &argument()),
        other => panic!("unknown role {other}"),
    }
}

/// What a backup is called before it is complete.
fn part_of(name: &Path) -> PathBuf {
    let mut part = name.as_os_str().to_owned();
    part.push(".unfinished");
    part.into()
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn overwriting<'f>() -> BackupOptions<'f> {
    BackupOptions::new().overwrite(true)
}

fn in_2100() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800)
}
