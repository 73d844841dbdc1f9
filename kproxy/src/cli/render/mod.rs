//! Printers: rows in, text out. They take a writer and plain rows, so tests need no kernel.

pub(super) mod json;
pub(super) mod prose;
pub(super) mod table;
pub(super) mod yaml;

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use owo_colors::Style;

/// How text for people is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Columns to fit text into; `None`: nothing is shortened or wrapped.
    pub width: Option<usize>,
    /// Whether to colour.
    pub color: bool,
}

impl Look {
    /// For a file or a program: everything in full, no colour.
    pub(super) const PLAIN: Self = Self { width: None, color: false };

    /// What suits standard output: the width of the terminal, colour if it wants any
    /// (NO_COLOR, CLICOLOR_FORCE and TERM=dumb are honoured).
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        if !stdout.is_terminal() {
            return Self { width: None, color };
        }
        let width = terminal_size::terminal_size_of(&stdout)
            .map_or(80, |(terminal_size::Width(columns), _)| usize::from(columns));
        Self { width: Some(width), color }
    }

    /// `text` in the colour of `tone`, if colours are wanted.
    pub(super) fn paint(&self, tone: Tone, text: impl Display) -> String {
        match tone.style() {
            Some(style) if self.color => style.style(text).to_string(),
            _ => text.to_string(),
        }
    }
}

/// What a piece of text means; the colour follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Tone {
    /// Ordinary text.
    #[default]
    Plain,
    /// Titles.
    Title,
    /// Of little interest.
    Dim,
    /// In order.
    Good,
    /// Worth a look.
    Warn,
    /// Not in order.
    Bad,
}

impl Tone {
    const fn style(self) -> Option<Style> {
        match self {
            Self::Plain => None,
            Self::Title => Some(Style::new().bold()),
            Self::Dim => Some(Style::new().dimmed()),
            Self::Good => Some(Style::new().green()),
            Self::Warn => Some(Style::new().yellow()),
            Self::Bad => Some(Style::new().red()),
        }
    }
}

/// `text` with everything but printable ASCII escaped: names come from outside and must neither
/// steer the terminal nor break the columns.
pub(super) fn printable(text: &str) -> String {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c == ' ' || c.is_ascii_graphic() {
                c.to_string()
            } else {
                c.escape_default().to_string()
            }
        })
        .collect()
}

/// A note for the person at the terminal: on standard error, never among the data.
pub(super) fn note(text: impl Display) {
    // Nobody is left to tell when standard error is gone.
    drop(writeln!(anstream::stderr(), "{text}"));
}
