//! Shared by several test files.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod basics;
mod player;
#[cfg(unix)]
mod rights;
mod stores;

pub(crate) use basics::*;
pub(crate) use player::*;
#[cfg(unix)]
pub(crate) use rights::*;
pub(crate) use stores::*;
