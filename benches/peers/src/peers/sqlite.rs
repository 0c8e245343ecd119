//! SQLite, through rusqlite.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use rusqlite::{Connection, OpenFlags, Row, Statement, params};

use super::{Access, Durability, Facts, Peer, Place, View};
use crate::data::{Batch, Key};

const PUT: &str = "INSERT INTO entries (key, value) VALUES (?1, ?2) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const GET: &str = "SELECT value FROM entries WHERE key = ?1";

/// Rows shorter than a twentieth of a page are kept in the index itself, as its documentation advises.
const SHORT: usize = PAGE / 20;
/// The default length of a page.
const PAGE: usize = 4096;
/// The length that its documentation advises for large values.
const LARGE_PAGE: usize = 16384;

pub(crate) struct Sqlite {
    /// A connection belongs to one thread at a time.
    connection: Mutex<Connection>,
    path: PathBuf,
    access: Access,
}

pub(crate) struct SqliteView<'v> {
    get: Statement<'v>,
    all: Statement<'v>,
}

fn connect(path: &PathBuf, access: Access) -> Result<Connection> {
    let connection = match access {
        Access::Write => Connection::open(path)?,
        Access::Read => Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
    };
    connection.pragma_update(None, "mmap_size", 1_i64 << 40)?;
    connection.pragma_update(None, "cache_size", -262_144)?;
    Ok(connection)
}

fn value<'r>(row: &'r Row<'_>) -> Result<&'r [u8]> {
    Ok(row.get_ref(0)?.as_blob()?)
}

impl Sqlite {
    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.get_mut().map_err(|_| anyhow!("another thread has panicked"))
    }
}

impl Peer for Sqlite {
    type View<'v> = SqliteView<'v>;

    fn facts() -> Facts {
        let settings =
            "WAL, memory-mapped, 256 MiB of cache, prepared statements; pages of 16 KiB for values of 4 KiB on";
        Facts {
            buffered: "a kill (`synchronous = NORMAL`)".into(),
            longest_value: 1_000_000_000,
            ..Facts::on_disk("SQLite", rusqlite::version(), settings, "`synchronous = FULL`")
        }
    }

    fn open(place: &Place<'_>) -> Result<Sqlite> {
        let path = place.folder.join("store.sqlite");
        let connection = connect(&path, place.access)?;
        if place.access == Access::Write {
            if place.value_len >= PAGE {
                connection.pragma_update(None, "page_size", LARGE_PAGE as i64)?;
            }
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let synchronous = if place.durability == Durability::Synced { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", synchronous)?;
            let rowid = if size_of::<Key>() + place.value_len < SHORT { " WITHOUT ROWID" } else { "" };
            let create = format!("CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB){rowid}");
            connection.execute(&create, ())?;
        }
        Ok(Sqlite { connection: Mutex::new(connection), path, access: place.access })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.connection()?.prepare_cached(PUT)?.execute(params![&key[..], value])?;
        Ok(())
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let transaction = self.connection()?.transaction()?;
        let mut put = transaction.prepare_cached(PUT)?;
        for (key, value) in batch.iter() {
            put.execute(params![&key[..], value])?;
        }
        drop(put);
        Ok(transaction.commit()?)
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.connection()?.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([&key[..]])?;
        Ok(())
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let connection = self.connection.lock().map_err(|_| anyhow!("another thread has panicked"))?;
        let mut get = connection.prepare_cached(GET)?;
        let mut rows = get.query([&key[..]])?;
        rows.next()?.map(|row| value(row).map(found)).transpose()
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut SqliteView<'v>) -> Result<R>) -> Result<R> {
        // The thread's own connection.
        let connection = connect(&self.path, self.access)?;
        let transaction = connection.unchecked_transaction()?;
        let all = transaction.prepare("SELECT value, key FROM entries")?;
        work(&mut SqliteView { get: transaction.prepare(GET)?, all })
    }

    fn sync(&mut self) -> Result<()> {
        // A checkpoint syncs the log first and then the file.
        self.connection()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        Ok(())
    }

    fn close(self) -> Result<()> {
        let connection = self.connection.into_inner().map_err(|_| anyhow!("another thread has panicked"))?;
        connection.close().map_err(|(_, error)| error.into())
    }
}

impl View for SqliteView<'_> {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let mut rows = self.get.query([&key[..]])?;
        rows.next()?.map(|row| value(row).map(found)).transpose()
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut rows = self.all.query(())?;
        while let Some(row) = rows.next()? {
            entry(row.get_ref(1)?.as_blob()?, value(row)?);
        }
        Ok(())
    }
}
