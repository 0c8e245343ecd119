//! How the engine of one node talks to that of another: a POST, with request and answer in postcard.

use std::time::Duration;

use axum::http::StatusCode;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode};
use reqwest::Client;
use serde::{Serialize, de::DeserializeOwned};

use crate::{NodeId, Types};

type Failure<E = openraft::error::Infallible> = RPCError<NodeId, BasicNode, RaftError<NodeId, E>>;

/// How long to leave a node alone that could not be reached.
const BACKOFF: Duration = Duration::from_millis(100);

/// Makes connections to other nodes.
pub struct Network {
    http: Client,
}

/// Another node.
pub struct Peer {
    http: Client,
    id: NodeId,
    address: String,
}

impl Network {
    /// # Errors
    /// The system has no resources for it.
    pub fn new() -> reqwest::Result<Network> {
        Ok(Network { http: Client::builder().no_proxy().build()? })
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, id: NodeId, node: &BasicNode) -> Peer {
        Peer { http: self.http.clone(), id, address: node.addr.clone() }
    }
}

impl Peer {
    async fn call<Q, A, E>(&self, what: &str, request: &Q, option: RPCOption) -> Result<A, Failure<E>>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let unreachable = |error: AnyError| RPCError::Unreachable(Unreachable::new(&error));
        // Another node may have the address by now, so the path names the one that is meant.
        let url = format!("http://{}/raft/{}/{what}", self.address, self.id);
        let body = postcard::to_stdvec(request).map_err(|error| unreachable(AnyError::new(&error)))?;
        let sent = self.http.post(url).timeout(option.hard_ttl()).body(body).send().await;
        let answer = sent.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| unreachable(AnyError::new(&error)))?;
        let bytes = answer.bytes().await.map_err(|error| unreachable(AnyError::new(&error)))?;
        let outcome: Result<A, RaftError<NodeId, E>> =
            postcard::from_bytes(&bytes).map_err(|error| unreachable(AnyError::new(&error)))?;
        outcome.map_err(|error| RPCError::RemoteError(RemoteError::new(self.id, error)))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure> {
        self.call("append", &request, option).await
    }

    async fn vote(&mut self, request: VoteRequest<NodeId>, option: RPCOption) -> Result<VoteResponse<NodeId>, Failure> {
        self.call("vote", &request, option).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failure<InstallSnapshotError>> {
        self.call("snapshot", &request, option).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// A request of another node.
///
/// # Errors
/// It is none.
pub fn decode<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, StatusCode> {
    postcard::from_bytes(body).map_err(|_| StatusCode::BAD_REQUEST)
}

/// The answer to it.
///
/// # Errors
/// It cannot be encoded.
pub fn encode<A: Serialize>(answer: &A) -> Result<Vec<u8>, StatusCode> {
    postcard::to_stdvec(answer).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
