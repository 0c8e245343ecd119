//! The origin of a copy: of which commit of which store it is one.
//!
//! **Invariant.** It is changed in the same commit as what makes the store a copy of that commit.

use zerocopy::{FromBytes, IntoBytes};

use super::batch::Batch;
use crate::engine::Engine;
use crate::engine::read::history::CommitId;
use crate::error::{Error, Origin, Result};
use crate::file::layout::{CATALOGUE, ORIGIN, OriginEntry, Seq};
use crate::file::log::Record;

impl Batch {
    /// The origin as the batch sees it.
    pub(crate) fn origin(&self) -> Result<Option<OriginEntry>> {
        let engine = self.engine();
        self.get(CATALOGUE, ORIGIN)?.map(|record| engine.origin_in(record)).transpose()
    }

    /// Notes that with this batch the store becomes a copy of this commit.
    pub(crate) fn set_origin(&mut self, uuid: [u8; 16], commit: CommitId) -> Result<()> {
        self.put(CATALOGUE, ORIGIN, OriginEntry::of(uuid, commit).as_bytes(), None)
    }
}

impl Engine {
    fn origin_in(&self, record: Record<'_>) -> Result<OriginEntry> {
        self.check_crc(record)?;
        OriginEntry::read_from_bytes(record.value())
            .map_err(|_| self.mapping.corrupt(record.offset, "expected the origin of the store"))
    }

    /// The origin of the store, if it is a copy.
    pub(crate) fn origin(&self) -> Result<Option<OriginEntry>> {
        if self.read_only {
            let Some((value, _)) = self.get_unpinned(CATALOGUE, ORIGIN)? else { return Ok(None) };
            return Ok(OriginEntry::read_from_bytes(&value).ok());
        }
        let view = self.view()?;
        view.get(CATALOGUE, ORIGIN)?.map(|record| self.origin_in(record)).transpose()
    }

    pub(crate) fn cannot_follow(&self, origin: Option<OriginEntry>, after: OriginEntry) -> Error {
        let path = self.mapping.path().to_owned();
        Error::CannotFollow { path, origin: origin.map(Origin::from), after: after.into() }
    }
}

impl OriginEntry {
    pub(crate) fn of(uuid: [u8; 16], commit: CommitId) -> OriginEntry {
        OriginEntry { uuid, seq: commit.seq.to_field(), crc: commit.crc.into(), reserved: 0.into() }
    }

    pub(crate) fn commit(&self) -> CommitId {
        CommitId { seq: Seq::of_field(self.seq), crc: self.crc.get() }
    }
}

impl From<OriginEntry> for Origin {
    fn from(entry: OriginEntry) -> Origin {
        Origin { store: uuid_text(entry.uuid), seq: Seq::of_field(entry.seq), crc: entry.crc.get() }
    }
}

/// The random identity of a store, as people write it.
pub(crate) fn uuid_text(bytes: [u8; 16]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]].map(hex).join("-")
}
