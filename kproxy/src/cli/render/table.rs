//! Aligned tables. On a terminal they are fitted to its width by shortening names and addresses in
//! the middle (`kube-system/very-lo…-name:http`): both ends tell rows apart. Elsewhere nothing is
//! ever shortened.

use std::io::{self, Write};

use super::{Look, Tone, printable};

/// Columns between two columns.
const GAP: usize = 2;
/// No column is shortened below this.
const NARROWEST: usize = 8;

/// One column of a table of `R`.
pub(crate) struct Column<R> {
    /// Title.
    pub title: &'static str,
    /// Formats that show the column.
    pub shown: Shown,
    /// Side to which cells are aligned.
    pub align: Align,
    /// How far the column gives way when the table is too wide.
    pub give: Give,
    /// Makes the cell of a row.
    pub cell: fn(&R) -> Cell,
}

impl<R> Column<R> {
    /// A left-aligned column of both formats that is never shortened.
    pub(crate) const fn new(title: &'static str, cell: fn(&R) -> Cell) -> Self {
        Self { title, shown: Shown::Always, align: Align::Left, give: Give::Never, cell }
    }

    /// Right-aligned, for numbers.
    pub(crate) const fn number(mut self) -> Self {
        self.align = Align::Right;
        self
    }

    /// Only in `-o wide`.
    pub(crate) const fn wide(mut self) -> Self {
        self.shown = Shown::Wide;
        self
    }

    /// Only in `-o table`.
    pub(crate) const fn narrow(mut self) -> Self {
        self.shown = Shown::Narrow;
        self
    }

    /// With another readiness to be shortened.
    pub(crate) const fn give(mut self, give: Give) -> Self {
        self.give = give;
        self
    }
}

/// Formats that show a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// `-o table` and `-o wide`.
    Always,
    /// `-o wide`.
    Wide,
    /// `-o table`.
    Narrow,
}

/// Side to which cells are aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// How far a column gives way when the table is too wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Give {
    /// Never.
    Never,
    /// First, down to this width (names).
    First(usize),
    /// When that was not enough, together with all others that give way (addresses).
    Last,
}

/// Text of one cell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cell {
    /// Printable ASCII.
    text: String,
    /// Meaning.
    tone: Tone,
}

impl Cell {
    /// An ordinary cell.
    pub(crate) fn new(text: impl ToString) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// A cell with a meaning.
    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Self { text: printable(&text.to_string()), tone }
    }
}

/// Prints a table: titles, then one line a row.
///
/// # Errors
/// Only those of the writer.
pub(crate) fn write<R>(
    out: &mut dyn Write,
    look: &Look,
    columns: &[Column<R>],
    wide: bool,
    rows: &[R],
) -> io::Result<()> {
    let hidden = if wide { Shown::Narrow } else { Shown::Wide };
    let columns: Vec<_> = columns.iter().filter(|column| column.shown != hidden).collect();
    let lines: Vec<Vec<Cell>> =
        rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()).collect();

    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.len()).collect();
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.text.len());
        }
    }
    if let (Some(limit), false) = (look.width, wide) {
        let give: Vec<_> = columns.iter().map(|column| column.give).collect();
        fit(&mut widths, &give, limit);
    }

    let titles: Vec<Cell> =
        columns.iter().map(|column| Cell::toned(column.title, Tone::Title)).collect();
    for line in std::iter::once(&titles).chain(&lines) {
        write_line(out, look, &columns, &widths, line)?;
    }
    Ok(())
}

fn write_line<R>(
    out: &mut dyn Write,
    look: &Look,
    columns: &[&Column<R>],
    widths: &[usize],
    line: &[Cell],
) -> io::Result<()> {
    let mut owed = 0; // spaces due before the next text: none are left at the end of a line
    for ((column, width), cell) in columns.iter().zip(widths).zip(line) {
        let text = shorten(&cell.text, *width);
        // Every character counts for one column: cells are ASCII, and so wide is the ellipsis.
        let padding = width.saturating_sub(text.chars().count());
        let (before, after) = match column.align {
            Align::Left => (0, padding),
            Align::Right => (padding, 0),
        };
        if text.is_empty() {
            owed += width + GAP;
            continue;
        }
        write!(out, "{:1$}{2}", "", owed + before, look.paint(cell.tone, text))?;
        owed = after + GAP;
    }
    writeln!(out)
}

/// Lowers `widths` until the table fits into `limit` columns, or nothing more can give way.
fn fit(widths: &mut [usize], give: &[Give], limit: usize) {
    for round in [false, true] {
        let gaps = GAP * widths.len().saturating_sub(1);
        let floor = |give: &Give| match give {
            Give::Never => None,
            Give::First(floor) if !round => Some(*floor),
            Give::Last if !round => None,
            Give::First(_) | Give::Last => Some(NARROWEST),
        };
        // Takes from the widest first, so that columns of about the same width stay so.
        for _ in 0..(widths.iter().sum::<usize>() + gaps).saturating_sub(limit) {
            let widest = widths
                .iter_mut()
                .zip(give)
                .filter(|(width, give)| floor(give).is_some_and(|floor| **width > floor))
                .max_by_key(|(width, _)| **width);
            match widest {
                Some((width, _)) => *width -= 1,
                None => break,
            }
        }
    }
}

/// `text` in at most `width` columns, the middle replaced by an ellipsis where needed.
pub(in crate::cli) fn shorten(text: &str, width: usize) -> String {
    if text.len() <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let tail = kept / 2;
    format!("{}…{}", &text[..kept - tail], &text[text.len() - tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_way_before_addresses() {
        let give = [Give::First(20), Give::Last, Give::Never];
        let mut widths = [50, 30, 9];
        fit(&mut widths, &give, 80);
        assert_eq!(widths, [37, 30, 9]);
        fit(&mut widths, &give, 60);
        assert_eq!(widths, [20, 27, 9]);
        fit(&mut widths, &give, 10);
        assert_eq!(widths, [NARROWEST, NARROWEST, 9]);
    }

    #[test]
    fn both_ends_stay() {
        assert_eq!(shorten("kube-system/kube-dns:dns", 24), "kube-system/kube-dns:dns");
        assert_eq!(shorten("kube-system/kube-dns:dns", 13), "kube-s…ns:dns");
        assert_eq!(shorten("abc", 1), "…");
        assert_eq!(shorten("abc", 0), "…");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(Cell::new("a\u{1b}[31mb\nü").text, "a\\u{1b}[31mb\\n\\u{fc}");
    }
}
