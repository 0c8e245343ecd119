//! Child processes of this program, and how they communicate.

use std::env;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workloads::{Job, Outcome};

/// The name of the hidden command.
pub(crate) const COMMAND: &str = "child";

fn command(job: &Job) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(COMMAND).arg(serde_json::to_string(job)?);
    Ok(command)
}

/// Starts a process that says something before it is done, and whose input stays open until then.
pub(crate) fn start(job: &Job) -> Result<Child> {
    Ok(command(job)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// Waits until a process says this.
pub(crate) fn wait_for(process: &mut Child, word: &str) -> Result<()> {
    let output = process.stdout.as_mut().context("its output is open")?;
    let mut said = Vec::new();
    let mut byte = [0];
    // Byte by byte, so that later output is not consumed.
    while output.read(&mut byte)? == 1 && byte != *b"\n" {
        said.extend(byte);
    }
    ensure!(said == word.as_bytes(), "a process said {:?} instead of {word:?}", String::from_utf8_lossy(&said));
    Ok(())
}

/// Says something to the parent process.
pub(crate) fn say(word: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{word}")?;
    Ok(output.flush()?)
}

/// Does a piece of work in its own process.
pub(crate) fn run(job: &Job) -> Result<Outcome> {
    let output = command(job)?.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().context("the process said nothing")?;
    Ok(serde_json::from_str(last)?)
}

/// The work of such a process.
pub(crate) fn main(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    say(&serde_json::to_string(&job.peer.run(&job)?)?)
}
