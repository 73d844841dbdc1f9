//! What is on the screen, and what keys change of it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{Backend, Numbers, Rates, Row};
use crate::cli::args::TopSort;

/// What is on the screen.
#[derive(Debug)]
pub(crate) struct State {
    pub rates: Rates,
    pub sort: TopSort,
    /// Only Services with this in their name.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    /// The help is shown.
    pub help: bool,
    /// Service ports whose backends are shown.
    pub unfolded: BTreeSet<u32>,
    /// The service port that the cursor is on.
    pub cursor: Option<u32>,
}

/// What a key asks for beyond the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Nothing.
    GoOn,
    /// The end.
    Quit,
}

impl State {
    /// With nothing read yet.
    pub(crate) fn new(sort: TopSort) -> Self {
        Self {
            rates: Rates::default(),
            sort,
            filter: String::new(),
            typing: false,
            help: false,
            unfolded: BTreeSet::new(),
            cursor: None,
        }
    }

    /// The rows that are shown, in order.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        let name = |row: &Row| row.service.as_ref().map(|id| id.text()).unwrap_or_default();
        let filter = self.filter.to_lowercase();
        let all = self.rates.rows.iter();
        let mut rows: Vec<&Row> =
            all.filter(|row| name(row).to_lowercase().contains(&filter)).collect();
        rows.sort_by(|a, b| {
            order(self.sort, &a.numbers, &b.numbers)
                .then_with(|| a.service.cmp(&b.service))
                .then(a.id.cmp(&b.id))
        });
        rows
    }

    /// The backends of a row, in order.
    pub(crate) fn backends<'a>(&self, row: &'a Row) -> Vec<&'a Backend> {
        let mut backends: Vec<&Backend> = row.backends.iter().collect();
        backends
            .sort_by(|a, b| order(self.sort, &a.numbers, &b.numbers).then_with(|| a.at.cmp(&b.at)));
        backends
    }

    /// Place of the cursor among the rows that are shown.
    pub(crate) fn place(&self, rows: &[&Row]) -> usize {
        let found = rows.iter().position(|row| Some(row.id) == self.cursor);
        found.unwrap_or(0)
    }

    /// Takes a key.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Then {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Then::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            return Then::GoOn;
        }
        if self.help {
            self.help = false;
            return Then::GoOn;
        }
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('n') => self.sort = TopSort::New,
            KeyCode::Char('o') => self.sort = TopSort::Open,
            KeyCode::Char('d') => self.sort = TopSort::Drops,
            KeyCode::Char('f') => self.sort = TopSort::Failures,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-10),
            KeyCode::PageDown => self.move_by(10),
            KeyCode::Home => self.move_by(isize::MIN),
            KeyCode::End => self.move_by(isize::MAX),
            KeyCode::Enter => self.fold(None),
            KeyCode::Right => self.fold(Some(false)),
            KeyCode::Left => self.fold(Some(true)),
            _ => {}
        }
        Then::GoOn
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
    }

    fn move_by(&mut self, steps: isize) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let place = self.place(&rows).saturating_add_signed(steps).min(last);
        self.cursor = rows.get(place).map(|row| row.id);
    }

    /// Shows or hides the backends of the row under the cursor; `None`: the other way than now.
    fn fold(&mut self, hide: Option<bool>) {
        let rows = self.rows();
        let Some(id) = rows.get(self.place(&rows)).map(|row| row.id) else { return };
        self.cursor = Some(id);
        if hide.unwrap_or_else(|| self.unfolded.contains(&id)) {
            self.unfolded.remove(&id);
        } else {
            self.unfolded.insert(id);
        }
    }
}

/// The most first.
fn order(sort: TopSort, a: &Numbers, b: &Numbers) -> Ordering {
    let by = |of: fn(&Numbers) -> f64| of(b).total_cmp(&of(a));
    match sort {
        TopSort::New => by(|of| of.new).then(b.open.cmp(&a.open)),
        TopSort::Open => b.open.cmp(&a.open),
        TopSort::Drops => by(|of| of.drops),
        TopSort::Failures => by(|of| of.failed).then(b.unanswered.cmp(&a.unanswered)),
    }
}
