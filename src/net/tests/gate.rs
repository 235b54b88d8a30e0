//! Who was removed is refused with the reason, and put out while connected; a node that renews
//! its certificate serves on.

use super::support::{Ca, SERIAL, WAIT, client, connect, gated, node_peer, pair, server};
use crate::error::Code;
use crate::net::settings::USERS_MAX;
use crate::net::{ALPN_CLIENT, ALPN_JOIN, ALPN_NODE, ClientTls, Gate, Peer, Refusal, ServerTls};
use crate::types::NodeId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Says of everyone it refuses what the test put here.
#[derive(Default)]
struct List {
    refused: Mutex<Vec<(Peer, Refusal)>>,
    /// How often it was asked.
    asked: AtomicUsize,
}

impl List {
    fn refuse(&self, peer: Peer, refusal: Refusal) {
        self.refused.lock().push((peer, refusal));
    }
}

impl Gate for List {
    fn admits(&self, peer: &Peer) -> Result<(), Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let list = self.refused.lock();
        match list.iter().find(|(refused, _)| refused == peer) {
            Some((_, refusal)) => Err(refusal.clone()),
            None => Ok(()),
        }
    }
}

fn denied(why: &str) -> Refusal {
    Refusal::Denied(why.into())
}

fn alice() -> Peer {
    Peer::User {
        name: "alice".into(),
        group: "staff".into(),
        admin: false,
        serial: SERIAL,
    }
}

#[tokio::test]
async fn a_refused_peer_is_told_why() {
    let (ca, list) = (Ca::new(1), Arc::new(List::default()));
    list.refuse(node_peer(4), denied("node 4 was removed from the cluster"));
    list.refuse(alice(), Refusal::NotNow("cut off from the cluster".into()));
    list.refuse(Peer::Nobody, denied(&"x".repeat(10_000)));
    let server = gated(&ca.node(1), list).await;
    let removed = ClientTls::new(&ca.node(4)).unwrap();
    for alpn in [ALPN_NODE, ALPN_CLIENT] {
        let error = connect(&server, alpn, &removed).await.unwrap_err();
        assert_eq!(error.code, Code::Denied);
        let why = "refused this identity (node 4 was removed from the cluster)";
        assert!(error.message.ends_with(why), "{error}");
    }
    let user = ClientTls::new(&ca.user()).unwrap();
    let error = connect(&server, ALPN_CLIENT, &user).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(
        error.message.contains("cut off from the cluster"),
        "{error}"
    );
    let nobody = ClientTls::without_identity(ca.der()).unwrap();
    let error = connect(&server, ALPN_JOIN, &nobody).await.unwrap_err();
    assert_eq!(error.code, Code::Denied);
    assert!(error.message.contains(&"x".repeat(200)), "{error}");
    assert!(!error.message.contains(&"x".repeat(300)), "{error}");
    // Another node is as welcome as before, and one of the same id with a new certificate.
    let renewed = ca.renewed(4, SERIAL + 1);
    for credentials in [ca.node(2), renewed] {
        let tls = ClientTls::new(&credentials).unwrap();
        connect(&server, ALPN_NODE, &tls).await.unwrap();
    }
}

#[tokio::test]
async fn an_open_connection_of_a_removed_peer_is_closed_by_the_next_check() {
    let (ca, list) = (Ca::new(1), Arc::new(List::default()));
    let server = gated(&ca.node(1), list.clone()).await;
    let user = ClientTls::new(&ca.user()).unwrap();
    let node = ClientTls::new(&ca.node(2)).unwrap();
    let removed = connect(&server, ALPN_CLIENT, &user).await.unwrap();
    let other = connect(&server, ALPN_NODE, &node).await.unwrap();
    assert_eq!(server.recheck(), 0);
    removed.call(b"x", WAIT).await.unwrap();

    list.refuse(alice(), denied("the certificate of alice was revoked"));
    let waiting = removed.clone();
    let call = async move { waiting.call(b"never", WAIT).await.unwrap_err() };
    let check = async {
        // In the middle of a request.
        removed.call(b"x", WAIT).await.unwrap();
        server.recheck()
    };
    let started = tokio::time::Instant::now();
    let (error, closed) = tokio::join!(call, check);
    assert_eq!(closed, 1);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!((error.code, error.may_have_happened), (Code::Denied, true));
    assert!(error.message.contains("of alice was revoked"), "{error}");
    let error = removed.closed().await;
    assert!(error.message.contains("of alice was revoked"), "{error}");
    let error = connect(&server, ALPN_CLIENT, &user).await.unwrap_err();
    assert_eq!(error.code, Code::Denied);
    // Others do not notice.
    other.call(b"x", WAIT).await.unwrap();
}

#[tokio::test]
async fn a_node_that_takes_nobody_new_lets_those_who_are_there_finish() {
    let (ca, list) = (Ca::new(1), Arc::new(List::default()));
    let server = gated(&ca.node(1), list.clone()).await;
    let user = ClientTls::new(&ca.user()).unwrap();
    let open = connect(&server, ALPN_CLIENT, &user).await.unwrap();
    list.refuse(alice(), Refusal::NotNow("cut off from the cluster".into()));
    assert_eq!(server.recheck(), 0);
    open.call(b"x", WAIT).await.unwrap();
    let error = connect(&server, ALPN_CLIENT, &user).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
}

#[tokio::test]
async fn connections_that_ended_are_not_asked_about() {
    let (ca, list) = (Ca::new(1), Arc::new(List::default()));
    let server = gated(&ca.node(1), list.clone()).await;
    let user = ClientTls::new(&ca.user()).unwrap();
    let gone = connect(&server, ALPN_CLIENT, &user).await.unwrap();
    gone.call(b"x", WAIT).await.unwrap();
    gone.close();
    drop(gone);
    let forgotten = async {
        loop {
            list.asked.store(0, Ordering::Relaxed);
            server.recheck();
            if list.asked.load(Ordering::Relaxed) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, forgotten).await.unwrap();
}

#[tokio::test]
async fn renewed_credentials_serve_new_connections_and_keep_the_old_ones() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let user = ClientTls::new(&ca.user()).unwrap();
    let old = connect(&server, ALPN_CLIENT, &user).await.unwrap();
    assert_eq!(old.peer(), node_peer(1));
    let renewed = ServerTls::new(&ca.renewed(1, 78)).unwrap();
    server.renew(&renewed).unwrap();
    let new = connect(&server, ALPN_CLIENT, &user).await.unwrap();
    let expected = Peer::Node {
        id: NodeId(1),
        serial: 78,
    };
    assert_eq!(new.peer(), expected);
    for connection in [&old, &new] {
        connection.call(b"x", WAIT).await.unwrap();
    }
    assert_eq!(old.peer(), node_peer(1));
}

#[tokio::test]
async fn an_endpoint_that_does_not_serve_has_nothing_to_renew_or_check() {
    let (_, _, ca) = pair().await;
    let client = super::support::client().await;
    let tls = ServerTls::new(&ca.node(1)).unwrap();
    assert_eq!(client.renew(&tls).unwrap_err().code, Code::Failed);
    assert_eq!(client.recheck(), 0);
}

/// Users hold all places there are for them: nodes are let in all the same, and a user again when
/// another leaves.
#[tokio::test]
async fn users_never_take_the_places_of_nodes() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let (endpoint, to) = (client().await, server.local_addr());
    let user = ClientTls::new(&ca.user()).unwrap();
    let mut open = Vec::new();
    for _ in 0..USERS_MAX {
        let connected = endpoint.connect(to, ALPN_CLIENT, &user, WAIT).await;
        open.push(connected.unwrap());
    }
    let error = endpoint.connect(to, ALPN_CLIENT, &user, WAIT).await;
    let error = error.err().unwrap();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    assert!(error.message.contains("too many connections"), "{error}");
    let node = ClientTls::new(&ca.node(2)).unwrap();
    for _ in 0..8 {
        open.push(endpoint.connect(to, ALPN_NODE, &node, WAIT).await.unwrap());
    }
    open.remove(0).close();
    let again = async {
        while endpoint
            .connect(to, ALPN_CLIENT, &user, WAIT)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, again).await.unwrap();
}
