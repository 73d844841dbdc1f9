//! One line an event: as JSON, or in columns that grow with what they have held. On a terminal that is too narrow
//! for them an event is broken into lines.

use std::io::{self, Write};
use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::json;

use super::told::Told;
use crate::cli::args::TraceFormat;
use crate::cli::render::{Look, Tone, note, printable, prose};

/// Columns between two columns.
const GAP: &str = "  ";
/// Titles, and how wide each column is at first.
const COLUMNS: [(&str, usize); 6] =
    [("TIME", 12), ("AT", 13), ("VERDICT", 10), ("FROM", 26), ("DIALLED", 22), ("SERVICE", 24)];
/// Where an event goes on that is broken into lines.
const BROKEN: usize = 14;

/// Prints one event after the other.
pub(crate) struct Printer {
    look: Look,
    format: TraceFormat,
    widths: [usize; COLUMNS.len()],
    has_title: bool,
}

impl Printer {
    /// For this terminal, or for none.
    pub(crate) fn new(look: &Look, format: TraceFormat) -> Self {
        Self { look: *look, format, widths: COLUMNS.map(|(_, width)| width), has_title: false }
    }

    /// Prints an event.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn event(&mut self, out: &mut dyn Write, told: &Told) -> io::Result<()> {
        if self.format == TraceFormat::Json {
            serde_json::to_writer(&mut *out, told)?;
            return writeln!(out);
        }
        let (cells, last) = cells(told);
        let line: usize = self.widths.iter().map(|width| width + GAP.len()).sum();
        let tone = match told.verdict {
            "translated" => Tone::Good,
            "refused" => Tone::Warn,
            _ => Tone::Bad,
        };
        if self.look.width.is_some_and(|width| width < line + 21) {
            let [time, at, verdict, from, dialled, service] = cells;
            let lead = format!("{time}{GAP}");
            let of = told.service.as_ref().map_or_else(String::new, |_| format!(" of {service}"));
            let text = format!("{at} {verdict}: {from} dials {dialled}{of}: {last}");
            return prose::hanging(out, &self.look, &self.look.paint(tone, lead), BROKEN, &text);
        }
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.len());
        }
        if !self.has_title {
            self.has_title = true;
            let titles = COLUMNS.map(|(title, _)| title.to_owned());
            let line = self.line(&titles, "BACKEND OR REASON", None);
            writeln!(out, "{}", self.look.paint(Tone::Title, line))?;
        }
        writeln!(out, "{}", self.line(&cells, &last, Some(tone)))
    }

    fn line(&self, cells: &[String; COLUMNS.len()], last: &str, verdict: Option<Tone>) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            let padded = format!("{cell:width$}");
            match verdict {
                Some(tone) if at == 2 => line.push_str(&self.look.paint(tone, padded)),
                _ => line.push_str(&padded),
            }
            line.push_str(GAP);
        }
        line + last
    }

    /// Says how many events were wanted and not told since the last call.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn untold(&self, out: &mut dyn Write, count: u64, rate: u32) -> io::Result<()> {
        match (count, self.format) {
            (0, _) => {}
            (_, TraceFormat::Json) => {
                serde_json::to_writer(
                    &mut *out,
                    &json!({"time": Timestamp::now(), "lost": count}),
                )?;
                writeln!(out)?;
            }
            (_, TraceFormat::Table) => note(format_args!(
                "{count} more were not told: each CPU tells {rate} a second (--rate)"
            )),
        }
        Ok(())
    }
}

/// The columns, and what comes behind them.
fn cells(told: &Told) -> ([String; COLUMNS.len()], String) {
    let time = told.time.strftime("%H:%M:%S%.3f").to_string();
    let at = match &told.device {
        Some(device) => format!("{} {}", told.hook, printable(device)),
        None => told.hook.to_owned(),
    };
    let from = match (told.source, told.source_port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, _) if told.pid.is_some() => "node".to_owned(),
        (None, _) => "?".to_owned(),
    };
    let process = told.process.as_ref().zip(told.pid);
    let process = process.map(|(name, pid)| format!(" {}[{pid}]", printable(name)));
    let dialled = format!("{}/{}", told.frontend, told.protocol.unwrap_or("?"));
    let service = told.service.as_ref().map_or_else(|| "-".to_owned(), |id| printable(&id.text()));
    let last = match (told.backend, told.reason) {
        (Some(backend), _) => backend.to_string(),
        (None, reason) => reason.unwrap_or("?").to_owned(),
    };
    let cells =
        [time, at, told.verdict.to_owned(), from + &process.unwrap_or_default(), dialled, service];
    (cells, last)
}
