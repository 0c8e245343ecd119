//! Tags: which words of a cache line have the bits in question.

use super::Word;

/// A bit for each of the first six words whose highest 24 bits are `tag`, and one for each where they are zero. Their
/// other bits do not count.
///
/// The comparison has no branch on the words. The place of a key in its line is random, so such a branch would be
/// mispredicted once in each search, and only after the line has come from memory: the processor could not begin with
/// anything that follows. (SwissTable compares a group at once for the same reason.)
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn tagged_and_bare(words: &[Word; 8], tag: u64) -> (u32, u32) {
    use std::arch::x86_64::{
        __m128i, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_movemask_ps, _mm_set_epi64x, _mm_set1_epi32,
        _mm_shuffle_ps, _mm_srli_epi32,
    };

    let word = |place: usize| words[place].relaxed() as i64;
    // SAFETY: these compute with values only; and each processor with x86-64 has SSE2.
    unsafe {
        // A tag is the upper half of a word without its low eight bits.
        let tags = |one: __m128i, other: __m128i| {
            let halves = _mm_shuffle_ps::<0b11_01_11_01>(_mm_castsi128_ps(one), _mm_castsi128_ps(other));
            _mm_srli_epi32::<8>(_mm_castps_si128(halves))
        };
        let equal = |tags: __m128i, tag: __m128i| _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(tags, tag))) as u32;
        let two = |place: usize| _mm_set_epi64x(word(place + 1), word(place));
        let last = two(4);
        let (first, last) = (tags(two(0), two(2)), tags(last, last));
        let (tag, zero) = (_mm_set1_epi32(tag as i32), _mm_set1_epi32(0));
        let places = |tag: __m128i| equal(first, tag) | equal(last, tag) << 4 & 0b11_0000;
        (places(tag), places(zero))
    }
}

/// The same for other processors.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn tagged_and_bare(words: &[Word; 8], tag: u64) -> (u32, u32) {
    let line: [u64; 6] = std::array::from_fn(|place| words[place].relaxed());
    let places = |tag: u64| {
        // Equal tags leave nothing above the other bits.
        let is_tagged = |place: usize| u32::from((line[place] ^ tag << 40) < 1 << 40) << place;
        is_tagged(0) | is_tagged(1) | is_tagged(2) | is_tagged(3) | is_tagged(4) | is_tagged(5)
    };
    (places(tag), places(0))
}

/// The first of the two.
#[inline(always)]
pub(crate) fn tagged(words: &[Word; 8], tag: u64) -> u32 {
    let (tagged, _) = tagged_and_bare(words, tag);
    tagged
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn each_place_is_found_and_no_other() {
        let line = |words: [u64; 8]| words.map(|word| Word(AtomicU64::new(word.to_le())));
        for tag in [0, 1, 0x80_0000, 0xff_ffff, 0x12_3456] {
            for places in 0..64u32 {
                let word = |place: u32| {
                    let is_tagged = places >> place & 1 == 1;
                    // One bit beside the tag, at either end of it, or all others.
                    let other = [tag ^ 1, tag ^ 0x80_0000, !tag & 0xff_ffff][place as usize % 3];
                    (if is_tagged { tag } else { other }) << 40 | [0, (1 << 40) - 1][place as usize % 2]
                };
                let words = [0, 1, 2, 3, 4, 5].map(word);
                let [a, b, c, d, e, f] = words;
                assert_eq!(tagged(&line([a, b, c, d, e, f, tag << 40, tag << 40]), tag), places, "{tag:x}");
            }
        }
    }
}
