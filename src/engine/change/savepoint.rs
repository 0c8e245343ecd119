//! Savepoints: states of a batch to which it can be rolled back.
//!
//! The log's tail is the savepoint: the records after it are forgotten by going back to it. What the batch knows
//! besides is what its records say, so it is kept where it is small, and derived from the forgotten records where it is
//! large.

use std::sync::Arc;

use super::batch::{Batch, Saved};
use crate::error::{Error, Result};
use crate::file::layout::Kind;
use crate::file::log::{Scan, Tail};

impl Batch {
    /// Makes changes that belong together: all of them or, where one is refused, none.
    pub(super) fn in_one<R>(&mut self, step: impl FnOnce(&mut Batch) -> Result<R>) -> Result<R> {
        let before = self.save()?;
        let done = step(self);
        if done.is_err() && !self.broken {
            self.roll_back_to(before)?;
        }
        self.saved.retain(|saved| saved.number != before);
        done
    }

    /// Remembers the state that the batch is in, by a number.
    pub(crate) fn save(&mut self) -> Result<u64> {
        self.adopt()?;
        self.check_not_broken()?;
        let number = self.next_saved;
        self.next_saved += 1;
        self.saved.push(Saved {
            number,
            tail: self.tail,
            last: self.last,
            records: self.records,
            parts: self.parts.clone(),
            made: self.made.clone(),
            dropped: self.dropped.clone(),
        });
        Ok(number)
    }

    /// Goes back to the state with this number, and forgets those after it. Takes time in proportion to what is taken
    /// back.
    pub(crate) fn roll_back_to(&mut self, number: u64) -> Result<()> {
        self.adopt()?;
        self.check_not_broken()?;
        let Some(at) = self.saved.iter().position(|saved| saved.number == number) else {
            return Err(Error::NoSuchSavepoint { path: self.engine().mapping.path().to_owned() });
        };
        self.saved.truncate(at + 1);
        let tail = self.saved[at].tail;
        let engine = Arc::clone(self.engine());
        // If something fails in between, the batch is neither in the one state nor in the other.
        self.broken = true;
        let records = Scan::new(&engine.mapping, tail.at, self.tail.at).collect::<Result<Vec<_>>>()?;
        let mut taken = Vec::new();
        for &record in records.iter().rev() {
            match record.kind() {
                Some(Kind::Put | Kind::Remove) => self.take_back(record),
                Some(Kind::Jump | Kind::Clear) => taken.extend(record.target()),
                _ => {}
            }
        }
        let mut writing = self.turn.write();
        writing.return_extents(&taken)?;
        writing.writer.settle(&engine.mapping, tail.at)?;
        self.tail = Tail { extent_end: writing.writer.extent.1, ..tail };
        drop(writing);
        let saved = &self.saved[at];
        (self.last, self.records) = (saved.last, saved.records);
        (self.parts, self.made, self.dropped) = (saved.parts.clone(), saved.made.clone(), saved.dropped.clone());
        self.broken = false;
        Ok(())
    }
}
