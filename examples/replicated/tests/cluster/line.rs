//! A line to a node, which can be cut.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// An address whose connections are carried on to a node.
pub struct Line {
    address: String,
    node: String,
    state: State,
}

enum State {
    Whole {
        cut: oneshot::Sender<()>,
        carrier: JoinHandle<TcpListener>,
    },
    Cut(std::net::TcpListener),
    /// From the one to the other.
    Between,
}

impl Line {
    pub fn to(node: &str) -> Line {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut line = Line { address, node: node.to_owned(), state: State::Cut(listener) };
        line.mend();
        line
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends all connections. Whoever makes a new one waits for an answer in vain, also when the line is whole again.
    pub async fn cut(&mut self) {
        if let State::Whole { cut, carrier } = std::mem::replace(&mut self.state, State::Between) {
            cut.send(()).unwrap();
            self.state = State::Cut(carrier.await.unwrap().into_std().unwrap());
        }
    }

    pub fn mend(&mut self) {
        if let State::Cut(listener) = std::mem::replace(&mut self.state, State::Between) {
            while listener.accept().is_ok() {}
            let listener = TcpListener::from_std(listener).unwrap();
            let (cut, is_cut) = oneshot::channel();
            self.state = State::Whole { cut, carrier: tokio::spawn(carry(listener, self.node.clone(), is_cut)) };
        }
    }
}

/// Carries connections until the line is cut; when this ends, nothing is on its way any more.
async fn carry(listener: TcpListener, node: String, mut is_cut: oneshot::Receiver<()>) -> TcpListener {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (mut from, _) = accepted.unwrap();
                let node = node.clone();
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(node).await {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
            _ = &mut is_cut => {
                connections.shutdown().await;
                return listener;
            }
        }
    }
}
