//! The runtime that QUIC's own tasks run on: tokio's, but they wait for their turn. Made by
//! `endpoint`.
//!
//! Each stream that sends wakes the task of its connection, which tokio would run next: a packet
//! for each message. Behind the tasks that are ready too it finds all that they have to say, and
//! one packet carries many messages. A task that had nothing to do for a while is not worth that:
//! nothing else is likely to be ready, and going to the end of the queue wakes another thread.

use super::udp::Socket;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep_until};

/// A task polled this long ago was idle.
const IDLE: Duration = Duration::from_millis(1);
/// A timer put off by more than this is made anew.
const PUT_OFF: Duration = Duration::from_millis(5);

/// Tokio's runtime with [`Patient`] tasks and our own sockets.
#[derive(Debug)]
pub(crate) struct PatientRuntime;

impl Runtime for PatientRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(sleep_until(at.into()))))
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Patient {
            task,
            waits: false,
            polled: None,
        }));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(socket)?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// tokio's timer. Put off, that one still wakes the thread at its old time: cheap where it is put
/// off again and again for a little, as those for lost packets under load, but on an idle node
/// each packet sets a timer for its loss and each acknowledgement puts it off for seconds.
#[derive(Debug)]
struct Timer(Pin<Box<Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let at = at.into();
        match at > self.0.deadline() + PUT_OFF {
            true => self.0.set(sleep_until(at)),
            false => self.0.as_mut().reset(at),
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.0.as_mut(), context)
    }
}

/// A task that goes to the end of the queue once each time it is woken, before it is polled, unless
/// it was idle.
struct Patient {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// It is at the end of the queue.
    waits: bool,
    polled: Option<Instant>,
}

impl Future for Patient {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = TokioRuntime.now();
        let idle = (self.polled).is_some_and(|polled| now.duration_since(polled) >= IDLE);
        self.waits = !self.waits && !idle;
        if self.waits {
            // Woken by itself, a task comes behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.polled = Some(now);
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
