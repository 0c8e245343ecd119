//! slotlog beside other stores and maps: the same work for each of them, every piece of it in its own process, in turn,
//! round by round. Prints tables of medians and ratios, and draws plots.

mod child;
mod cli;
mod data;
mod peers;
mod report;
mod runner;
mod workloads;

use std::fs;

use anyhow::{Context, Result};
use clap::Parser;

use cli::{Arguments, Command};
use report::Report;
use runner::Results;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let results = match &arguments.command {
        Some(Command::Child { job }) => return child::main(job),
        Some(Command::Report { results }) => {
            let text = fs::read_to_string(results).with_context(|| format!("{}", results.display()))?;
            serde_json::from_str::<Results>(&text)?
        }
        None => runner::run(&arguments)?,
    };
    let report = Report::new(&results);
    print!("{}", report.markdown());
    if let Some(folder) = &arguments.out {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(&results)?)?;
        fs::write(folder.join("peers.md"), report.markdown())?;
        report.draw(folder)?;
    }
    Ok(())
}
