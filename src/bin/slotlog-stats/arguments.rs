//! What the command line of `slotlog-stats` takes.

use std::path::PathBuf;

use clap::{ArgGroup, Parser};

/// Shows what is in a slotlog store and what is wrong with it, without changing it.
///
/// The file is opened for reading only. Others may have it open meanwhile, and are not disturbed.
#[derive(Debug, Parser)]
#[command(
    name = "slotlog-stats",
    version,
    after_help = EXAMPLES,
    group(ArgGroup::new("form").args(["json", "html", "watch"])),
)]
pub struct Arguments {
    /// The file of the store
    pub file: PathBuf,
    /// Show one map only, with its histograms and its largest entries; the default map is "(default)"
    #[arg(long, value_name = "NAME", conflicts_with_all = ["html", "watch"])]
    pub map: Option<String>,
    /// Explain each word in a sentence
    #[arg(long, conflicts_with_all = ["form"])]
    pub explain: bool,
    /// Check every byte in use too, and print the findings. While others are writing, one commit is checked
    #[arg(long, conflicts_with = "watch")]
    pub verify: bool,
    /// Look at every entry. Otherwise the sizes in large maps are judged by a sample, and marked with "~"
    #[arg(long, conflicts_with = "watch")]
    pub exact: bool,
    /// Print one JSON object. Its schema is in docs/tools.md
    #[arg(long)]
    pub json: bool,
    /// Write a page to look at: one file, which needs no network. "-" is standard output
    #[arg(long, value_name = "OUT")]
    pub html: Option<PathBuf>,
    /// Look again every few seconds, until it is interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    pub watch: Option<f64>,
    /// With --watch: stop after this many looks
    #[arg(long, value_name = "LOOKS", requires = "watch")]
    pub count: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  slotlog-stats app.slotlog                     what is in it, the verdict first
  slotlog-stats app.slotlog --explain           the same, with each word explained
  slotlog-stats app.slotlog --map sessions      one map, with histograms
  slotlog-stats app.slotlog --verify            check every byte in use
  slotlog-stats app.slotlog --html page.html    a page to look at
  slotlog-stats app.slotlog --watch 1           who does what, every second
  slotlog-stats app.slotlog --json | jq .stats.dead_share

Exit code: 0; 1 if --verify has findings; 2 for an error.";

/// A number of seconds, from a tenth on.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds was expected".to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0.1 to 86400 seconds are possible".to_owned()) }
}
