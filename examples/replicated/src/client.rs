//! A client that follows the leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::header::{ETAG, IF_MATCH, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::time::sleep;

use crate::NodeId;
use crate::node::Status;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may have been done, or may still be: see [`crate::node`].
    #[error("it is not known whether this was done; read what is there before you try again")]
    Unknown,
    /// Nothing was done.
    #[error("no node answers as the leader; nothing was done")]
    NoLeader,
    /// It was refused.
    #[error("refused: {0}")]
    Refused(String),
}

/// A value and its version; version 0 means that there is none.
pub type Found = (u64, Option<Vec<u8>>);

/// The version after a change; or the one that it met, which was not the expected one.
pub type Changed = std::result::Result<u64, u64>;

type Result<T> = std::result::Result<T, Error>;

/// How long a node may take for an answer, before another one is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before the next node is asked.
const PAUSE: Duration = Duration::from_millis(25);

/// A client of a cluster.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    nodes: Vec<String>,
    /// Where the leader was.
    leader: String,
    /// How long to look for a leader.
    deadline: Duration,
}

impl Client {
    /// A client that knows some of the nodes by their addresses, one at least.
    ///
    /// # Errors
    /// There is no address, or the system has no resources for it.
    pub fn new(nodes: Vec<String>) -> Result<Client> {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| Error::Refused(error.to_string()))?;
        let leader = nodes.first().cloned().ok_or_else(|| Error::Refused("no address was given".into()))?;
        Ok(Client { http, nodes, leader, deadline: Duration::from_secs(10) })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::NoLeader`].
    pub async fn get(&mut self, key: &str) -> Result<Found> {
        let path = path(key);
        let response = self.send(Method::GET, &path, PATIENCE, |request| request).await?;
        found(response).await
    }

    /// The value of a key as soon as its version is not `version`; after `wait`, `None`.
    ///
    /// # Errors
    /// [`Error::NoLeader`].
    pub async fn watch(&mut self, key: &str, version: u64, wait: Duration) -> Result<Option<Found>> {
        let path = format!("{}?unlike={version}&wait={}", path(key), wait.as_secs_f64());
        let response = self.send(Method::GET, &path, wait + PATIENCE, |request| request).await?;
        if response.status() == StatusCode::NOT_MODIFIED { Ok(None) } else { found(response).await.map(Some) }
    }

    /// Sets the value of a key, if its version is the expected one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(&mut self, key: &str, value: impl Into<Vec<u8>>, expected: Option<u64>) -> Result<Changed> {
        let value = value.into();
        self.change(Method::PUT, key, expected, |request| request.body(value.clone())).await
    }

    /// Removes a key, if its version is the expected one. Without one it does not matter whether it is there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&mut self, key: &str, expected: Option<u64>) -> Result<Changed> {
        self.change(Method::DELETE, key, expected, |request| request).await
    }

    async fn change(
        &mut self,
        method: Method,
        key: &str,
        expected: Option<u64>,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Changed> {
        let build = |request| match expected {
            Some(version) => build(request).header(IF_MATCH, format!("\"{version}\"")),
            None => build(request),
        };
        let response = self.send(method, &path(key), PATIENCE, build).await?;
        let version = version(&response);
        Ok(if response.status() == StatusCode::PRECONDITION_FAILED { Err(version) } else { Ok(version) })
    }

    /// Begins a new cluster; the first node that the client knows does it.
    ///
    /// # Errors
    /// [`Error::Refused`] if that node is a member of one.
    pub async fn init(&mut self, members: &BTreeMap<NodeId, String>) -> Result<()> {
        self.send(Method::POST, "cluster", PATIENCE, |request| request.json(members)).await.map(drop)
    }

    /// Sets the members of the cluster.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_members(&mut self, members: &BTreeMap<NodeId, String>) -> Result<()> {
        let patience = Duration::from_secs(60);
        self.send(Method::PUT, "cluster", patience, |request| request.json(members)).await.map(drop)
    }

    /// How a node is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, address: &str) -> Result<Status> {
        let sent = self.http.get(format!("http://{address}/cluster")).timeout(PATIENCE).send().await;
        let response = sent.map_err(|_| Error::NoLeader)?;
        response.json().await.map_err(|error| Error::Refused(error.to_string()))
    }

    /// Sends a request to the leader, wherever that is.
    ///
    /// What was not received is sent again, and so is what only reads. A change that may have been received is not:
    /// it could be done twice.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        patience: Duration,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let end = Instant::now() + self.deadline;
        for turn in 0.. {
            let request = self.http.request(method.clone(), format!("http://{}/{path}", self.leader));
            let sent = build(request).timeout(patience).send().await;
            match sent {
                Ok(response) => match response.status() {
                    StatusCode::TEMPORARY_REDIRECT => {
                        self.leader = place(&response).unwrap_or_default();
                        if turn == 0 {
                            continue;
                        }
                        // It may not know yet that this one leads no longer, so it is asked again, but not too often.
                        sleep(PAUSE).await;
                        if Instant::now() < end {
                            continue;
                        }
                    }
                    StatusCode::SERVICE_UNAVAILABLE => {}
                    StatusCode::GATEWAY_TIMEOUT => return Err(Error::Unknown),
                    status if status.is_success() || is_answer(status) => return Ok(response),
                    status => {
                        let why = response.text().await.unwrap_or_default();
                        return Err(Error::Refused(format!("{status}: {}", why.trim())));
                    }
                },
                Err(error) if error.is_connect() || method == Method::GET => {}
                Err(_) => return Err(Error::Unknown),
            }
            if Instant::now() >= end {
                break;
            }
            self.leader.clone_from(&self.nodes[turn % self.nodes.len()]);
            sleep(PAUSE).await;
        }
        Err(Error::NoLeader)
    }
}

fn is_answer(status: StatusCode) -> bool {
    [StatusCode::NOT_FOUND, StatusCode::NOT_MODIFIED, StatusCode::PRECONDITION_FAILED].contains(&status)
}

/// The path of a key, with whatever characters it has.
fn path(key: &str) -> String {
    let mut url = Url::parse("http://any/kv").expect("it is one");
    url.path_segments_mut().expect("it has a path").extend(key.split('/'));
    url.path()[1..].to_owned()
}

fn place(redirect: &Response) -> Option<String> {
    let url = Url::parse(redirect.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

fn version(response: &Response) -> u64 {
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    etag.and_then(|etag| etag.trim_matches('"').parse().ok()).unwrap_or(0)
}

async fn found(response: Response) -> Result<Found> {
    let version = version(&response);
    if response.status() == StatusCode::NOT_FOUND {
        return Ok((0, None));
    }
    match response.bytes().await {
        Ok(value) => Ok((version, Some(value.into()))),
        Err(_) => Err(Error::NoLeader),
    }
}
