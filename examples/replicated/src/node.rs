//! A node: engine, storage, and the HTTP interface for clients and other nodes.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /kv/KEY` | 200 with the value, and its version as `ETag`; 404 |
//! | `GET /kv/KEY?unlike=VERSION&wait=SECONDS` | the same as soon as the version is another one (0: no value); 304 |
//! | `PUT /kv/KEY` | 204, with the new version as `ETag` |
//! | `PUT /kv/KEY` with `If-Match: VERSION` | compare-exchange: 204; 412 with the present version as `ETag` |
//! | `DELETE /kv/KEY`, also with `If-Match` | 204; 404; 412 |
//! | `GET /cluster` | how the node is: a [`Status`] in JSON |
//! | `POST /cluster` with `{"1": "address", …}` | begins a new cluster with these members |
//! | `PUT /cluster` with the same | makes these the members, new ones after they have caught up |
//!
//! Instead of these: *307*, with the place of the leader; *503*, there is no leader at the moment, and nothing was
//! done; *504*, it is not known whether it was done. After a 504, and after a connection that broke, a change may still
//! come about, later: send it again only if it may happen twice, or with `If-Match`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, body::Bytes};
use openraft::error::{CheckIsLeaderError, RaftError};
use openraft::{BasicNode, Config, Raft, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::{Instant, timeout_at};

use crate::network::{Network, decode, encode};
use crate::store::{self, State, Versioned};
use crate::{Change, NodeId, Reply, Request, Types};

/// What a node is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The number of the node.
    #[arg(long)]
    pub id: NodeId,
    /// Where to listen, for clients and other nodes.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The folder of its store.
    #[arg(long)]
    pub folder: PathBuf,
    /// Create the store: the node is new, and its number was never used before.
    #[arg(long)]
    pub new: bool,
    /// Milliseconds between two signs of life of a leader. A new one is elected after three to six of them.
    #[arg(long, default_value_t = 100)]
    pub heartbeat: u64,
    /// Make a snapshot after this many entries of the log, and forget most of them.
    #[arg(long, default_value_t = 5000)]
    pub snapshot_every: u64,
    /// End when the standard input ends.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// How a node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its number.
    pub id: NodeId,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// The term that it knows.
    pub term: u64,
    /// The index of the last entry of its log.
    pub log: Option<u64>,
    /// The index of the last entry that it has applied.
    pub applied: Option<u64>,
    /// The index up to which its snapshot reaches.
    pub snapshot: Option<u64>,
    /// Who votes, with addresses.
    pub voters: BTreeMap<NodeId, String>,
}

/// Longer keys are refused: what the store refuses must not get into the log.
const MAX_KEY: usize = 1024;
/// Longer values are refused.
const MAX_VALUE: usize = 1 << 20;
/// Requests are put into one entry of the log until it has this many bytes.
const ENTRY_LIMIT: usize = 1 << 20;
/// How long a request may wait for a change.
const MAX_WAIT: f64 = 60.0;

/// Why a request was not answered.
#[derive(Clone)]
enum Refusal {
    /// Another node leads, at this address if it is known. Nothing was done.
    NotLeader(Option<String>),
    /// It may have been done, or may still be.
    Unknown,
    /// The store of this node has failed.
    Failed(String),
}

type Answer<T> = Result<T, Refusal>;

/// A request on its way into the log.
struct Proposal {
    request: Request,
    answer: oneshot::Sender<Answer<Reply>>,
}

struct Node {
    id: NodeId,
    raft: Raft<Types>,
    state: State,
    proposals: mpsc::Sender<Proposal>,
}

/// Runs a node until its storage fails.
///
/// There is no orderly end: killing it is as good.
///
/// # Errors
/// It cannot start, or its storage has failed.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let Settings { id, folder, new, heartbeat, snapshot_every, .. } = settings;
    if settings.with_parent {
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
    }
    if new {
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let options = slotlog::Store::options().background_maintenance(true);
    let (log, state) = task::spawn_blocking(move || store::open(&folder, id, new, options)).await??;
    let config = Config {
        heartbeat_interval: heartbeat,
        election_timeout_min: 3 * heartbeat,
        election_timeout_max: 6 * heartbeat,
        // A large one takes its time to be installed.
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: snapshot_every / 4,
        replication_lag_threshold: 2 * snapshot_every,
        ..Config::default()
    };
    let listener = TcpListener::bind(settings.listen).await.with_context(|| settings.listen.to_string())?;
    let raft = Raft::new(id, Arc::new(config.validate()?), Network::new()?, log, state.clone()).await?;
    let (proposals, queue) = mpsc::channel(1024);
    let node = Arc::new(Node { id, raft: raft.clone(), state, proposals });
    tokio::spawn(Arc::clone(&node).propose_all(queue));
    say(&format!("node {id} listens on {}", listener.local_addr()?));
    let mut metrics = raft.metrics();
    tokio::select! {
        served = async { axum::serve(listener, router(node)).await } => served?,
        stopped = metrics.wait_for(|metrics| metrics.running_state.is_err()) => {
            stopped?.running_state.clone().with_context(|| format!("node {id} stops"))?;
        }
    }
    Ok(())
}

/// Prints a line at once, also into a pipe.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn router(node: Arc<Node>) -> Router {
    // What other nodes send may be large, and was allowed in when it came from a client.
    let raft = Router::new()
        .route("/raft/{id}/append", post(append))
        .route("/raft/{id}/vote", post(vote))
        .route("/raft/{id}/snapshot", post(snapshot))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/kv/{*key}", get(read).put(put).delete(delete))
        .route("/cluster", get(status).post(init).put(members))
        .layer(DefaultBodyLimit::max(MAX_VALUE))
        .merge(raft)
        .with_state(node)
}

impl Node {
    /// Puts requests into the log. Those that come in while one entry is on its way go into the next one together, so
    /// that many clients share the flushes and messages of one entry.
    async fn propose_all(self: Arc<Node>, mut queue: mpsc::Receiver<Proposal>) {
        while let Some(first) = queue.recv().await {
            let mut bytes = first.request.size();
            let (mut requests, mut answers) = (vec![first.request], vec![first.answer]);
            while bytes < ENTRY_LIMIT
                && let Ok(next) = queue.try_recv()
            {
                bytes += next.request.size();
                requests.push(next.request);
                answers.push(next.answer);
            }
            match self.propose(requests).await {
                Ok(replies) => {
                    for (answer, reply) in answers.into_iter().zip(replies) {
                        // The client may be gone.
                        let _ = answer.send(Ok(reply));
                    }
                }
                Err(refusal) => {
                    for answer in answers {
                        let _ = answer.send(Err(refusal.clone()));
                    }
                }
            }
        }
    }

    async fn propose(&self, requests: Vec<Request>) -> Answer<Vec<Reply>> {
        let term = self.leads()?;
        let mut metrics = self.raft.metrics();
        let written = tokio::select! {
            written = self.raft.client_write(requests) => written.ok(),
            // The engine does not answer if a snapshot takes the place of the entry.
            _ = metrics.wait_for(|now| now.current_term != term || now.state != ServerState::Leader) => None,
        };
        // Neither an error nor another leader says that the entry is not there: this node may lead again with it, and
        // when it is removed from this log, a third node may still have it, and lead later.
        written.map(|written| written.data).ok_or(Refusal::Unknown)
    }

    /// The term in which this node leads.
    fn leads(&self) -> Answer<u64> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        if now.state == ServerState::Leader {
            return Ok(now.current_term);
        }
        let leader = now.current_leader.filter(|&leader| leader != self.id);
        let node = leader.and_then(|leader| now.membership_config.membership().get_node(&leader));
        Err(Refusal::NotLeader(node.map(|node| node.addr.clone())))
    }

    async fn change(&self, request: Request) -> Answer<Reply> {
        self.leads()?;
        let (answer, answered) = oneshot::channel();
        // The queue outlives all requests.
        let _ = self.proposals.send(Proposal { request, answer }).await;
        answered.await.unwrap_or(Err(Refusal::Unknown))
    }

    /// The value of a key now: a majority confirms that this node still leads, and it waits until it has applied what
    /// was committed before.
    async fn read(&self, key: &str) -> Answer<Option<Versioned>> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => self.state.get(key).map_err(|error| Refusal::Failed(error.report())),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                Err(Refusal::NotLeader(to.leader_node.map(|node| node.addr)))
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(Refusal::NotLeader(None)),
            // The engine has stopped, and in a moment this node does, and says why. The others go on.
            Err(RaftError::Fatal(_)) => Err(Refusal::NotLeader(None)),
        }
    }

    /// The value of a key as soon as its version is another one, or at the deadline.
    async fn read_unlike(&self, key: &str, version: u64, deadline: Instant) -> Answer<Option<Versioned>> {
        let mut changes = self.state.watch();
        let found = self.read(key).await?;
        if version_of(found.as_ref()) != version {
            return Ok(found);
        }
        // What this node has applied is committed, and needs no confirmation.
        while timeout_at(deadline, changes.changed()).await.is_ok() {
            let found = self.state.get(key).map_err(|error| Refusal::Failed(error.report()))?;
            if version_of(found.as_ref()) != version {
                return Ok(found);
            }
        }
        // That nothing has changed needs one.
        self.read(key).await
    }

    async fn set_members(&self, members: BTreeMap<NodeId, String>) -> Answer<()> {
        self.leads()?;
        let known = self.raft.metrics().borrow().membership_config.membership().clone();
        for (&id, address) in members.iter().filter(|(id, _)| known.get_node(id).is_none()) {
            let added = self.raft.add_learner(id, BasicNode::new(address), true).await;
            added.map_err(|_| Refusal::Unknown)?;
        }
        let voters: BTreeSet<NodeId> = members.into_keys().collect();
        let changed = self.raft.change_membership(voters, false).await;
        changed.map(drop).map_err(|_| Refusal::Unknown)
    }
}

fn version_of(found: Option<&Versioned>) -> u64 {
    found.map_or(0, |(version, _)| *version)
}

/// An answer to a client: of the leader, or where that is.
fn respond(uri: &Uri, answer: Answer<Response>) -> Response {
    match answer {
        Ok(response) => response,
        Err(Refusal::NotLeader(Some(address))) => {
            let place = format!("http://{address}{uri}");
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response()
        }
        Err(Refusal::NotLeader(None)) => (StatusCode::SERVICE_UNAVAILABLE, "there is no leader\n").into_response(),
        Err(Refusal::Unknown) => {
            (StatusCode::GATEWAY_TIMEOUT, "it is not known whether this was done\n").into_response()
        }
        Err(Refusal::Failed(why)) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
    }
}

fn etag(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

#[derive(Deserialize)]
struct Watch {
    unlike: Option<u64>,
    #[serde(default)]
    wait: f64,
}

async fn read(
    Shared(node): Shared<Arc<Node>>,
    Path(key): Path<String>,
    Query(watch): Query<Watch>,
    uri: Uri,
) -> Response {
    let found = match watch.unlike {
        None => node.read(&key).await,
        Some(version) => {
            let wait = Duration::from_secs_f64(watch.wait.clamp(0.0, MAX_WAIT));
            node.read_unlike(&key, version, Instant::now() + wait).await
        }
    };
    let response = found.map(|found| match found {
        found if watch.unlike == Some(version_of(found.as_ref())) => StatusCode::NOT_MODIFIED.into_response(),
        Some((version, value)) => (etag(version), value).into_response(),
        None => (StatusCode::NOT_FOUND, etag(0)).into_response(),
    });
    respond(&uri, response)
}

async fn put(
    Shared(node): Shared<Arc<Node>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    value: Bytes,
) -> Response {
    change(&node, key, &headers, &uri, Change::Put(value.into())).await
}

async fn delete(Shared(node): Shared<Arc<Node>>, Path(key): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    change(&node, key, &headers, &uri, Change::Delete).await
}

async fn change(node: &Node, key: String, headers: &HeaderMap, uri: &Uri, change: Change) -> Response {
    if key.len() > MAX_KEY {
        return (StatusCode::URI_TOO_LONG, "the key is too long\n").into_response();
    }
    let expected =
        match headers.get(header::IF_MATCH).map(|value| value.to_str().unwrap_or("").trim_matches('"').parse()) {
            None => None,
            Some(Ok(version)) => Some(version),
            Some(Err(_)) => return (StatusCode::BAD_REQUEST, "If-Match must be a version\n").into_response(),
        };
    let deletes = matches!(change, Change::Delete);
    let reply = node.change(Request { key, expected, change }).await;
    let response = reply.map(|reply| match reply {
        Reply { done: false, now, .. } => (StatusCode::PRECONDITION_FAILED, etag(now)).into_response(),
        Reply { before: 0, now, .. } if deletes => (StatusCode::NOT_FOUND, etag(now)).into_response(),
        Reply { now, .. } => (StatusCode::NO_CONTENT, etag(now)).into_response(),
    });
    respond(uri, response)
}

async fn status(Shared(node): Shared<Arc<Node>>) -> Json<Status> {
    let metrics = node.raft.metrics();
    let now = metrics.borrow();
    let members = now.membership_config.membership();
    let address = |id| members.get_node(&id).map_or(String::new(), |node| node.addr.clone());
    Json(Status {
        id: node.id,
        leader: now.current_leader,
        term: now.current_term,
        log: now.last_log_index,
        applied: now.last_applied.map(|last| last.index),
        snapshot: now.snapshot.map(|last| last.index),
        voters: members.voter_ids().map(|id| (id, address(id))).collect(),
    })
}

async fn init(Shared(node): Shared<Arc<Node>>, Json(members): Json<BTreeMap<NodeId, String>>) -> Response {
    let members: BTreeMap<_, _> = members.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
    match node.raft.initialize(members).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}

async fn members(Shared(node): Shared<Arc<Node>>, uri: Uri, Json(members): Json<BTreeMap<NodeId, String>>) -> Response {
    let changed = node.set_members(members).await;
    respond(&uri, changed.map(|()| StatusCode::NO_CONTENT.into_response()))
}

type Raw = Result<Vec<u8>, StatusCode>;

/// A message is for this node, and not for one that had its address before.
fn check(node: &Node, id: NodeId) -> Result<(), StatusCode> {
    if id == node.id { Ok(()) } else { Err(StatusCode::NOT_FOUND) }
}

async fn append(Shared(node): Shared<Arc<Node>>, Path(id): Path<NodeId>, body: Bytes) -> Raw {
    check(&node, id)?;
    encode(&node.raft.append_entries(decode(&body)?).await)
}

async fn vote(Shared(node): Shared<Arc<Node>>, Path(id): Path<NodeId>, body: Bytes) -> Raw {
    check(&node, id)?;
    encode(&node.raft.vote(decode(&body)?).await)
}

async fn snapshot(Shared(node): Shared<Arc<Node>>, Path(id): Path<NodeId>, body: Bytes) -> Raw {
    check(&node, id)?;
    encode(&node.raft.install_snapshot(decode(&body)?).await)
}
