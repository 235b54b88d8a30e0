//! The operating system's randomness, for `env::real`.

use crate::env::Rng;
use rand::TryRngCore;

/// `getrandom(2)`: fit for keys and identities.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn fill(&self, out: &mut [u8]) {
        rand::rngs::OsRng
            .try_fill_bytes(out)
            .expect("getrandom(2) works on every kernel this runs on, once the system has booted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(OsRng.bytes16(), OsRng.bytes16());
    }
}
