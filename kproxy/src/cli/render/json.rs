//! JSON: indented, one document, stable keys.

use std::io::{self, Write};

use serde::Serialize;

/// Prints `value` as one JSON document.
///
/// # Errors
/// Those of the writer, and values that JSON cannot hold.
pub(crate) fn write(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// The same as text.
///
/// # Errors
/// Values that JSON cannot hold.
pub(crate) fn text(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
