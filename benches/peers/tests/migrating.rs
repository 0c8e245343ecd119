//! The other stores' half of the guide's page about migrating: `docs/guide/migrating.md` shows the bodies of these
//! functions, and `tests/front_door.rs` compares them. Slotlog's half are doc tests of that page.

#![allow(unsafe_code, reason = "opening an environment is unsafe in heed")]
#![allow(clippy::unwrap_used)]

use std::error::Error;

use heed::EnvOpenOptions;
use heed::byteorder::LE;
use heed::types::{Str, U32};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rusqlite::{Connection, OptionalExtension};

type Done = Result<(), Box<dyn Error>>;

#[test]
fn sled_does_this() -> Done {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sled");

    let db = sled::open(&path)?;
    db.insert("alice", "3 visits")?;
    assert_eq!(db.get("alice")?.as_deref(), Some(&b"3 visits"[..]));
    db.compare_and_swap("alice", Some("3 visits"), Some("4 visits"))??;

    let ages = db.open_tree("ages")?;
    ages.insert("Ada", &36u32.to_le_bytes())?;
    ages.update_and_fetch("Ada", |age| {
        let age = u32::from_le_bytes(age?.try_into().ok()?);
        Some((age + 1).to_le_bytes().to_vec())
    })?;
    db.flush()?;

    let path = folder.path().join("app.slotlog");

    let store = slotlog::Store::open(&path)?;
    let moved = store.map::<str, u32>("ages")?;
    let mut moving = store.begin()?;
    for entry in &ages {
        let (name, age) = entry?;
        moving.of(&moved).insert(std::str::from_utf8(&name)?, u32::from_le_bytes(age.as_ref().try_into()?))?;
    }
    moving.commit()?;

    assert_eq!(moved.get("Ada")?, Some(37));
    Ok(())
}

#[test]
fn redb_does_this() -> Done {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.redb");

    const AGES: TableDefinition<&str, u32> = TableDefinition::new("ages");
    let db = redb::Database::create(&path)?;
    let write = db.begin_write()?;
    {
        let mut ages = write.open_table(AGES)?;
        ages.insert("Ada", 36)?;
        ages.insert("Grace", 85)?;
    }
    write.commit()?;

    let read = db.begin_read()?;
    let ages = read.open_table(AGES)?;
    assert_eq!(ages.get("Ada")?.map(|age| age.value()), Some(36));

    let path = folder.path().join("app.slotlog");

    let store = slotlog::Store::open(&path)?;
    let moved = store.map::<str, u32>("ages")?;
    let mut moving = store.begin()?;
    for entry in ages.iter()? {
        let (name, age) = entry?;
        moving.of(&moved).insert(name.value(), age.value())?;
    }
    moving.commit()?;

    assert_eq!((moved.get("Ada")?, moved.len()?), (Some(36), 2));
    Ok(())
}

#[test]
fn heed_does_this() -> Done {
    let folder = tempfile::tempdir()?;
    let path = folder.path();

    // SAFETY: nothing but LMDB changes the file while it is open.
    let env = unsafe { EnvOpenOptions::new().map_size(1 << 30).max_dbs(8).open(path)? };
    let mut write = env.write_txn()?;
    let ages: heed::Database<Str, U32<LE>> = env.create_database(&mut write, Some("ages"))?;
    ages.put(&mut write, "Ada", &36)?;
    ages.put(&mut write, "Grace", &85)?;
    write.commit()?;

    let read = env.read_txn()?;
    assert_eq!(ages.get(&read, "Ada")?, Some(36));

    let path = folder.path().join("app.slotlog");

    let store = slotlog::Store::open(&path)?;
    let moved = store.map::<str, u32>("ages")?;
    let mut moving = store.begin()?;
    for entry in ages.iter(&read)? {
        let (name, age) = entry?;
        moving.of(&moved).insert(name, age)?;
    }
    moving.commit()?;

    assert_eq!((moved.get("Ada")?, moved.len()?), (Some(36), 2));
    Ok(())
}

#[test]
fn sqlite_does_this() -> Done {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.sqlite");

    let mut db = Connection::open(&path)?;
    db.execute("CREATE TABLE IF NOT EXISTS ages (name TEXT PRIMARY KEY, age INTEGER) WITHOUT ROWID", ())?;
    let put = "INSERT INTO ages VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET age = excluded.age";
    let transaction = db.transaction()?;
    transaction.execute(put, ("Ada", 36))?;
    transaction.execute(put, ("Grace", 85))?;
    transaction.commit()?;

    let age: Option<u32> =
        db.query_row("SELECT age FROM ages WHERE name = ?1", ["Ada"], |row| row.get(0)).optional()?;
    assert_eq!(age, Some(36));

    let path = folder.path().join("app.slotlog");

    let store = slotlog::Store::open(&path)?;
    let moved = store.map::<str, u32>("ages")?;
    let mut moving = store.begin()?;
    let mut all = db.prepare("SELECT name, age FROM ages")?;
    let mut rows = all.query(())?;
    while let Some(row) = rows.next()? {
        moving.of(&moved).insert(row.get::<_, String>(0)?, row.get::<_, u32>(1)?)?;
    }
    moving.commit()?;

    assert_eq!((moved.get("Ada")?, moved.len()?), (Some(36), 2));
    Ok(())
}
