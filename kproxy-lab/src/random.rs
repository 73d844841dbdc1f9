//! Randomness for names and tokens.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

/// 64 random bits: every `RandomState` is seeded by the operating system.
pub(crate) fn bits() -> u64 {
    RandomState::new().build_hasher().finish()
}
