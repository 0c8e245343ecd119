//! The arguments of the program.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::common::generate;
use super::common::output::Answer;
use super::common::plain::one_line;
use super::failure::{Done, Failure};
use super::out::print;
use super::{bench, care, copies, diff, export, import, keys, lists, stats_arguments, watch};

/// Shows what is in a slotlog store, and changes it
///
/// Others may have the store open meanwhile, and wait for nothing longer than for one transaction. What only reads
/// opens the file read-only.
///
/// The default map is meant where --map is left away. Keys and values of typed maps are written as their types are:
/// 42, true, (7, "seven"). Bytes are written as text, with \n \r \t \\ and \xHH for what is none.
///
/// Exit code: 0; 1 if the answer is no (a key is not there, there are findings or differences); 2 for an error.
#[derive(Parser)]
#[command(name = "slotlog", version, arg_required_else_help = true)]
#[command(after_long_help = "\
Examples:
  slotlog set app.slotlog alice '3 visits'
  slotlog get app.slotlog alice
  slotlog list app.slotlog
  slotlog export app.slotlog everything.jsonl --all-maps
  slotlog help import

`slotlog-stats app.slotlog` shows how a store does: its size, its maps, who uses it.")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Get(keys::Get),
    Set(keys::Set),
    Remove(keys::Remove),
    List(lists::List),
    Count(lists::Count),
    Maps(lists::Maps),
    Import(import::Arguments),
    Export(export::Arguments),
    Backup(copies::Backup),
    Restore(copies::Restore),
    Verify(care::Verify),
    Repair(care::Repair),
    Compact(care::Compact),
    Watch(watch::Arguments),
    Diff(diff::Arguments),
    Bench(bench::Arguments),
    Completions(Completions),
    Manual(Manual),
}

/// Print what a shell reads to complete these commands, or those of slotlog-stats
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog completions fish > ~/.config/fish/completions/slotlog.fish
  slotlog completions bash --of slotlog-stats > ~/.bash_completion")]
pub struct Completions {
    shell: Shell,
    /// The program
    #[arg(long, value_name = "PROGRAM", default_value = "slotlog")]
    of: Program,
}

/// A program that this package has.
#[derive(Clone, Copy, ValueEnum)]
enum Program {
    Slotlog,
    SlotlogStats,
}

impl Program {
    fn command(self) -> clap::Command {
        match self {
            Program::Slotlog => Arguments::command(),
            Program::SlotlogStats => stats_arguments::Arguments::command(),
        }
    }
}

/// Write the pages of the manual to a folder, those of slotlog-stats too
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog manual ~/.local/share/man/man1")]
pub struct Manual {
    folder: PathBuf,
}

impl Command {
    pub fn run(&self) -> Done {
        match self {
            Command::Get(arguments) => keys::get(arguments),
            Command::Set(arguments) => keys::set(arguments),
            Command::Remove(arguments) => keys::remove(arguments),
            Command::List(arguments) => lists::list(arguments),
            Command::Count(arguments) => lists::count(arguments),
            Command::Maps(arguments) => lists::maps(arguments),
            Command::Import(arguments) => import::run(arguments),
            Command::Export(arguments) => export::run(arguments),
            Command::Backup(arguments) => copies::backup(arguments),
            Command::Restore(arguments) => copies::restore(arguments),
            Command::Verify(arguments) => care::verify(arguments),
            Command::Repair(arguments) => care::repair(arguments),
            Command::Compact(arguments) => care::compact(arguments),
            Command::Watch(arguments) => watch::run(arguments),
            Command::Diff(arguments) => diff::run(arguments),
            Command::Bench(arguments) => bench::run(arguments),
            Command::Completions(arguments) => {
                let script = generate::completions(arguments.of.command(), arguments.shell);
                print(&String::from_utf8_lossy(&script))?;
                Ok(Answer::Yes)
            }
            Command::Manual(arguments) => {
                let folder = arguments.folder.as_path();
                let failed = |error| Failure::new(format!("{}: could not be written: {error}", folder.display()));
                for program in Program::value_variants() {
                    generate::manual(program.command(), folder).map_err(failed)?;
                }
                Ok(Answer::Yes)
            }
        }
    }
}

/// Says what is wrong with the arguments, and how to go on.
pub fn refuse(error: &clap::Error) -> ExitCode {
    // If this fails, there is no way left to say it.
    let _ = error.print();
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
        && missing.iter().any(|argument| argument == "<FILE>")
    {
        let _ = writeln!(io::stderr(), "\n{}", how_to_go_on());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Which file could be meant.
fn how_to_go_on() -> String {
    let files = std::fs::read_dir(".").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut stores: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "slotlog"))
        .filter_map(|path| path.file_name().map(|name| one_line(&name.to_string_lossy())))
        .collect();
    stores.sort();
    match stores.as_slice() {
        [] => "FILE is the file of a store. `slotlog set FILE KEY VALUE` makes one.".to_owned(),
        [store] => format!("FILE is the file of a store, such as {store} here."),
        stores => format!("FILE is the file of a store. Here are {}.", stores.join(", ")),
    }
}
