//! What is made from the definition of a program's arguments: completions of a shell, and pages of a manual.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// What a shell reads to complete the arguments of a program.
pub fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// Writes the manual of a program to a folder: a page, and one for each of its commands.
pub fn manual(command: Command, folder: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
}
