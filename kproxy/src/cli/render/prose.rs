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

/// Prints `text` behind `lead`, which takes `indent` columns; further lines begin where the first does.
///
/// # Errors
/// Only those of the writer.
pub(crate) fn hanging(
    out: &mut dyn Write,
    look: &Look,
    lead: &str,
    indent: usize,
    text: &str,
) -> io::Result<()> {
    let mut lines = Vec::new();
    write(&mut lines, look, indent, text)?;
    write!(out, "{lead}")?;
    // The lead takes the place of the first line's indentation.
    out.write_all(lines.get(indent..).unwrap_or_default())
}

/// `1 backend`, `2 backends`
pub(crate) fn count(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
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
