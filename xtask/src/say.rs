//! What xtask tells its user: on standard error, so that standard output stays free for data.

use std::{
    fmt::Display,
    io::{IsTerminal as _, stderr},
};

/// A heading before a group of steps.
pub(crate) fn heading(text: impl Display) {
    eprintln!("\n{}", bold(text));
}

/// A line below a heading.
pub(crate) fn line(text: impl Display) {
    eprintln!("  {text}");
}

/// Text in bold when standard error is a terminal.
pub(crate) fn bold(text: impl Display) -> String {
    if stderr().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
}

/// A duration as people say it: `42 s`, `3 min 05 s`.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}
