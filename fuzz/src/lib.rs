//! What the fuzz targets share.
//!
//! An input is a program: a head and then instructions, each of a fixed length. So a mutation of one leaves the others
//! what they are, any bytes are an input, and a seed is easily written (`examples/seeds.rs`).

pub mod image;
pub mod scratch;
pub mod uses;

/// The instructions of a program that have a length of `N`; what is left over at the end is none.
pub fn instructions<const N: usize>(program: &[u8]) -> impl Iterator<Item = &[u8; N]> {
    program.chunks_exact(N).filter_map(|chunk| chunk.first_chunk())
}

/// The first `N` bytes of a program, and the rest of it.
pub fn head<const N: usize>(program: &[u8]) -> Option<([u8; N], &[u8])> {
    program.split_first_chunk().map(|(head, rest)| (*head, rest))
}

/// Splits off `count` instructions, or as many as there are.
pub fn split<const N: usize>(program: &[u8], count: u8) -> (&[u8], &[u8]) {
    program.split_at((usize::from(count) * N).min(program.len() / N * N))
}
