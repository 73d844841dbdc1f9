//! What pinned maps mean: each version writes it down as text beside its maps, and reads that of others, so that
//! what has a meaning in both goes on.
//!
//! ```text
//! description: the text, written and read
//! conversion:  from the bytes of one version to those of another, field by field
//! ```

mod conversion;
mod description;

pub(super) use conversion::{Conversion, Likeness};
pub(super) use description::{Description, words};
