//! Running text under headings.

use std::io::{self, Write};

use super::{Look, printable};

/// Prints `text` after `indent` spaces, broken at spaces to fit the width of the terminal.
///
/// # Errors
/// Only those of the writer.
pub(crate) fn write(out: &mut dyn Write, look: &Look, indent: usize, text: &str) -> io::Result<()> {
    let limit = look.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(20));
    let text = printable(text);
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.len() > limit {
            writeln!(out, "{:indent$}{line}", "")?;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{:indent$}{line}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_broken_at_spaces() {
        let mut out = Vec::new();
        let look = Look { width: Some(26), color: false };
        write(&mut out, &look, 2, "the Service has no ready endpoint").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "  the Service has no ready\n  endpoint\n");
    }
}
