//! `slotlog-stats`: shows what is in a store and what is wrong with it.
//!
//! The file is opened read-only and never changed; others may use it meanwhile. [`look`] reads everything, [`verdict`]
//! judges it, and [`text`], [`page`] and the JSON of [`look`] show it. [`watch`] looks again and again.

mod arguments;
#[path = "../common/mod.rs"]
mod common;
mod look;
mod page;
mod space;
mod text;
mod verdict;
mod watch;
mod words;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use arguments::Arguments;
use clap::Parser;
use common::guard::spare_store;
use common::output::{Answer, exit, print};

const PROGRAM: &str = "slotlog-stats";

fn main() -> ExitCode {
    exit(PROGRAM, run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<Answer, String> {
    if let Some(seconds) = arguments.watch {
        return watch::watch(&arguments.file, seconds, arguments.count).map(|()| Answer::Yes);
    }
    if let Some(out) = &arguments.html {
        spare_store(out)?;
    }
    let looked = look::look(arguments)?;
    // In one piece: a store that cannot be read to its end prints nothing.
    if arguments.json {
        print(&looked.to_json()?)?;
    } else if let Some(out) = &arguments.html {
        let page = page::page(&looked)?;
        if out == Path::new("-") {
            print(&page)?;
        } else {
            fs::write(out, page).map_err(|error| format!("{}: {error}", out.display()))?;
        }
    } else {
        print(&text::text(&looked, arguments))?;
    }
    Ok(if looked.is_clean() { Answer::Yes } else { Answer::No })
}
