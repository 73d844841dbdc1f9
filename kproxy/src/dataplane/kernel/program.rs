//! A program that the daemon runs itself, and that another may take the place of.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A handle on it; clones lead to the same.
#[derive(Clone)]
pub(crate) struct SharedProgram(Arc<Mutex<OwnedFd>>);

impl SharedProgram {
    pub(crate) fn new(program: OwnedFd) -> Self {
        Self(Arc::new(Mutex::new(program)))
    }

    /// The program; it is not replaced meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, OwnedFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs another one from now on.
    pub(crate) fn replace(&self, program: OwnedFd) {
        *self.lock() = program;
    }
}
