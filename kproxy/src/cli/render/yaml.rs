//! YAML: the same keys as JSON.

use std::io::{self, Write};

use serde::Serialize;

/// Prints `value` as one YAML document.
///
/// # Errors
/// Those of the writer, and values that YAML cannot hold.
pub(crate) fn write(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    // Made in memory first: the serializer's errors would hide a broken pipe.
    let text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
    out.write_all(text.as_bytes())
}
