//! Many changes in one commit.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Result;
use crate::engine::Engine;
use crate::engine::change::batch::Batch;
use crate::engine::settings::Durability;
use crate::file::layout::DEFAULT_MAP;
use crate::keys::{ChangeKeys, ReadKeys};

/// A write transaction: many changes that become visible, and survive, all together or not at all.
///
/// It holds the writer lock from beginning to end, so others cannot change what it reads. It sees its own changes;
/// others see them only once it is committed. Dropping it without [`commit`](Transaction::commit) discards them.
/// Records go to the log as they are made, so a transaction can be much larger than memory; it takes about 20 bytes of
/// heap for each key that it touches.
///
/// A thread that has a transaction open and writes to the store outside of it, through any handle, would wait for
/// itself, and gets [`Error::WouldDeadlock`](crate::Error::WouldDeadlock). A transaction is `Send`: another thread than
/// the one that began it may commit it. The store cannot see that it was sent until the new thread uses it; so it
/// counts as belonging to the thread that began or last used it, unless that thread [hands it
/// over](Transaction::hand_over).
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let mut transfer = store.begin()?;
/// transfer.insert("alice", "90")?;
/// transfer.insert("bob", "110")?;
/// assert_eq!(transfer.get("bob")?.as_deref(), Some(&b"110"[..]));
/// assert_eq!(store.get("bob")?, None, "nobody else sees it yet");
/// transfer.commit()?;
/// assert_eq!(store.len()?, 2);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[must_use = "a transaction that is dropped leaves nothing"]
pub struct Transaction {
    pub(crate) batch: Batch,
}

/// A place in a [`Transaction`] to which it can be rolled back: see [`Transaction::savepoint`].
#[derive(Debug)]
pub struct Savepoint {
    number: u64,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn begin(engine: &Arc<Engine>) -> Result<Transaction> {
        engine.sweep_drops()?;
        let batch = Batch::begin(Arc::clone(engine))?;
        // Report damage now, since `len` cannot.
        batch.len(DEFAULT_MAP)?;
        Ok(Transaction { batch })
    }

    /// Announces that the calling thread is about to give the transaction to another one. From then on the calling
    /// thread waits for its turn to write like any other, however long the receiver takes until it first uses the
    /// transaction and so becomes its thread.
    ///
    /// Without this call, a sender that writes waits a tenth of a second for the receiver's first use, and then fails
    /// with [`WouldDeadlock`](crate::Error::WouldDeadlock). With it, a thread that keeps the transaction after all and
    /// writes waits for itself until [`LockTimeout`](crate::Error::LockTimeout).
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::thread;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let (queue, orders) = mpsc::channel::<slotlog::Transaction>();
    /// let worker = thread::spawn(move || orders.into_iter().try_for_each(slotlog::Transaction::commit));
    ///
    /// let mut order = store.begin()?;
    /// order.insert("order 1", "tea")?;
    /// queue.send(order.hand_over()).expect("the worker lives");
    /// store.insert("orders", "1")?; // waits for the commit
    /// drop(queue);
    /// worker.join().expect("the worker does not panic")?;
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn hand_over(self) -> Transaction {
        self.batch.hand_over();
        self
    }

    /// The value of a key, as this transaction sees it.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("stock", "3")?;
    /// let mut sale = store.begin()?;
    /// assert_eq!(sale.get("stock")?.as_deref(), Some(&b"3"[..]));
    /// sale.insert("stock", "2")?;
    /// assert_eq!(sale.get("stock")?.as_deref(), Some(&b"2"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.batch.read(DEFAULT_MAP, key.as_ref(), |value, _| value.to_vec())
    }

    /// Whether a key has a value, as this transaction sees it.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("draft", "…")?;
    /// let mut transaction = store.begin()?;
    /// transaction.remove("draft")?;
    /// assert!(!transaction.contains_key("draft")?);
    /// assert!(store.contains_key("draft")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.batch.get(DEFAULT_MAP, key.as_ref())?.is_some())
    }

    /// Sets the value of a key.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut transaction = store.begin()?;
    /// transaction.insert("Ada", "36")?;
    /// transaction.insert("Ada", "37")?;
    /// transaction.commit()?;
    /// assert_eq!(store.get("Ada")?.as_deref(), Some(&b"37"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyTooLong`](crate::Error::KeyTooLong), [`ValueTooLong`](crate::Error::ValueTooLong),
    /// [`Full`](crate::Error::Full), [`Corrupt`](crate::Error::Corrupt): this one change was not made. The transaction
    /// goes on, and can be committed without it.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.batch.insert(DEFAULT_MAP, key.as_ref(), value.as_ref(), None)
    }

    /// Sets the value of a key until a deadline; see [`Store::insert_with_expiry`](crate::Store::insert_with_expiry).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// let mut login = store.begin()?;
    /// login.insert_with_expiry("token", "7", in_2100)?;
    /// login.commit()?;
    /// assert_eq!(store.expiry("token")?, Some(slotlog::Expiry::At(in_2100)));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Transaction::insert).
    pub fn insert_with_expiry(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, at: SystemTime) -> Result<()> {
        self.batch.insert(DEFAULT_MAP, key.as_ref(), value.as_ref(), Some(at))
    }

    /// Removes a key and returns whether it was there.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("draft", "…")?;
    /// let mut transaction = store.begin()?;
    /// assert!(transaction.remove("draft")?);
    /// assert!(!transaction.remove("draft")?);
    /// transaction.commit()?;
    /// assert_eq!(store.get("draft")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Transaction::insert).
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.batch.remove(DEFAULT_MAP, key.as_ref())
    }

    /// The number of keys, as this transaction sees them, including expired ones that were not removed yet.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// let mut transaction = store.begin()?;
    /// transaction.insert("Grace", "85")?;
    /// assert_eq!((transaction.len(), store.len()?), (2, 1));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn len(&self) -> u64 {
        self.batch.len(DEFAULT_MAP).unwrap_or(0)
    }

    /// Whether there are no keys, as this transaction sees them.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// let mut transaction = store.begin()?;
    /// assert!(!transaction.is_empty());
    /// transaction.remove("Ada")?;
    /// assert!(transaction.is_empty());
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers how far the transaction has come, for [`rollback_to`](Transaction::rollback_to). It takes no
    /// space in the log, and time and memory in proportion to the number of maps that the transaction has changed, not
    /// to that of its changes.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut import = store.begin()?;
    /// for (name, ages) in [("Ada", ["36", "37"]), ("Bob", ["40", "?"])] {
    ///     let before = import.savepoint()?;
    ///     for (at, age) in ages.iter().enumerate() {
    ///         import.insert(format!("{name} {at}"), age)?;
    ///     }
    ///     if ages.contains(&"?") {
    ///         import.rollback_to(&before)?;
    ///     }
    /// }
    /// import.commit()?;
    /// assert_eq!((store.len()?, store.get("Bob 0")?), (2, None));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io) if an append of this transaction has failed, so that it can only be dropped.
    pub fn savepoint(&mut self) -> Result<Savepoint> {
        Ok(Savepoint { number: self.batch.save()? })
    }

    /// Takes back all changes since a [savepoint](Transaction::savepoint), of keys and of maps. The savepoint stays;
    /// those after it are gone. The rest of the transaction goes on. It takes time in proportion to what is taken back.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut order = store.begin()?;
    /// order.insert("tea", "1")?;
    /// let with_tea = order.savepoint()?;
    /// order.insert("tea", "2")?;
    /// order.insert("cake", "1")?;
    /// order.rollback_to(&with_tea)?;
    /// assert_eq!((order.get("tea")?.as_deref(), order.get("cake")?), (Some(&b"1"[..]), None));
    /// order.commit()?;
    /// assert_eq!(store.len()?, 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NoSuchSavepoint`](crate::Error::NoSuchSavepoint) if it is of another transaction, or was taken back itself;
    /// [`Corrupt`](crate::Error::Corrupt), [`Io`](crate::Error::Io): the transaction can only be dropped then.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        self.batch.roll_back_to(savepoint.number)
    }

    /// Makes all changes visible at once, with the [durability](crate::Options::durability) of the store.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut transaction = store.begin()?;
    /// transaction.insert("Ada", "36")?;
    /// transaction.insert("Grace", "85")?;
    /// assert_eq!(store.len()?, 0);
    /// transaction.commit()?;
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Full`](crate::Error::Full) if the index has to grow and cannot: nothing has changed. [`Io`](crate::Error::Io)
    /// or [`Poisoned`](crate::Error::Poisoned) with [`Durability::Synced`], if a flush failed, now or earlier: the
    /// changes may be there, all of them, but may not survive a power cut.
    pub fn commit(self) -> Result<()> {
        self.batch.commit_as_usual()
    }

    /// [Commits](Transaction::commit) with another durability than that of the store.
    ///
    /// ```
    /// use slotlog::{Durability, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("orders.slotlog");
    /// let store = Store::open(&path)?;
    /// let mut order = store.begin()?;
    /// order.insert("order 1", "tea")?;
    /// order.commit_with(Durability::Synced)?;
    /// assert_eq!(store.get("order 1")?.as_deref(), Some(&b"tea"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`commit`](Transaction::commit).
    pub fn commit_with(self, durability: Durability) -> Result<()> {
        self.batch.commit(durability)
    }

    /// Discards all changes. Dropping the transaction does the same.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("stock", "3")?;
    /// let mut sale = store.begin()?;
    /// sale.insert("stock", "2")?;
    /// sale.rollback();
    /// assert_eq!(store.get("stock")?.as_deref(), Some(&b"3"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn rollback(self) {}
}
