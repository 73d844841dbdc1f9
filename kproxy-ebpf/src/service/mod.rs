//! From a dialled address to a service, and from a service to a backend.

pub(crate) mod algorithm;
pub(crate) mod load;
pub(crate) mod lookup;
pub(crate) mod pick;
pub(crate) mod source_ranges;
