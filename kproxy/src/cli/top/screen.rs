//! Draws the screen. What is drawn follows from the state and the size alone.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as Shown, Table, TableState};

use super::plain::{protocol, rate, serving, size};
use super::rates::{Backend, Numbers, Row};
use super::state::State;
use crate::cli::args::TopSort;
use crate::cli::render::printable;
use crate::cli::render::table::shorten;

/// From this width on there is room for what is dialled, packets and bytes.
const WIDE: u16 = 130;
/// Widths of the columns behind the names.
const NARROW_COLUMNS: &[u16] = &[9, 8, 8, 8, 8, 10];
const WIDE_COLUMNS: &[u16] = &[9, 24, 8, 8, 8, 8, 8, 10, 10, 9];
/// No name is shortened below this.
const NARROWEST: u16 = 12;

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &State, interval: Duration) {
    let areas = [Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(areas).areas(frame.area());
    frame.render_widget(head(state, interval), top);
    table(frame, middle, state);
    frame.render_widget(foot(state), bottom);
    if state.help {
        help(frame);
    }
}

fn head(state: &State, interval: Duration) -> Paragraph<'static> {
    let all = &state.rates.all;
    let title = Line::from(vec![
        Span::from("kproxy top").bold(),
        Span::from(format!(
            "  {} Services  {} flows open  every {}s, read in {} ms",
            state.rates.rows.len(),
            all.open,
            interval.as_secs_f64(),
            state.rates.took.as_millis(),
        )),
    ]);
    let sums = Line::from(vec![
        Span::from(format!("{} new/s  ", rate(all.new))),
        lost(format!("{} drops/s", rate(all.drops)), all.drops),
        Span::from("  "),
        lost(format!("{} failed/s", rate(all.failed)), all.failed),
        Span::from("  "),
        lost(format!("{} unanswered", all.unanswered), all.unanswered as f64),
    ]);
    Paragraph::new(vec![title, sums])
}

fn foot(state: &State) -> Paragraph<'static> {
    if state.typing || !state.filter.is_empty() {
        let cursor = if state.typing { "_" } else { "  (Esc: all again)" };
        return Paragraph::new(format!("/{}{cursor}", printable(&state.filter)));
    }
    Paragraph::new("q quit  arrows move, unfold  n o d f sort  / filter  ? help").dim()
}

fn table(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let is_wide = area.width >= WIDE;
    let columns = if is_wide { WIDE_COLUMNS } else { NARROW_COLUMNS };
    let rest: u16 = columns.iter().map(|width| width + 1).sum();
    let room = area.width.saturating_sub(rest).max(NARROWEST);
    let widths = [room].into_iter().chain(columns.iter().copied()).map(Constraint::Length);
    let rows = state.rows();
    let place = state.place(&rows);
    let (mut lines, mut selected) = (Vec::new(), 0);
    for (number, row) in rows.iter().enumerate() {
        if number == place {
            selected = lines.len();
        }
        let is_unfolded = state.unfolded.contains(&row.id);
        lines.push(of_service(row, is_unfolded, is_wide, room.into()));
        if is_unfolded {
            let backends = state.backends(row);
            lines.extend(backends.into_iter().map(|backend| of_backend(backend, is_wide)));
        }
    }
    let table = Table::new(lines, widths)
        .header(header(state.sort, is_wide))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1);
    let mut at = TableState::new().with_selected(Some(selected));
    frame.render_stateful_widget(table, area, &mut at);
}

fn header(sort: TopSort, is_wide: bool) -> Shown<'static> {
    let title = |text: &'static str, by: Option<TopSort>| {
        let text = Text::from(text);
        let text = if by.is_some() { text.alignment(Alignment::Right) } else { text };
        let style = Style::new().add_modifier(Modifier::BOLD);
        let is_by = by == Some(sort);
        Cell::new(text).style(if is_by { style.add_modifier(Modifier::UNDERLINED) } else { style })
    };
    let number = |text| Cell::new(Text::from(text).alignment(Alignment::Right)).bold();
    let mut cells = vec![title("SERVICE", None), title("PROTOCOL", None)];
    if is_wide {
        cells.extend([title("DIALLED", None), number("BACKENDS")]);
    }
    cells.extend([
        title("NEW/S", Some(TopSort::New)),
        title("OPEN", Some(TopSort::Open)),
        title("DROPS/S", Some(TopSort::Drops)),
        title("FAILED/S", Some(TopSort::Failures)),
        number("UNANSWERED"),
    ]);
    if is_wide {
        cells.extend([number("PACKETS/S"), number("BYTES/S")]);
    }
    Shown::new(cells)
}

fn of_service(row: &Row, is_unfolded: bool, is_wide: bool, room: usize) -> Shown<'static> {
    let sign = if is_unfolded { '-' } else { '+' };
    let name = row.service.as_ref().map_or_else(|| format!("#{}", row.id), |id| id.text());
    let mut cells = vec![
        Cell::from(format!("{sign} {}", shorten(&printable(&name), room.saturating_sub(2)))),
        Cell::from(protocol(row)),
    ];
    if is_wide {
        let dialled = row.dialled.map_or_else(|| "-".to_owned(), |at| at.to_string());
        cells.extend([Cell::from(dialled), right(serving(row).to_string())]);
    }
    cells.extend(numbers(&row.numbers, true));
    if is_wide {
        cells.extend([right(rate(row.numbers.packets)), right(size(&row.numbers))]);
    }
    Shown::new(cells)
}

fn of_backend(backend: &Backend, is_wide: bool) -> Shown<'static> {
    let place = match (backend.serves, backend.local) {
        (false, _) => "leaving",
        (true, true) => "here",
        (true, false) => "elsewhere",
    };
    let mut cells = vec![Cell::from(format!("    {}", backend.at)), Cell::from(place)];
    if is_wide {
        cells.extend([Cell::from(""), Cell::from("")]);
    }
    cells.extend(numbers(&backend.numbers, false));
    Shown::new(cells).dim()
}

/// `counted`: drops and failures are known.
fn numbers(of: &Numbers, counted: bool) -> [Cell<'static>; 5] {
    let bad = |text: String, count: f64| {
        if counted { aligned(lost(text, count)) } else { right("-".to_owned()) }
    };
    [
        right(rate(of.new)),
        right(of.open.to_string()),
        bad(rate(of.drops), of.drops),
        bad(rate(of.failed), of.failed),
        aligned(lost(of.unanswered.to_string(), of.unanswered as f64)),
    ]
}

/// A number that is best 0.
fn lost(text: String, count: f64) -> Span<'static> {
    if count == 0.0 { Span::from(text) } else { Span::from(text).red() }
}

fn aligned(span: Span<'static>) -> Cell<'static> {
    Cell::from(Line::from(span).alignment(Alignment::Right))
}

fn right(text: String) -> Cell<'static> {
    aligned(Span::from(text))
}

fn help(frame: &mut Frame<'_>) {
    const LINES: [&str; 19] = [
        "up down PgUp PgDn   move",
        "Enter right left    show or hide the backends",
        "n o d f             sort by new, open, drops, failed",
        "/                   only Services with this in their name;",
        "                    Enter ends it, Esc clears it",
        "q Ctrl-C            end",
        "",
        "NEW/S       connections given a backend, by sockets",
        "            and by packets; of backends: flows alone",
        "OPEN        flows of the packet path. Sockets that got",
        "            their backend at connect() have none",
        "DROPS/S     packets and calls refused or dropped",
        "            (kproxy dump counters has the reasons)",
        "FAILED/S    flows that the backend refused or did",
        "            not answer until their time was up",
        "UNANSWERED  open flows without an answer for 3 s",
        "leaving     a backend that only keeps what it has",
        "",
        "Any key closes this.",
    ];
    let area = frame.area();
    let (width, height) = (62.min(area.width), (LINES.len() as u16 + 2).min(area.height));
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let lines: Vec<Line<'_>> = LINES.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" kproxy top ")), area);
}
