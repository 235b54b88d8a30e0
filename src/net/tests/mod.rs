//! The transport over loopback: who is let in, what arrives, what a broken or hostile peer does.

mod handshake;
mod hostile;
mod support;
mod traffic;
