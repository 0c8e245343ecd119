//! What the programs have in common: how figures, times and names read, how output is printed, and how progress shows.

#![allow(dead_code, reason = "each program uses its part")]

pub mod colour;
pub mod columns;
pub mod escape;
pub mod figures;
pub mod generate;
pub mod guard;
pub mod output;
pub mod plain;
pub mod progress;
pub mod tables;
