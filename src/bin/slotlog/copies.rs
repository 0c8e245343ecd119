//! `slotlog backup`, `restore`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use slotlog::{Access, BackupOptions, BackupReport, Error, Seq, Store};

use super::common::figures::{counted, size};
use super::common::output::Answer;
use super::common::progress::Progress;
use super::failure::{Done, Failure};
use super::open;
use super::out::{print, print_json};

/// Write a copy of a store, as one commit left it, while others use it
///
/// The copy is a store like any other, and compacted. With --since it is an increment: only what was committed after
/// another backup. A file has its name only once it is complete and durable.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog backup app.slotlog nightly.slotlog --overwrite
  slotlog backup app.slotlog monday.increment --since sunday.slotlog
  slotlog backup app.slotlog everything.increment --since 0")]
pub struct Backup {
    /// The file of the store
    file: PathBuf,
    /// The new file
    output: PathBuf,
    /// Only what was committed after this: a commit, as `slotlog backup` prints it, or the last whole backup
    #[arg(long, value_name = "COMMIT|BACKUP")]
    since: Option<PathBuf>,
    /// Replace an existing store that no process has open
    #[arg(long)]
    overwrite: bool,
    /// Do not rest while others write
    #[arg(long)]
    full_speed: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn backup(arguments: &Backup) -> Done {
    let since = arguments.since.as_deref().map(commit_of).transpose()?;
    let store = open::read(&arguments.file)?;
    let progress = Progress::of_bytes("copying", 1);
    let options = BackupOptions::new().overwrite(arguments.overwrite).full_speed(arguments.full_speed);
    let options = options.on_progress(|at| progress.report(at.done, at.total));
    let report = match since {
        Some(seq) => store.backup_since_with(seq, &arguments.output, options)?,
        None => store.backup_with(&arguments.output, options)?,
    };
    progress.finish();
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&copied(&report, since.is_some()))?;
    }
    Ok(Answer::Yes)
}

fn copied(report: &BackupReport, is_increment: bool) -> String {
    let BackupReport { keys, seq, file_len, .. } = report;
    let what = if is_increment { counted(*keys, "change", "changes") } else { counted(*keys, "entry", "entries") };
    format!("{what} up to commit {seq:#x}, {}\n", size(*file_len))
}

/// The commit that is named, or that a backup has.
fn commit_of(since: &Path) -> Result<Seq, Failure> {
    if let Some(seq) = since.to_str().and_then(|text| text.parse().ok()) {
        return Ok(seq);
    }
    let origin = open::read(since)?.origin()?;
    let no_copy = || Failure::new(format!("{}: is no backup; name a backup or a commit", since.display()));
    Ok(origin.ok_or_else(no_copy)?.seq)
}

/// Make a store from a backup and the increments that follow it
///
/// What was copied is checked before it gets its name. The backup stays as it is.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog restore nightly.slotlog app.slotlog
  slotlog restore sunday.slotlog app.slotlog monday.increment tuesday.increment --overwrite")]
pub struct Restore {
    /// The backup
    backup: PathBuf,
    /// The file of the store that it becomes
    file: PathBuf,
    /// Increments, in their order
    increments: Vec<PathBuf>,
    /// Replace an existing store that no process has open, damaged or not
    #[arg(long)]
    overwrite: bool,
}

pub fn restore(arguments: &Restore) -> Done {
    let (file, mut unfinished) = (&arguments.file, arguments.file.as_os_str().to_owned());
    unfinished.push(".unfinished");
    // No process opens it from here on until it is replaced.
    let held = hold(file, arguments.overwrite)?;
    let unfinished = PathBuf::from(unfinished);
    for source in std::iter::once(&arguments.backup).chain(&arguments.increments) {
        spare(source, &unfinished)?;
    }
    let unfinished = Unfinished(unfinished);
    // For a message that says more than that a file could not be copied.
    open::read(&arguments.backup)?;
    let failed = |error| Failure::new(format!("{}: could not be copied: {error}", arguments.backup.display()));
    fs::copy(&arguments.backup, &unfinished.0).and_then(|_| allow_writing(&unfinished.0)).map_err(failed)?;
    let store = Store::options().create(false).exclusive(true).auto_compact(None).open(&unfinished.0)?;
    let mut commits = 0;
    for increment in &arguments.increments {
        commits += store.apply_increment(increment)?;
    }
    let progress = Progress::of_bytes("checking", 1);
    let report = store.verify_with(|at| progress.report(at.done, at.total))?;
    progress.finish();
    if !report.is_clean() {
        let backup = arguments.backup.display();
        return Err(Failure::new(format!("{backup}: damaged, see `slotlog verify`; restore another backup")));
    }
    store.close_last()?;
    let failed = |error| Failure::new(format!("{}: could not be replaced: {error}", file.display()));
    fs::rename(&unfinished.0, file).map_err(failed)?;
    drop(held);
    let increments = match arguments.increments.len() {
        0 => String::new(),
        _ => format!(", with {} of increments", counted(commits, "commit", "commits")),
    };
    print(&format!("{} restored{increments}\n", counted(report.keys(), "entry", "entries")))?;
    Ok(Answer::Yes)
}

/// A backup may be read-only, as those on some media are. The store that it becomes is not.
fn allow_writing(file: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(file)?.permissions();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        permissions.set_mode(permissions.mode() | 0o200);
    }
    #[cfg(not(unix))]
    permissions.set_readonly(false);
    fs::set_permissions(file, permissions)
}

/// Makes sure that what is restored is not where the new store is made, which begins as an empty file.
fn spare(source: &Path, unfinished: &Path) -> Result<(), Failure> {
    match (fs::canonicalize(source), fs::canonicalize(unfinished)) {
        (Ok(one), Ok(other)) if one == other => {
            Err(Failure::new(format!("{}: is where the new store is made; rename it first", source.display())))
        }
        _ => Ok(()),
    }
}

/// A file that is removed, unless it has got its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After success, there is none.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes sure that a file may be replaced, and that no process opens it meanwhile if it can be opened at all.
fn hold(file: &Path, overwrite: bool) -> Result<Option<Store>, Failure> {
    if !file.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    if !overwrite {
        return Err(Failure::new(format!("{}: already exists; use --overwrite to replace it", file.display())));
    }
    match Store::options().access(Access::ReadOnly).create(false).exclusive(true).open(file) {
        Ok(store) => Ok(Some(store)),
        // A store that was damaged is what a restore is for.
        Err(Error::Corrupt { .. } | Error::Truncated { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
