//! The runtime that QUIC's own tasks run on: tokio's, but they wait for their turn. Made by
//! `endpoint`.
//!
//! Each stream that sends wakes the task of its connection, which tokio would run next: a packet
//! for each message. Behind the tasks that are ready too it finds all that they have to say, and
//! one packet carries many messages. Where nothing else is ready the turn comes at once.

use super::udp::Socket;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Tokio's runtime with [`Patient`] tasks and our own sockets.
#[derive(Debug)]
pub(crate) struct PatientRuntime;

impl Runtime for PatientRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Patient {
            task,
            at_turn: false,
        }));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(socket)?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// A task that goes to the end of the queue once each time it is woken, before it is polled.
struct Patient {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    at_turn: bool,
}

impl Future for Patient {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.at_turn = !self.at_turn;
        if self.at_turn {
            // Woken by itself, a task comes behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn comes_after_what_is_ready_already() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let order = order.clone();
            async move { order.lock().push(name) }
        };
        let (ended, end) = tokio::sync::oneshot::channel();
        let patient = note("patient");
        PatientRuntime.spawn(Box::pin(async move {
            patient.await;
            let _ = ended.send(());
        }));
        TokioRuntime.spawn(Box::pin(note("other")));
        end.await.unwrap();
        assert_eq!(*order.lock(), ["other", "patient"]);
    }
}
