//! Who is let in: every kind of identity on every protocol.

use super::support::{
    Ca, NOW, VALID, WAIT, client, connect, loopback, node_peer, pair, server, server_at,
    server_with,
};
use crate::cluster::{ADMIN_DAYS, Authority, CA_DAYS, NODE_DAYS, Validity};
use crate::env::real::OsRng;
use crate::error::Code;
use crate::net::{ALPN_CLIENT, ALPN_JOIN, ALPN_NODE, ClientTls, ServerTls};
use crate::types::{ClusterId, Subject, WallTime};
use std::time::Duration;

async fn refusal(server_ca: &Ca, alpn: &'static [u8], tls: &ClientTls) -> crate::error::Error {
    let server = server(&server_ca.node(1)).await;
    connect(&server, alpn, tls).await.unwrap_err()
}

#[tokio::test]
async fn the_right_ones_are_let_in_and_known_by_name() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let user = ClientTls::new(&ca.user()).unwrap();
    let node = ClientTls::new(&ca.node(2)).unwrap();
    let nobody = ClientTls::without_identity(ca.der()).unwrap();
    for (tls, alpn, who) in [
        (
            &user,
            ALPN_CLIENT,
            r#"User { name: "alice", group: "staff", admin: false, serial: 77 }"#,
        ),
        (&node, ALPN_CLIENT, "Node { id: NodeId(2), serial: 77 }"),
        (&node, ALPN_NODE, "Node { id: NodeId(2), serial: 77 }"),
        (&nobody, ALPN_JOIN, "Nobody"),
    ] {
        let connection = connect(&server, alpn, tls).await.unwrap();
        assert_eq!(connection.peer(), node_peer(1));
        let answer = connection.call(b"who", WAIT).await.unwrap();
        let expected = format!("{who} {}", String::from_utf8_lossy(alpn));
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
}

#[tokio::test]
async fn a_client_of_another_cluster_is_denied() {
    let (here, there) = (Ca::new(1), Ca::new(2));
    for credentials in [there.user(), there.node(2)] {
        let tls = ClientTls::new(&credentials).unwrap();
        let error = refusal(&here, ALPN_CLIENT, &tls).await;
        assert_eq!(error.code, Code::Denied);
        assert!(
            error.message.contains("belongs to another cluster"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_stranger_that_trusts_the_server_is_denied_by_it() {
    // The same cluster id, so that only the signature of the CA tells.
    let (here, forger) = (Ca::new(1), Ca::new(1));
    let mut forged = forger.user();
    forged.ca = here.der().to_vec();
    let tls = ClientTls::new(&forged).unwrap();
    let error = refusal(&here, ALPN_CLIENT, &tls).await;
    assert_eq!(error.code, Code::Denied);
    assert!(error.message.contains("not of this cluster"), "{error}");
}

#[tokio::test]
async fn a_server_that_trusts_the_client_but_is_forged_is_denied() {
    let (here, forger) = (Ca::new(1), Ca::new(1));
    let mut forged = forger.node(1);
    forged.ca = here.der().to_vec();
    let server = server(&forged).await;
    let tls = ClientTls::new(&here.user()).unwrap();
    let error = connect(&server, ALPN_CLIENT, &tls).await.unwrap_err();
    assert_eq!(error.code, Code::Denied);
    assert!(
        error.message.contains("belongs to another cluster"),
        "{error}"
    );
}

#[test]
fn what_names_no_node_cannot_serve_and_what_names_nobody_cannot_connect() {
    let ca = Ca::new(1);
    assert_eq!(ServerTls::new(&ca.user()).err().unwrap().code, Code::Usage);
    for subject in ["alice", "node:0", "user:alice:staff:extra", "node:1:2"] {
        let odd = ca.issue(subject, VALID);
        assert!(
            ServerTls::new(&odd).is_err() && ClientTls::new(&odd).is_err(),
            "{subject}"
        );
    }
    let mut mixed = ca.user();
    mixed.key = ca.user().key;
    assert_eq!(ClientTls::new(&mixed).err().unwrap().code, Code::Corrupt);
}

#[tokio::test]
async fn odd_certificates_of_the_right_ca_are_denied_on_both_sides() {
    // The CA's signature alone is not enough: another cluster's name, no subject of ours, a user
    // that serves. Only a test can make such.
    let ca = Ca::new(1);
    let elsewhere = ClusterId([2; 16]);
    let good_server = server(&ca.node(1)).await;
    let good_client = ClientTls::new(&ca.user()).unwrap();
    for odd in [
        ca.issue_for(elsewhere, "user:alice:staff"),
        ca.issue("alice", VALID),
    ] {
        let tls = ClientTls::unchecked(&odd, ca.cluster()).unwrap();
        let error = connect(&good_server, ALPN_CLIENT, &tls).await.unwrap_err();
        assert_eq!(error.code, Code::Denied, "{error}");
    }
    for odd in [
        ca.issue_for(elsewhere, "node:1"),
        ca.user(),
        ca.issue("node-1", VALID),
    ] {
        let server = server_with(ServerTls::unchecked(&odd, ca.cluster()).unwrap()).await;
        let error = connect(&server, ALPN_CLIENT, &good_client)
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::Denied, "{error}");
    }
}

#[tokio::test]
async fn expired_and_future_identities_are_denied_on_both_sides() {
    let ca = Ca::new(1);
    for valid in [(-10, -1), (1, 10)] {
        let tls = ClientTls::new(&ca.issue("user:alice:staff", valid)).unwrap();
        let error = refusal(&ca, ALPN_CLIENT, &tls).await;
        assert_eq!(error.code, Code::Denied);
        assert!(
            error.message.contains("the identity has expired"),
            "{error}"
        );
    }
    let server = server(&ca.issue("node:1", (-10, -1))).await;
    let tls = ClientTls::new(&ca.user()).unwrap();
    let error = connect(&server, ALPN_CLIENT, &tls).await.unwrap_err();
    assert_eq!(error.code, Code::Denied);
    assert!(
        error.message.contains("node's certificate has expired"),
        "{error}"
    );
}

#[tokio::test]
async fn a_user_is_denied_on_the_nodes_protocol() {
    let ca = Ca::new(1);
    let tls = ClientTls::new(&ca.user()).unwrap();
    assert_eq!(refusal(&ca, ALPN_NODE, &tls).await.code, Code::Denied);
}

#[tokio::test]
async fn nobody_is_denied_except_for_joining() {
    let ca = Ca::new(1);
    let tls = ClientTls::without_identity(ca.der()).unwrap();
    for alpn in [ALPN_CLIENT, ALPN_NODE] {
        assert_eq!(refusal(&ca, alpn, &tls).await.code, Code::Denied);
    }
}

#[tokio::test]
async fn another_protocol_is_unavailable() {
    let ca = Ca::new(1);
    let tls = ClientTls::new(&ca.user()).unwrap();
    let error = refusal(&ca, b"dfs-client/9", &tls).await;
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("another version"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unavailable_within_the_deadline_and_names_the_address() {
    let ca = Ca::new(1);
    let gone = server(&ca.node(1)).await;
    let address = gone.local_addr();
    gone.close(Duration::ZERO).await;
    drop(gone);
    let tls = ClientTls::new(&ca.user()).unwrap();
    let client = client().await;
    let started = tokio::time::Instant::now();
    let deadline = Duration::from_millis(300);
    let connecting = client.connect(address, ALPN_CLIENT, &tls, deadline);
    let error = connecting.await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&address.to_string()), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_port_in_use_and_an_address_of_nowhere_are_said_so() {
    let (taken, connection, ca) = pair().await;
    let error = server_at(&ca.node(2), taken.local_addr())
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("--listen"), "{error}");
    drop(connection);
    let tls = ClientTls::new(&ca.user()).unwrap();
    let client = client().await;
    let error = client
        .connect(loopback(), ALPN_CLIENT, &tls, WAIT)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Usage, "{error}");
}

#[tokio::test]
async fn what_the_authority_issues_is_believed() {
    let (rng, now) = (OsRng, WallTime(NOW * 1_000));
    let authority = Authority::create(&rng, ClusterId([5; 16]), Validity::days(now, CA_DAYS));
    let authority = authority.unwrap();
    let issue = |subject: &str, days| {
        let (subject, addresses) = (Subject::parse(subject).unwrap(), ["127.0.0.1:1".to_owned()]);
        authority
            .issue(&rng, &subject, 77, Validity::days(now, days), &addresses)
            .unwrap()
    };
    let server = server(&issue("node:1", NODE_DAYS)).await;
    for (subject, alpn) in [("admin:root:root", ALPN_CLIENT), ("node:2", ALPN_NODE)] {
        let tls = ClientTls::new(&issue(subject, ADMIN_DAYS)).unwrap();
        let connection = connect(&server, alpn, &tls).await.unwrap();
        connection.call(b"who", WAIT).await.unwrap();
    }
    let tls = ClientTls::without_identity(authority.certificate()).unwrap();
    connect(&server, ALPN_JOIN, &tls).await.unwrap();
}
