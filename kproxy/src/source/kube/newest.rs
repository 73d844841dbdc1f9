//! How far the API server's store was seen to have got.

use std::cell::Cell;

/// The newest resource version that a kind of object was seen with. They are numbers of the store that only
/// grow (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
#[derive(Default)]
pub(super) struct Newest(Cell<u64>);

impl Newest {
    /// An object or a list was seen with this one.
    pub(super) fn saw(&self, version: Option<&str>) {
        if let Some(version) = number(version) {
            self.0.set(self.0.get().max(version));
        }
    }

    /// The newest one; 0: none.
    pub(super) fn get(&self) -> u64 {
        self.0.get()
    }

    /// Forgets it: the next list begins anew.
    pub(super) fn forget(&self) {
        self.0.set(0);
    }
}

/// A version as a number.
pub(super) fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}
