//! The transport over loopback: who is let in, what arrives, what a broken or hostile peer does.

mod gate;
mod handshake;
mod hostile;
mod join;
mod support;
mod traffic;
