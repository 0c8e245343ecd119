//! What the programs have in common: how figures, times and names read, and how output is printed.

#![allow(dead_code, reason = "each program uses its part")]

pub mod figures;
pub mod output;
