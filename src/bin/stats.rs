//! The stats binary.

fn main() {}
