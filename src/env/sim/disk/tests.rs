//! What the simulated disk promises.
