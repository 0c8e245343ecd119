//! The ground floor: what touches bytes.
//!
//! [`layout`] says what every byte means, [`mapping`] maps them and is the one door through which they change,
//! [`live_table`] finds pins and processes, [`space`] hands out [`extents`], [`log`] and [`index`] read and write
//! records and slots. `log` and `index` do not know each other: the index asks "is this my key?" through a closure.

mod extents;
pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod live_table;
pub(crate) mod locks;
pub(crate) mod log;
pub(crate) mod mapping;
pub(crate) mod space;
pub(crate) mod table;
pub(crate) mod totals;
pub(crate) mod witness;
