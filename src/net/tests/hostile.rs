//! What a broken or hostile peer does: garbage, frames too long, cut off, or never finished.

use super::support::{Ca, WAIT, connect, pair, server};
use crate::error::Code;
use crate::limits::FRAME_BYTES_MAX;
use crate::net::{ALPN_JOIN, ClientTls};
use bytes::Bytes;
use proptest::prelude::*;
use std::time::Duration;

#[tokio::test]
async fn a_frame_announced_too_long_is_refused_and_the_connection_lives() {
    let (_server, connection, _) = pair().await;
    for announced in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut stream = connection.open().await.unwrap();
        let head = Bytes::copy_from_slice(&announced.to_le_bytes());
        stream.send_bytes(head).await.unwrap();
        let error = stream.recv_frame().await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
    }
    connection.call(b"still there", WAIT).await.unwrap();
}

#[tokio::test]
async fn a_frame_that_is_never_finished_times_out() {
    let (_server, connection, _) = pair().await;
    let mut stream = connection.open().await.unwrap();
    let half = [&100u32.to_le_bytes()[..], b"only so much"].concat();
    stream.send_bytes(half.into()).await.unwrap();
    let answer = tokio::time::timeout(WAIT, stream.recv_frame())
        .await
        .unwrap();
    assert!(answer.is_err(), "{answer:?}");
    connection.call(b"still there", WAIT).await.unwrap();
}

#[tokio::test]
async fn a_frame_cut_off_by_the_end_or_by_a_reset_is_no_frame() {
    let (_server, connection, _) = pair().await;
    for cut in [1, 3, 5] {
        let mut stream = connection.open().await.unwrap();
        let frame = [&100u32.to_le_bytes()[..], b"only so much"].concat();
        let part = Bytes::from(frame).slice(..cut);
        stream.send_bytes(part).await.unwrap();
        stream.finish().unwrap();
        assert!(stream.recv_frame().await.is_err());
    }
    connection.call(b"still there", WAIT).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_sends_nothing_is_reset() {
    let (_server, connection, _) = pair().await;
    let quiet = connection.open().await.unwrap();
    // A later stream makes the server see the quiet one too.
    connection.call(b"x", WAIT).await.unwrap();
    let (_send, mut recv) = quiet.split();
    let answer = tokio::time::timeout(WAIT, recv.recv_frame()).await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_frame_leaves_nothing_behind() {
    let (server, connection, _) = pair().await;
    let mut stream = connection.open().await.unwrap();
    let half = [&100u32.to_le_bytes()[..], b"only so much"].concat();
    stream.send_bytes(half.into()).await.unwrap();
    connection.close();
    // Closing waits for streams being served; there must be none within the time.
    tokio::time::timeout(Duration::from_secs(5), server.close(WAIT))
        .await
        .unwrap();
}

#[tokio::test]
async fn garbage_datagrams_do_not_stop_the_service() {
    let (server, connection, _) = pair().await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    for length in (0..2_000usize).map(|n| n * 37 % 1_500) {
        let mut datagram = vec![0; length];
        noise.fill(&mut datagram);
        // Every second one looks like the first packet of a connection of this version of QUIC.
        if length % 2 == 0 && length > 5 {
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        socket.send_to(&datagram, server.local_addr()).unwrap();
    }
    connection.call(b"still there", WAIT).await.unwrap();
}

#[tokio::test]
async fn frames_of_one_connection_have_a_bound_and_what_exceeds_it_is_not_executed() {
    let (_server, connection, _) = pair().await;
    let head = (FRAME_BYTES_MAX as u32).to_le_bytes();
    let mut held = Vec::new();
    let refusal = loop {
        let mut stream = connection.open().await.unwrap();
        stream
            .send_bytes(Bytes::copy_from_slice(&head))
            .await
            .unwrap();
        let mut stream = Box::pin(async move {
            let answer = stream.recv_frame().await;
            (answer, stream)
        });
        // One that was taken answers nothing before its frame is whole, or it is given up.
        match tokio::time::timeout(Duration::from_millis(100), &mut stream).await {
            Ok((answer, _)) => break answer.unwrap_err(),
            Err(_) => held.push(stream),
        }
        assert!(held.len() < 64, "nothing was refused");
    };
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    assert!(held.len() >= 8, "{} were taken", held.len());
    // Small requests still find room, and everything is given back.
    connection.call(b"still there", WAIT).await.unwrap();
    drop(held);
    let big = vec![7; FRAME_BYTES_MAX];
    let deadline = tokio::time::Instant::now() + WAIT;
    while let Err(error) = connection.call(&big, WAIT).await {
        assert_eq!(error.code, Code::Busy, "{error}");
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_joiner_may_send_small_frames_only() {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let nobody = ClientTls::without_identity(ca.der()).unwrap();
    let connection = connect(&server, ALPN_JOIN, &nobody).await.unwrap();
    connection.call(&[0; 1_000], WAIT).await.unwrap();
    assert!(connection.call(&vec![0; 70_000], WAIT).await.is_err());
    connection.call(&[0; 1_000], WAIT).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever bytes a stream carries, the server answers or breaks off, and serves on.
    #[test]
    fn a_stream_takes_any_bytes(bytes: Vec<u8>, finish: bool) {
        thread_local! {
            static WORLD: (tokio::runtime::Runtime, (crate::net::Endpoint, crate::net::Connection, super::support::Ca)) = {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let pair = runtime.block_on(pair());
                (runtime, pair)
            };
        }
        WORLD.with(|(runtime, (_, connection, _))| runtime.block_on(async {
            let mut stream = connection.open().await.unwrap();
            if finish {
                let _ = stream.send_bytes(bytes.into()).await;
                let _ = stream.finish();
                let _ = tokio::time::timeout(WAIT, stream.recv_frame()).await.unwrap();
            } else {
                let _ = stream.send_bytes(bytes.into()).await;
            }
            assert_eq!(&connection.call(b"still there", WAIT).await.unwrap()[..], b"still there");
        }));
    }
}
