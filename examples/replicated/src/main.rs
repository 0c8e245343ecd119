//! The program: nodes, a client, a demonstration and figures. See the library of the same name.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use replicated::client::{Changed, Client, Found};
use replicated::{NodeId, bench, demo, node};

/// A replicated key-value service: slotlog as the storage of openraft.
#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start three nodes here, kill the leader, and say what happens.
    Demo,
    /// Print what writes and reads cost, for one store and for three nodes.
    Bench {
        /// Seconds for each row.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Where the files go: a folder on the disk that is to be measured.
        #[arg(long, default_value = ".")]
        folder: PathBuf,
    },
    /// Run a node.
    Node(node::Settings),
    /// Make nodes a new cluster.
    Init {
        /// Number and address of each, such as `1=127.0.0.1:7001`.
        #[arg(required = true, value_parser = member)]
        members: Vec<(NodeId, String)>,
    },
    /// Set the members of a cluster: who is new catches up first, who is left out no longer counts.
    Members {
        #[command(flatten)]
        at: At,
        /// Number and address of each.
        #[arg(required = true, value_parser = member)]
        members: Vec<(NodeId, String)>,
    },
    /// Show how the nodes are.
    Status {
        #[command(flatten)]
        at: At,
    },
    /// Print a value. Exit code 1 if there is none.
    Get {
        #[command(flatten)]
        at: At,
        /// The key.
        key: String,
    },
    /// Wait until a key has another version than this, and print its value.
    Watch {
        #[command(flatten)]
        at: At,
        /// The key.
        key: String,
        /// The version, 0 for no value.
        version: u64,
        /// How many seconds to wait. Exit code 1 if nothing has changed.
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
    },
    /// Set a value, and print its version.
    Put {
        #[command(flatten)]
        at: At,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Only if it has this version, 0 for no value. Exit code 1 if it has another one, which is printed.
        #[arg(long)]
        expected: Option<u64>,
    },
    /// Remove a key.
    Delete {
        #[command(flatten)]
        at: At,
        /// The key.
        key: String,
        /// Only if it has this version. Exit code 1 if it has another one, which is printed.
        #[arg(long)]
        expected: Option<u64>,
    },
}

#[derive(Args)]
struct At {
    /// Addresses of nodes, with commas between them. The client finds the leader.
    #[arg(long, required = true, value_delimiter = ',')]
    at: Vec<String>,
}

fn member(text: &str) -> Result<(NodeId, String), String> {
    let (id, address) = text.split_once('=').ok_or("NUMBER=ADDRESS is needed")?;
    Ok((id.parse().map_err(|_| format!("{id} is no number"))?, address.to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Program::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe()?;
    match command {
        Command::Demo => demo::run(&program).await?,
        Command::Bench { seconds, folder } => {
            bench::run(&program, &folder, Duration::try_from_secs_f64(seconds)?).await?;
        }
        Command::Node(settings) => node::run(settings).await?,
        Command::Init { members } => {
            let members: BTreeMap<_, _> = members.into_iter().collect();
            Client::new(members.values().cloned().collect())?.init(&members).await?;
        }
        Command::Members { at, members } => {
            Client::new(at.at)?.set_members(&members.into_iter().collect()).await?;
        }
        Command::Status { at } => {
            let client = Client::new(at.at.clone())?;
            for address in at.at {
                match client.status(&address).await {
                    Ok(status) => println!("{address}: {status:?}"),
                    Err(error) => println!("{address}: {error}"),
                }
            }
        }
        Command::Get { at, key } => return print(Some(Client::new(at.at)?.get(&key).await?)),
        Command::Watch { at, key, version, seconds } => {
            let wait = Duration::try_from_secs_f64(seconds)?;
            return print(Client::new(at.at)?.watch(&key, version, wait).await?);
        }
        Command::Put { at, key, value, expected } => {
            return Ok(exchanged(Client::new(at.at)?.put(&key, value, expected).await?));
        }
        Command::Delete { at, key, expected } => {
            return Ok(exchanged(Client::new(at.at)?.delete(&key, expected).await?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a value, and on the error output its version.
fn print(found: Option<Found>) -> anyhow::Result<ExitCode> {
    let Some((version, value)) = found else { return Ok(ExitCode::FAILURE) };
    eprintln!("version {version}");
    let Some(value) = value else { return Ok(ExitCode::FAILURE) };
    let mut out = std::io::stdout().lock();
    out.write_all(&value)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the version after a change, or the one that it met.
fn exchanged(outcome: Changed) -> ExitCode {
    let (Ok(version) | Err(version)) = outcome;
    println!("version {version}");
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
