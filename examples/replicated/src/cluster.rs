//! Nodes as processes on this machine: for the demonstration, the figures and the tests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::sleep;

use crate::NodeId;
use crate::client::Client;
use crate::node::Status;

/// Nodes that end with this value.
pub struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    addresses: BTreeMap<NodeId, String>,
    running: BTreeMap<NodeId, Child>,
    arguments: Vec<String>,
}

/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts three nodes of `program`, with further `arguments`, and makes them a cluster. Their folders are in
    /// `folder`.
    ///
    /// # Errors
    /// They do not start, or do not agree on a leader.
    pub async fn start(program: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Cluster> {
        let cluster = Cluster::nodes(program, folder, arguments)?;
        cluster.client()?.init(&cluster.addresses).await?;
        cluster.leader().await?;
        Ok(cluster)
    }

    /// The same three nodes, which do not know each other yet.
    ///
    /// # Errors
    /// They do not start.
    pub fn nodes(program: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster {
            program: program.to_owned(),
            folder: folder.to_owned(),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        for id in 1..=3 {
            cluster.add(id)?;
        }
        Ok(cluster)
    }

    /// Starts a new node, which is not a member yet.
    ///
    /// # Errors
    /// It does not start.
    pub fn add(&mut self, id: NodeId) -> anyhow::Result<()> {
        self.addresses.insert(id, format!("127.0.0.1:{}", free_port()?));
        fs::create_dir_all(self.folder_of(id))?;
        let mut command = self.command(id);
        command.arg("--new");
        self.run(id, command)
    }

    /// Starts a node again.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self, id: NodeId) -> anyhow::Result<()> {
        let command = self.command(id);
        self.run(id, command)
    }

    /// What starts a node.
    pub fn command(&self, id: NodeId) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["node", "--with-parent", "--id", &id.to_string(), "--listen", &self.addresses[&id]]);
        command.arg("--folder").arg(self.folder_of(id)).args(&self.arguments);
        command
    }

    /// Starts a node by a command, and waits until it listens.
    ///
    /// # Errors
    /// It does not start; what it said about that is the error.
    pub fn run(&mut self, id: NodeId, mut command: Command) -> anyhow::Result<()> {
        let errors = File::options().create(true).append(true).open(self.errors_of(id))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it is a pipe")?).read_line(&mut line)?;
        self.running.insert(id, child);
        if !line.contains("listens on") {
            bail!("node {id} does not start: {}", fs::read_to_string(self.errors_of(id))?);
        }
        Ok(())
    }

    /// Kills a node, as `kill -9` does.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, id: NodeId) -> anyhow::Result<()> {
        let mut child = self.running.remove(&id).context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until a node ends by itself, and returns what it said last.
    ///
    /// # Errors
    /// It goes on for a minute, or ends without an error.
    pub async fn end_of(&mut self, id: NodeId) -> anyhow::Result<String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.running.get_mut(&id).context("it runs")?.try_wait()? {
                self.running.remove(&id);
                let said = fs::read_to_string(self.errors_of(id))?;
                return if status.success() { bail!("it ended well: {said}") } else { Ok(said) };
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("node {id} goes on")
    }

    /// The process of a node.
    ///
    /// # Panics
    /// It does not run.
    pub fn pid(&self, id: NodeId) -> u32 {
        self.running[&id].id()
    }

    /// The folder of a node.
    pub fn folder_of(&self, id: NodeId) -> PathBuf {
        self.folder.join(format!("node-{id}"))
    }

    fn errors_of(&self, id: NodeId) -> PathBuf {
        self.folder.join(format!("node-{id}.errors"))
    }

    /// The addresses of all nodes that were ever started.
    pub fn addresses(&self) -> &BTreeMap<NodeId, String> {
        &self.addresses
    }

    /// A client that knows all nodes.
    ///
    /// # Errors
    /// The system has no resources for it.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.addresses.values().cloned().collect())?)
    }

    /// How a node is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, id: NodeId) -> anyhow::Result<Status> {
        Ok(self.client()?.status(&self.addresses[&id]).await?)
    }

    /// The leader: waits until a node says that it is, and another one agrees.
    ///
    /// # Errors
    /// There is none for a minute.
    pub async fn leader(&self) -> anyhow::Result<NodeId> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let mut terms = Vec::new();
            for &id in self.running.keys() {
                if let Ok(status) = self.status(id).await
                    && let Some(leader) = status.leader
                {
                    terms.push((status.term, leader, leader == id));
                }
            }
            terms.sort_unstable();
            if let [.., (term, leader, _), (last_term, last_leader, true)] = terms[..]
                && (term, leader) == (last_term, last_leader)
            {
                return Ok(leader);
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("there is no leader")
    }

    /// Waits until a node has applied what the leader has at the moment.
    ///
    /// # Errors
    /// It has not within a minute.
    pub async fn caught_up(&self, id: NodeId) -> anyhow::Result<()> {
        let goal = self.status(self.leader().await?).await?.applied;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.status(id).await.is_ok_and(|status| status.applied >= goal) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("node {id} stays behind")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that can be listened on, also when a node is started again: the system takes the ports of outgoing
/// connections from higher ones.
fn free_port() -> io::Result<u16> {
    for port in (10_000..30_000).skip(std::process::id() as usize * 7 % 15_000) {
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}
