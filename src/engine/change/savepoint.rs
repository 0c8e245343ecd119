//! Savepoints: states of a batch to which it can be rolled back.
//!
//! The log's tail is the savepoint: the records after it are forgotten by going back to it. What the batch knows
//! besides is what its records say, so it is kept where it is small, and derived from the forgotten records where it is
//! large.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::{Batch, State};
use crate::error::{Error, Result};
use crate::file::layout::Kind;
use crate::file::log::Scan;

impl Batch {
    /// Makes changes that belong together: all of them or, where one is refused, none.
    pub(super) fn in_one<R>(&mut self, step: impl FnOnce(&mut Batch) -> Result<R>) -> Result<R> {
        let before = self.save()?;
        let done = step(self);
        if done.is_err() && !self.broken {
            self.roll_back_to(before)?;
        }
        self.saved.pop();
        done
    }

    /// Remembers the state that the batch is in, by a number that no other state of any batch in this process has.
    pub(crate) fn save(&mut self) -> Result<u64> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.adopt()?;
        self.check_not_broken()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.saved.push((number, self.now.clone()));
        Ok(number)
    }

    /// Goes back to the state with this number, and forgets those after it. Takes time in proportion to what is taken
    /// back.
    pub(crate) fn roll_back_to(&mut self, number: u64) -> Result<()> {
        self.adopt()?;
        self.check_not_broken()?;
        let Some(at) = self.saved.iter().position(|(saved, _)| *saved == number) else {
            return Err(Error::NoSuchSavepoint { path: self.engine().mapping.path().to_owned() });
        };
        self.saved.truncate(at + 1);
        let State { mut tail, last, records, parts, made, dropped } = self.saved[at].1.clone();
        let engine = Arc::clone(self.engine());
        // If something fails in between, the batch is neither in the one state nor in the other.
        self.broken = true;
        let taken_back = Scan::new(&engine.mapping, tail.at, self.now.tail.at).collect::<Result<Vec<_>>>()?;
        let regions = self.now.made.iter().filter(|(map, _)| !made.contains_key(map)).map(|(_, made)| made.region);
        let mut taken: Vec<_> = regions.collect();
        for &record in taken_back.iter().rev() {
            match record.kind() {
                Some(Kind::Put | Kind::Remove) => self.take_back(record),
                Some(Kind::Jump | Kind::Clear) => taken.extend(record.target()),
                _ => {}
            }
        }
        let mut writing = self.turn.write();
        writing.return_extents(&taken)?;
        writing.writer.settle(&engine.mapping, tail.at)?;
        tail.extent_end = writing.writer.extent.1;
        drop(writing);
        self.now = State { tail, last, records, parts, made, dropped };
        self.broken = false;
        Ok(())
    }
}
