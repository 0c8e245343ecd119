//! `slotlog verify`, `repair`, `compact`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use slotlog::{Finding, RepairOptions, RepairReport, VerifyReport, VerifyScope, repair_with};

use super::common::figures::{counted, size};
use super::common::output::Answer;
use super::common::progress::Progress;
use super::failure::Done;
use super::open;
use super::out::{print, print_json};

/// Check every byte of a store
///
/// Others may use it meanwhile; while one of them writes, one commit is checked. Exit code: 1 if there are findings.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog verify app.slotlog
  slotlog verify app.slotlog --json | jq '.findings[].offset'")]
pub struct Verify {
    /// The file of the store
    file: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn verify(arguments: &Verify) -> Done {
    let store = open::read(&arguments.file)?;
    let progress = Progress::of_bytes("checking", 1);
    let report = store.verify_with(|at| progress.report(at.done, at.total))?;
    progress.finish();
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&verified(&report))?;
    }
    Ok(if report.is_clean() { Answer::Yes } else { Answer::No })
}

/// What a check has found.
pub fn verified(report: &VerifyReport) -> String {
    let verdict = match report.finding_count() {
        0 => "no findings".to_owned(),
        count => counted(count, "finding", "findings"),
    };
    let (records, keys) = (counted(report.records(), "record", "records"), counted(report.keys(), "key", "keys"));
    let mut text = format!("{verdict} in {records} and {keys}\n");
    match report.scope() {
        VerifyScope::Snapshot => text.push_str("one commit was checked, since others are writing\n"),
        VerifyScope::Part => text.push_str("not everything could be checked\n"),
        _ => {}
    }
    list(report.findings(), report.finding_count(), &mut text);
    if !report.is_clean() {
        text.push_str("restore a backup, or save what is whole: slotlog repair\n");
    }
    text
}

fn list(findings: &[Finding], count: u64, text: &mut String) {
    const MOST: usize = 20;

    for finding in findings.iter().take(MOST) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {finding}");
    }
    let left = count - findings.len().min(MOST) as u64;
    if left > 0 {
        let _ = writeln!(text, "  and {left} more");
    }
}

/// Save what is whole in a damaged store to a new one
///
/// The damaged file is only read; keep it until you are content. Exit code: 1 if something is lost or doubtful.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog repair damaged.slotlog repaired.slotlog
  slotlog repair damaged.slotlog repaired.slotlog --older --overwrite")]
pub struct Repair {
    /// The file of the damaged store
    file: PathBuf,
    /// The new store
    output: PathBuf,
    /// Take an older value of a key whose newest one is lost; it may have been removed since
    #[arg(long)]
    older: bool,
    /// Replace an existing store that no process has open
    #[arg(long)]
    overwrite: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn repair(arguments: &Repair) -> Done {
    let progress = Progress::of_bytes("repairing", 1);
    let options = RepairOptions::new().older_versions(arguments.older).overwrite(arguments.overwrite);
    let options = options.on_progress(|at| progress.report(at.done, at.total));
    let report = repair_with(&arguments.file, &arguments.output, options)?;
    progress.finish();
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&repaired(&report))?;
    }
    Ok(if report.is_whole() { Answer::Yes } else { Answer::No })
}

fn repaired(report: &RepairReport) -> String {
    let (keys, maps) = (counted(report.keys(), "key", "keys"), counted(report.maps(), "named map", "named maps"));
    let mut text = format!("{keys} saved, {maps}");
    // Writing to a string cannot fail.
    let _ = match (report.lost_keys(), report.doubtful_keys()) {
        (0, 0) if report.is_whole() => write!(text, "; none is lost"),
        (0, 0) => write!(text, "; none is known to be lost"),
        (lost, 0) => write!(text, "; {lost} lost"),
        (lost, doubtful) => write!(text, "; {lost} lost, {doubtful} doubtful"),
    };
    if report.older_keys() > 0 {
        let _ = write!(text, "; {} have an older value", report.older_keys());
    }
    text.push('\n');
    if report.unreadable_bytes() > 0 {
        let _ = writeln!(text, "{} of {} could not be read", size(report.unreadable_bytes()), size(report.bytes()));
    }
    list(report.findings(), report.finding_count(), &mut text);
    text
}

/// Make a store as small as it can be, while others use it
///
/// Every write does a share of this anyway. Exit code: 1 if readers or bookmarks hold back what could be gained.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog compact app.slotlog")]
pub struct Compact {
    /// The file of the store
    file: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn compact(arguments: &Compact) -> Done {
    let store = open::write(&arguments.file, false)?;
    let progress = Progress::of_bytes("compacting", 1);
    let report = store.compact_with(|at| progress.report(at.done, at.total))?;
    progress.finish();
    store.close()?;
    if arguments.json {
        print_json(&report)?;
    } else {
        let (freed, len) = (size(report.freed_bytes), size(report.file_len));
        let mut text = format!("{freed} shorter; the file has {len}\n");
        if report.held_back > 0 {
            let _ =
                writeln!(text, "readers or bookmarks hold back {}; slotlog-stats says which", size(report.held_back));
        }
        if report.reuse_refused {
            text.push_str("the system denies the call membarrier, without which no space is reused\n");
        }
        print(&text)?;
    }
    Ok(if report.finished { Answer::Yes } else { Answer::No })
}
