//! What arrives: calls, bulk, closing, a server that goes or comes back.

use super::support::{Echo, WAIT, client, env, loopback, pair, pattern};
use crate::error::Code;
use crate::limits::FRAME_BYTES_MAX;
use crate::net::{ALPN_CLIENT, ClientTls, Connection, Endpoint, ServerParts, ServerTls, Service};
use bytes::Bytes;
use futures::future::join_all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const BULK: usize = 64 << 20;

#[tokio::test]
async fn a_call_brings_the_answer_whatever_its_size() {
    let (_server, connection, _) = pair().await;
    for size in [0, 1, 3, 64, 4_096, 65_536, 65_537, FRAME_BYTES_MAX] {
        let request = pattern(size);
        assert_eq!(connection.call(&request, WAIT).await.unwrap(), request);
    }
}

#[tokio::test]
async fn more_calls_at_once_than_streams_all_come_back() {
    let (_server, connection, _) = pair().await;
    let calls = (0..2_000u32).map(|number| {
        let connection = connection.clone();
        async move {
            let request = number.to_le_bytes();
            assert_eq!(connection.call(&request, WAIT).await.unwrap()[..], request);
        }
    });
    join_all(calls).await;
}

#[tokio::test]
async fn frames_and_raw_bytes_share_a_stream() {
    let (_server, connection, _) = pair().await;
    let mut stream = connection.open().await.unwrap();
    stream.send_frame(b"sink").await.unwrap();
    let body = pattern(BULK);
    let sent = async {
        for part in [0..7, 7..1 << 20, 1 << 20..BULK] {
            stream.send_bytes(body.slice(part)).await.unwrap();
        }
        stream.finish().unwrap();
        stream.recv_frame().await.unwrap().unwrap()
    };
    let answer = sent.await;
    let expected = format!("{BULK} {}", blake3::hash(&body));
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

#[tokio::test]
async fn bulk_comes_down_whole_and_in_order() {
    let (_server, connection, _) = pair().await;
    let mut stream = connection.open().await.unwrap();
    stream
        .send_frame(format!("source {BULK}").as_bytes())
        .await
        .unwrap();
    stream.finish().unwrap();
    let mut hash = blake3::Hasher::new();
    let mut length = 0;
    while let Some(part) = stream.recv_bytes(100_000).await.unwrap() {
        assert!(!part.is_empty() && part.len() <= 100_000);
        length += part.len();
        hash.update(&part);
    }
    assert_eq!(length, BULK);
    assert_eq!(hash.finalize(), blake3::hash(&pattern(BULK)));
}

#[tokio::test]
async fn both_directions_of_a_split_stream_move_at_once() {
    let (_server, connection, _) = pair().await;
    let (mut send, mut recv) = connection.open().await.unwrap().split();
    let receive = async { recv.recv_frame().await.unwrap().unwrap() };
    let sending = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        send.send_frame(b"late").await.unwrap();
        send.finish().unwrap();
    };
    let (answer, ()) = tokio::join!(receive, sending);
    assert_eq!(&answer[..], b"late");
}

#[tokio::test]
async fn a_call_without_an_answer_may_have_happened() {
    let (_server, connection, _) = pair().await;
    for request in [&b"never"[..], b"hang up"] {
        let deadline = Duration::from_millis(200);
        let error = connection.call(request, deadline).await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
        assert!(error.may_have_happened, "{error}");
    }
    // The connection is as good as before.
    connection.call(b"x", WAIT).await.unwrap();
}

#[tokio::test]
async fn a_call_on_a_dead_connection_certainly_did_not_happen() {
    let (_server, connection, _) = pair().await;
    connection.close();
    assert!(connection.is_closed());
    let error = connection.call(b"x", WAIT).await.unwrap_err();
    assert_eq!(
        (error.code, error.may_have_happened),
        (Code::Unavailable, false)
    );
}

#[tokio::test]
async fn a_request_too_large_is_refused_before_anything_is_sent() {
    let (_server, connection, _) = pair().await;
    let request = vec![0; FRAME_BYTES_MAX + 1];
    let error = connection.call(&request, WAIT).await.unwrap_err();
    assert_eq!((error.code, error.may_have_happened), (Code::Usage, false));
}

#[tokio::test]
async fn closing_lets_a_request_finish_and_refuses_new_ones_as_not_executed() {
    let (server, connection, _) = pair().await;
    let busy = connection.clone();
    let in_progress = async move { busy.call(b"later", WAIT).await };
    let closing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let closed = server.close(WAIT);
        let refused = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let error = connection.call(b"x", WAIT).await.unwrap_err();
            assert_eq!(
                (error.code, error.may_have_happened),
                (Code::Busy, false),
                "{error}"
            );
        };
        tokio::join!(closed, refused);
    };
    let (answer, ()) = tokio::join!(in_progress, closing);
    assert_eq!(&answer.unwrap()[..], b"here");
    let why = connection.closed().await;
    assert!(why.message.contains("stopping"), "{why}");
}

#[tokio::test]
async fn closing_does_not_wait_longer_than_its_grace() {
    let (server, connection, _) = pair().await;
    let stuck = connection.clone();
    let call = async move { stuck.call(b"never", WAIT).await };
    let closing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.close(Duration::from_millis(100)).await;
    };
    let started = tokio::time::Instant::now();
    let (result, ()) = tokio::join!(call, closing);
    let error = result.unwrap_err();
    assert_eq!(
        (error.code, error.may_have_happened),
        (Code::Unavailable, true)
    );
    assert!(started.elapsed() < Duration::from_secs(3));
}

/// A server in a runtime of its own, so that it can be killed: its socket is gone, and nobody is
/// told.
fn doomed(
    credentials: &crate::types::Credentials,
    listen: SocketAddr,
) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let tls = ServerTls::new(credentials).unwrap();
    let service: Arc<dyn Service> = Arc::new(Echo);
    let server = std::thread::scope(|scope| {
        let bind = || {
            runtime.block_on(async {
                Endpoint::bind(&env(), listen, Some(ServerParts::new(tls, service))).await
            })
        };
        scope.spawn(bind).join().unwrap().unwrap()
    });
    let address = server.local_addr();
    (runtime, address)
}

async fn connect(client: &Endpoint, to: SocketAddr, tls: &ClientTls) -> Connection {
    client.connect(to, ALPN_CLIENT, tls, WAIT).await.unwrap()
}

#[tokio::test]
async fn a_killed_server_is_unavailable_in_time_and_its_restart_is_noticed_at_once() {
    let ca = super::support::Ca::new(1);
    let node = ca.node(1);
    let (runtime, address) = doomed(&node, loopback());
    let tls = ClientTls::new(&ca.user()).unwrap();
    let client = client().await;
    let connection = connect(&client, address, &tls).await;
    connection.call(b"x", WAIT).await.unwrap();
    runtime.shutdown_background();
    // Its threads end after the call returns; it could still answer until its socket is free.
    tokio::time::timeout(WAIT, async {
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();

    let deadline = Duration::from_millis(300);
    let error = tokio::time::timeout(WAIT, connection.call(b"x", deadline));
    let error = error.await.unwrap().unwrap_err();
    assert_eq!(
        (error.code, error.may_have_happened),
        (Code::Unavailable, true)
    );

    let (again, _) = doomed(&node, address);
    // A packet of the old connection draws the reset; the idle timeout would give another reason.
    let why = tokio::time::timeout(WAIT, async {
        let _ = connection.call(b"x", WAIT).await;
        connection.closed().await
    });
    let why = why.await.unwrap();
    assert!(why.message.contains("restarted"), "{why}");
    connect(&client, address, &tls)
        .await
        .call(b"x", WAIT)
        .await
        .unwrap();
    again.shutdown_background();
}

#[tokio::test]
async fn ipv6_sockets_take_ipv4_clients_and_show_their_plain_address() {
    let ca = super::support::Ca::new(1);
    let listen = "[::]:0".parse().unwrap();
    let Ok(server) = super::support::server_at(&ca.node(1), listen).await else {
        return; // This machine has no IPv6.
    };
    let tls = ClientTls::new(&ca.user()).unwrap();
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), server.local_addr().port());
    let connection = connect(&client().await, to, &tls).await;
    let echoed = connection
        .call(&Bytes::from_static(b"x"), WAIT)
        .await
        .unwrap();
    assert_eq!(&echoed[..], b"x");
}
