//! One who has nothing but a token: he finds the cluster by the pin of its CA, or nobody.

use super::support::{Ca, VALID, WAIT, client, connect, node_peer, server, server_with};
use crate::error::{Code, Error};
use crate::net::{ALPN_CLIENT, ALPN_JOIN, ALPN_NODE, ClientTls, Connection, ServerTls};
use crate::types::{CaPin, ClusterId, Credentials};

fn pinned(ca: &Ca) -> ClientTls {
    ClientTls::pinned(CaPin::of(ca.der())).unwrap()
}

/// Joining a server with these credentials by the pin of `ca`.
async fn joining(ca: &Ca, server: &Credentials) -> Result<Connection, Error> {
    let tls = ServerTls::unchecked(server, ca.cluster()).unwrap();
    connect(&server_with(tls).await, ALPN_JOIN, &pinned(ca)).await
}

fn is_wrong_pin(error: &Error) {
    assert_eq!(error.code, Code::Denied, "{error}");
    let why = "wrong CA pin: this is not the cluster the token is for";
    assert!(error.message.contains(why), "{error}");
}

#[tokio::test]
async fn the_pin_finds_the_ca_and_nobody_else_is_shown_it() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let connection = connect(&server, ALPN_JOIN, &pinned(&ca)).await.unwrap();
    assert_eq!(connection.peer(), node_peer(1));
    let pin = CaPin::of(ca.der());
    assert_eq!(connection.pinned_ca(pin).unwrap(), ca.der());
    assert_eq!(connection.pinned_ca(CaPin([0; 16])), None);
    let answer = connection.call(b"who", WAIT).await.unwrap();
    assert_eq!(&answer[..], b"Nobody dfs-join/1");
    for (alpn, shown) in [(ALPN_CLIENT, false), (ALPN_NODE, false), (ALPN_JOIN, true)] {
        let tls = ClientTls::new(&ca.node(2)).unwrap();
        let connection = connect(&server, alpn, &tls).await.unwrap();
        assert_eq!(connection.pinned_ca(pin).is_some(), shown);
    }
}

#[tokio::test]
async fn another_cluster_is_not_the_one_of_the_token() {
    let (here, there) = (Ca::new(1), Ca::new(2));
    is_wrong_pin(&joining(&here, &there.node(1)).await.unwrap_err());
    // Nor is one of the same name with another CA.
    is_wrong_pin(&joining(&here, &Ca::new(1).node(1)).await.unwrap_err());
}

#[tokio::test]
async fn who_shows_the_right_ca_but_was_not_signed_by_it_is_not_trusted() {
    let ca = Ca::new(1);
    let mut forged = Ca::new(1).node(1);
    forged.ca = ca.der().to_vec();
    is_wrong_pin(&joining(&ca, &forged).await.unwrap_err());
    // What it signed, but is no node of this cluster.
    for odd in [
        ca.user(),
        ca.issue("node-1", VALID),
        ca.issue_for(ClusterId([2; 16]), "node:1"),
    ] {
        let error = joining(&ca, &odd).await.unwrap_err();
        assert_eq!(error.code, Code::Denied, "{error}");
    }
    let error = joining(&ca, &ca.issue("node:1", (-10, -1)))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Denied);
    assert!(error.message.contains("has expired"), "{error}");
}

#[tokio::test]
async fn a_certificate_with_the_pin_must_be_the_ca_and_not_the_servers_own() {
    let ca = Ca::new(1);
    let node = ca.node(1);
    let server = server(&node).await;
    let of_leaf = ClientTls::pinned(CaPin::of(&node.chain[0])).unwrap();
    let error = connect(&server, ALPN_JOIN, &of_leaf).await.unwrap_err();
    is_wrong_pin(&error);
}

#[tokio::test]
async fn a_pin_is_for_joining_only() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    for alpn in [ALPN_CLIENT, ALPN_NODE] {
        let error = connect(&server, alpn, &pinned(&ca)).await.unwrap_err();
        assert_eq!(error.code, Code::Usage, "{error}");
    }
}

#[tokio::test]
async fn requests_to_join_beyond_the_rate_are_not_executed_and_others_are_not_counted() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let (one, two) = (client().await, client().await);
    let to = server.local_addr();
    let one = one
        .connect(to, ALPN_JOIN, &pinned(&ca), WAIT)
        .await
        .unwrap();
    // One with a certificate is limited with all others.
    let user = ClientTls::new(&ca.user()).unwrap();
    let other = two.connect(to, ALPN_JOIN, &user, WAIT).await.unwrap();
    let calling = two.connect(to, ALPN_CLIENT, &user, WAIT).await.unwrap();
    for _ in 0..5 {
        one.call(b"x", WAIT).await.unwrap();
        other.call(b"x", WAIT).await.unwrap();
        calling.call(b"x", WAIT).await.unwrap();
    }
    // The clock of the tests stands still.
    for joining in [&one, &other] {
        let error = joining.call(b"x", WAIT).await.unwrap_err();
        assert_eq!((error.code, error.may_have_happened), (Code::Busy, false));
    }
    calling.call(b"x", WAIT).await.unwrap();
}
