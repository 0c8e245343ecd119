//! Sequence numbers of commits.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The sequence number of a commit: later commits have greater ones, and numbers may be skipped.
///
/// It is made of an incarnation, which begins with each recovery from a power cut, and, in the bits below it, a count
/// of commits: a commit that a power cut has undone never has the number of a later one. It prints as one number;
/// `{:#x}` is shorter. To keep it elsewhere, turn it into a `u64` and back, or into text.
///
/// ```
/// use slotlog::Seq;
///
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("job", "wash")?;
/// let seen = store.seq()?;
/// assert!(seen > Seq::ZERO);
/// assert_eq!(Seq::from(u64::from(seen)), seen);
/// assert_eq!((seen.to_string().parse(), format!("{seen:#x}").parse()), (Ok(seen), Ok(seen)));
/// # Ok::<(), slotlog::Error>(())
/// ```
// What it is made of: `file::layout::seq`. Pins and the space table have the count alone. It is a bare number there, so
// that the two are never compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub(crate) u64);

impl Seq {
    /// Before all commits.
    pub const ZERO: Seq = Seq(0);
}

impl From<u64> for Seq {
    fn from(number: u64) -> Seq {
        Seq(number)
    }
}

impl From<Seq> for u64 {
    fn from(seq: Seq) -> u64 {
        seq.0
    }
}

/// In decimal or, after `0x`, in hexadecimal.
impl FromStr for Seq {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Seq, ParseIntError> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map(Seq)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Seq {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Seq {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Seq, D::Error> {
        u64::deserialize(deserializer).map(Seq)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::LowerHex for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
