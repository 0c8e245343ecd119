//! The settings of a program, each with a type of its own, in a store that any number of its windows share:
//!
//! ```text
//! cargo run --release --example settings
//! cargo run --release --example settings -- volume 7
//! cargo run --release --example settings -- reset
//! ```

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "this is a program, not the library")]

use std::env;
use std::error::Error;
use std::process::ExitCode;

use slotlog::{Durability, Map, Store};

/// Where the settings are kept, in the working directory.
const STORE: &str = "settings.slotlog";

/// Whatever goes wrong ends up as a message on the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A map for each type that settings have: from the name of a setting to its value.
struct Settings {
    store: Store,
    switches: Map<str, bool>,
    numbers: Map<str, u8>,
    texts: Map<str, str>,
    sizes: Map<str, (u32, u32)>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("settings: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    // Settings change rarely, and should not be lost with the power: so each change is synced.
    let store = Store::options().durability(Durability::Synced).open(STORE)?;
    let settings = Settings {
        switches: store.map("switches")?,
        numbers: store.map("numbers")?,
        texts: store.map("texts")?,
        sizes: store.map("sizes")?,
        store,
    };
    match arguments {
        [] => settings.print()?,
        [command] if command == "reset" => settings.reset()?,
        [name, value] => settings.set(name, value)?,
        _ => return Err("usage: settings [reset | NAME VALUE]".into()),
    }
    let Settings { store, .. } = settings;
    Ok(store.close()?)
}

impl Settings {
    fn set(&self, name: &str, value: &str) -> Result<()> {
        match name {
            "dark" => self.switches.insert(name, value.parse::<bool>()?)?,
            "volume" => self.numbers.insert(name, value.parse::<u8>()?)?,
            "theme" => self.texts.insert(name, value)?,
            "window" => {
                let (width, height) = value.split_once('x').ok_or("a size is WIDTHxHEIGHT")?;
                self.sizes.insert(name, (width.parse::<u32>()?, height.parse::<u32>()?))?;
            }
            _ => return Err(format!("there is no setting {name}; there are dark, volume, theme and window").into()),
        }
        Ok(())
    }

    /// All settings, or none, whatever happens in the middle: a transaction over four maps.
    fn reset(&self) -> Result<()> {
        let mut transaction = self.store.begin()?;
        transaction.of(&self.switches).clear()?;
        transaction.of(&self.numbers).clear()?;
        transaction.of(&self.texts).clear()?;
        transaction.of(&self.sizes).clear()?;
        Ok(transaction.commit()?)
    }

    /// What there is at one moment, though another window may be changing it.
    fn print(&self) -> Result<()> {
        let now = self.store.snapshot()?;
        println!("dark    {}", now.of(&self.switches).get("dark")?.unwrap_or(false));
        println!("volume  {}", now.of(&self.numbers).get("volume")?.unwrap_or(5));
        println!("theme   {}", now.of(&self.texts).get_ref("theme")?.unwrap_or("plain"));
        let (width, height) = now.of(&self.sizes).get("window")?.unwrap_or((800, 600));
        println!("window  {width}x{height}");
        Ok(())
    }
}
