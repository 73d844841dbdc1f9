//! The data path, shared by the control loop and the tasks beside it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dataplane::Dataplane;

/// A handle on the one data path; clones lead to the same.
#[derive(Clone)]
pub(super) struct SharedDataplane(Arc<Mutex<Dataplane>>);

impl SharedDataplane {
    pub(super) fn new(dataplane: Dataplane) -> Self {
        Self(Arc::new(Mutex::new(dataplane)))
    }

    /// A panic elsewhere leaves the maps as they are, which is how a restart finds them too.
    pub(super) fn lock(&self) -> MutexGuard<'_, Dataplane> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
