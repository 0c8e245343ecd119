//! The program of the README: counts visits, in the default map and in one of its own.
//!
//! ```text
//! cargo run --release --example visits
//! ```

#![allow(clippy::print_stdout, reason = "this is a program, not the library")]

use slotlog::Store;

fn main() -> slotlog::Result<()> {
    let store = Store::open("visits.slotlog")?; // created if it is missing
    store.insert("alice", "3 visits")?; // survives a kill from here on
    store.sync()?; // … and a power cut

    let visits = store.map::<str, u64>("visits")?; // a named, typed map, as HashMap has it
    visits.entry("bob").and_modify(|count| *count += 1).or_insert(1)?;

    let mut transaction = store.begin()?; // many changes, in any maps, all or nothing
    transaction.remove("alice")?;
    transaction.of(&visits).insert("alice", 4)?;
    transaction.commit()?;

    let snapshot = store.snapshot()?; // one commit's view, whatever others write
    for entry in snapshot.of(&visits).iter()? {
        let (name, count) = entry?;
        println!("{name}: {count}");
    }
    store.close()
}
