//! Maps as the catalogue names them.

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use crate::file::layout::{CatalogueEntry, MapId, Offset};

/// An entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) id: MapId,
    /// The version that the user gave to its types.
    pub(crate) version: u32,
    /// The names of its key and value types.
    pub(crate) types: String,
}

impl Named {
    pub(super) fn fingerprint(&self) -> u64 {
        xxh3_64(self.types.as_bytes())
    }

    /// The value of its entry. `first_region` is, or was, the map's first region.
    pub(super) fn to_value(&self, first_region: Offset) -> Vec<u8> {
        let entry = CatalogueEntry {
            map: self.id.0.into(),
            version: self.version.into(),
            fingerprint: self.fingerprint().into(),
            region: first_region.into(),
        };
        [entry.as_bytes(), self.types.as_bytes()].concat()
    }

    /// Whether its types equal those of `other`.
    pub(crate) fn is_like(&self, other: &Named) -> bool {
        (self.fingerprint(), self.version) == (other.fingerprint(), other.version)
    }
}

/// A map that a batch has made.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) name: Vec<u8>,
    pub(super) named: Named,
    /// Its first region.
    pub(super) region: Offset,
}
