//! Where a node finds others that have moved, over loopback: each life of a node is at a port of its
//! own.

use super::CLUSTER;
use crate::cluster::{Authority, Validity};
use crate::codec;
use crate::env::{Env, real, sim};
use crate::error::{Code, Result};
use crate::net::{ClientTls, Endpoint, Incoming, Peer, ServerParts, ServerTls, Service};
use crate::node::peers::Peers;
use crate::proto::{Life, NodeAddress, PeerAnswer, PeerCall};
use crate::types::{Credentials, NodeId, Subject};
use futures::future::BoxFuture;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;

const ASKER: NodeId = NodeId(1);
const MOVED: NodeId = NodeId(2);
const WAIT: Duration = Duration::from_secs(10);

/// Both nodes' certificates.
struct Papers([Credentials; 2]);

impl Papers {
    fn new(env: &Env) -> Papers {
        let rng = sim::SeededRng::new(5);
        let validity = Validity::days(env.clock.wall(), 30);
        let authority = Authority::create(&rng, CLUSTER, validity).unwrap();
        let issue = |node: NodeId| {
            let subject = Subject::Node(node);
            authority
                .issue(&rng, &subject, node.0, validity, &[])
                .unwrap()
        };
        Papers([issue(ASKER), issue(MOVED)])
    }
}

/// One life of a node, that answers every question with the number of its start.
struct Lived {
    peers: Arc<Peers>,
    endpoint: Endpoint,
    at: NodeAddress,
}

struct Answers(OnceLock<Arc<Peers>>);

struct Shared(Arc<Answers>);

impl Service for Shared {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let answers = self.0.clone();
        Box::pin(async move {
            // A connection that is closed meanwhile is what the tests are about.
            let _ = answer(answers.0.wait(), incoming).await;
        })
    }
}

async fn answer(peers: &Peers, incoming: Incoming) -> Result<()> {
    let from = match incoming.peer {
        Peer::Node { id, .. } => id,
        other => panic!("{other:?} on the protocol of nodes"),
    };
    let mut stream = incoming.stream;
    let Some(frame) = stream.recv_frame().await? else {
        return Ok(());
    };
    let answer = match codec::decode(&frame)? {
        PeerCall::Meet { life, address } => peers.met_by(from, life, &address),
        _ => PeerAnswer::Held(vec![Some(peers.life().start)]),
    };
    stream.send_frame(&codec::encode(&answer)).await?;
    stream.finish()
}

impl Lived {
    async fn new(env: &Env, papers: &Papers, node: NodeId, start: u64) -> Lived {
        Lived::with(env, papers, node, Life { start, nonce: 7 }).await
    }

    async fn with(env: &Env, papers: &Papers, node: NodeId, life: Life) -> Lived {
        let credentials = match node {
            ASKER => &papers.0[0],
            _ => &papers.0[1],
        };
        let answers = Arc::new(Answers(OnceLock::new()));
        let tls = ServerTls::new(credentials).unwrap();
        let parts = ServerParts::new(tls, Arc::new(Shared(answers.clone())));
        let listen = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::bind(env, listen, Some(parts)).await.unwrap();
        let address = endpoint.local_addr().to_string();
        let peers = Peers::new(
            env.clone(),
            node,
            life,
            address.clone(),
            ClientTls::new(credentials).unwrap(),
            Arc::new(|error| panic!("{error}")),
        );
        peers.set_endpoint(endpoint.clone());
        assert!(answers.0.set(peers.clone()).is_ok());
        Lived {
            peers,
            endpoint,
            at: NodeAddress { node, address },
        }
    }

    /// The view of the cluster says that this is the life of its node.
    fn is_in_view_of(&self, other: &Lived) {
        other.peers.registered(self.at.node, self.peers.life());
        other.peers.set_addresses(std::slice::from_ref(&self.at));
    }

    /// Which life of a node answers this one; `None`: none does.
    async fn ask(&self, node: NodeId) -> Option<u64> {
        match self.peers.call(node, &PeerCall::Gc, WAIT).await {
            Ok(PeerAnswer::Held(start)) => start[0],
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.code, Code::Unavailable, "{error}");
                None
            }
        }
    }

    /// Nobody answers at its place any more.
    async fn goes(self) {
        self.endpoint.close(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn while_the_root_group_is_silent_a_node_is_found_where_it_says_that_it_is() {
    let env = real::env(Handle::current());
    let papers = Papers::new(&env);
    let asker = Lived::new(&env, &papers, ASKER, 1).await;
    let first = Lived::new(&env, &papers, MOVED, 1).await;
    first.is_in_view_of(&asker);
    assert_eq!(asker.ask(MOVED).await, Some(1));
    first.goes().await;
    let second = Lived::new(&env, &papers, MOVED, 2).await;
    asker.is_in_view_of(&second);
    assert_eq!(second.ask(ASKER).await, Some(1));
    // The root group would say if it were so.
    assert_eq!(asker.ask(MOVED).await, None);
    asker.peers.set_lost(true);
    until_answered(&asker, 2).await;
    // It has moved again, and an operator says where that is.
    second.goes().await;
    let third = Lived::new(&env, &papers, MOVED, 3).await;
    assert_eq!(asker.peers.look_at(&third.at.address).await.unwrap(), MOVED);
    until_answered(&asker, 3).await;
}

#[tokio::test]
async fn a_copy_is_not_asked_where_the_other_one_was_first() {
    let env = real::env(Handle::current());
    let papers = Papers::new(&env);
    let asker = Lived::new(&env, &papers, ASKER, 1).await;
    let first = Lived::new(&env, &papers, MOVED, 1).await;
    first.is_in_view_of(&asker);
    first.goes().await;
    asker.peers.set_lost(true);
    let life = |nonce| Life { start: 2, nonce };
    let one = Lived::with(&env, &papers, MOVED, life(8)).await;
    let other = Lived::with(&env, &papers, MOVED, life(9)).await;
    for lived in [&one, &other] {
        asker.is_in_view_of(lived);
        assert_eq!(lived.ask(ASKER).await, Some(1));
    }
    one.goes().await;
    assert_eq!(asker.ask(MOVED).await, None);
    // Unless it is the one that is registered.
    asker.peers.registered(MOVED, life(9));
    asker.peers.look_at(&other.at.address).await.unwrap();
    until_answered(&asker, 2).await;
}

#[tokio::test]
async fn of_a_node_that_is_in_no_view_nothing_is_noted() {
    let env = real::env(Handle::current());
    let papers = Papers::new(&env);
    let asker = Lived::new(&env, &papers, ASKER, 1).await;
    let removed = Lived::new(&env, &papers, MOVED, 2).await;
    asker.is_in_view_of(&removed);
    asker.peers.set_lost(true);
    assert_eq!(removed.ask(ASKER).await, Some(1));
    assert_eq!(asker.ask(MOVED).await, None);
}

/// After a failed attempt nobody dials again for a moment.
async fn until_answered(asker: &Lived, start: u64) {
    let answered = async {
        while asker.ask(MOVED).await != Some(start) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(WAIT, answered).await.is_ok());
}
