//! Randomness of one process: the same bytes for the same seed, machine and start.

use std::sync::Mutex;

use quorate::world::Entropy;

use super::hold;
use crate::rng::Rng;

/// See the module.
pub struct SimEntropy(Mutex<Rng>);

impl SimEntropy {
    /// The bytes of a stream.
    pub fn new(rng: Rng) -> Self {
        SimEntropy(Mutex::new(rng))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        hold(&self.0).fill(buffer);
    }
}
