//! `kproxy explain` for people.

use std::io::{self, Write};

use super::answers::{Answer, Answers, OfDialled};
use super::steps::standing;
use crate::cli::dump::columns::endpoint;
use crate::cli::render::table::{Cell, Column, Give};
use crate::cli::render::{Look, Tone, prose, table};
use crate::dataplane::explain::{Candidate, SeenAs, Sender, Standing, Verdict};

/// Column where the steps begin.
const STEPS: usize = 13;
/// More endpoints than this are only shown by `-o wide`.
const MOST: usize = 10;

/// Prints a block for each thing that is dialled, then how fresh the view is.
///
/// # Errors
/// Only those of the writer.
pub(crate) fn print(
    out: &mut dyn Write,
    look: &Look,
    answers: &Answers,
    wide: bool,
) -> io::Result<()> {
    let look = if wide { &Look { width: None, ..*look } } else { look };
    for (i, dialled) in answers.dialled.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        block(out, look, dialled, wide)?;
    }
    let told = answers.state.told();
    if !told.is_empty() {
        let tone = if answers.state.is_stale() { Tone::Warn } else { Tone::Title };
        let title = if answers.state.is_stale() { "The view may be stale" } else { "Reported" };
        writeln!(out, "\n{}", look.paint(tone, title))?;
        for sentence in told {
            prose::hanging(out, look, "- ", 2, &sentence)?;
        }
    }
    Ok(())
}

fn block(out: &mut dyn Write, look: &Look, dialled: &OfDialled, wide: bool) -> io::Result<()> {
    let at = endpoint(dialled.address, dialled.port);
    let whose = dialled.service.as_ref().map_or_else(
        || "belongs to no Service".to_owned(),
        |service| format!("is Service {service}"),
    );
    let title = format!("{at}/{} {whose}", dialled.protocol);
    let mut lines = Vec::new();
    prose::write(&mut lines, look, 0, &title)?;
    let title = String::from_utf8_lossy(&lines);
    writeln!(out, "{}", look.paint(Tone::Title, title.trim_end()))?;
    if !dialled.nearest.is_empty() {
        let near = format!("Did you mean {}?", dialled.nearest.join(", or "));
        prose::write(out, look, 0, &near)?;
    }
    let mut rest: Vec<&Answer> = dialled.answers.iter().collect();
    let mut advice: Vec<&str> = Vec::new();
    while let Some(first) = rest.first().copied() {
        let (same, other): (Vec<_>, Vec<_>) =
            rest.iter().partition(|answer| is_alike(answer, first));
        answer(out, look, &same, first, wide)?;
        let new = first.advice.iter().filter(|text| !advice.contains(&text.as_str()));
        let new: Vec<_> = new.map(String::as_str).collect();
        advice.extend(new);
        rest = other;
    }
    if !advice.is_empty() {
        writeln!(out)?;
    }
    for text in advice {
        prose::hanging(out, look, "> ", 2, text)?;
    }
    Ok(())
}

/// Whether the same is told of both senders.
fn is_alike(a: &Answer, b: &Answer) -> bool {
    (a.told.verdict, &a.steps, &a.told.candidates) == (b.told.verdict, &b.steps, &b.told.candidates)
}

fn answer(
    out: &mut dyn Write,
    look: &Look,
    same: &[&Answer],
    answer: &Answer,
    wide: bool,
) -> io::Result<()> {
    let from: Vec<_> = same.iter().map(|answer| sender(&answer.from)).collect();
    let (word, tone) = verdict(answer.told.verdict);
    writeln!(out, "\nFrom {}: {}", from.join(", "), look.paint(tone, word))?;
    for step in &answer.steps {
        let lead = look.paint(Tone::Dim, format_args!("  {:1$}", step.step, STEPS - 2));
        prose::hanging(out, look, &lead, STEPS, &step.text)?;
    }
    let candidates = &answer.told.candidates;
    let shown = if wide { candidates.len() } else { candidates.len().min(MOST) };
    if shown > 0 {
        writeln!(out)?;
        let indented = Look { width: look.width.map(|width| width.saturating_sub(2)), ..*look };
        let mut lines = Vec::new();
        table::write(&mut lines, &indented, COLUMNS, wide, &candidates[..shown])?;
        for line in String::from_utf8_lossy(&lines).lines() {
            writeln!(out, "  {line}")?;
        }
        if shown < candidates.len() {
            writeln!(out, "  {} more: -o wide", candidates.len() - shown)?;
        }
    }
    Ok(())
}

const COLUMNS: &[Column<Candidate>] = &[
    Column::new("ENDPOINT", |of: &Candidate| Cell::new(endpoint(of.addr, of.port)))
        .give(Give::Last),
    Column::new("NODE", |of: &Candidate| Cell::new(if of.local { "this" } else { "other" })),
    Column::new("CONNECTION", |of: &Candidate| {
        let tone = if of.standing == Standing::May { Tone::Good } else { Tone::Dim };
        Cell::toned(standing(of.standing), tone)
    }),
    Column::new("SEES AS ITS CLIENT", |of: &Candidate| {
        Cell::new(match of.seen_as {
            Some(SeenAs::Client) => "the sender",
            Some(SeenAs::Node) => "this node",
            Some(SeenAs::Masquerade) => "this node, by netfilter",
            Some(SeenAs::Frontend) => "the frontend (its own call)",
            None => "-",
        })
    }),
];

fn sender(sender: &Sender) -> String {
    match sender {
        Sender::Node { source: None } => "this node".to_owned(),
        Sender::Node { source: Some(ip) } => format!("this node, bound to {ip}"),
        Sender::Pod { address: None, .. } => "a pod here".to_owned(),
        Sender::Pod { address: Some(ip), .. } => format!("the pod {ip} here"),
        Sender::Outside { address: None } => "outside".to_owned(),
        Sender::Outside { address: Some(ip) } => format!("{ip} outside"),
    }
}

const fn verdict(verdict: Verdict) -> (&'static str, Tone) {
    match verdict {
        Verdict::Answered => ("answered", Tone::Good),
        Verdict::Depends => ("depends on the sender's address", Tone::Warn),
        Verdict::Refused => ("refused", Tone::Bad),
        Verdict::Dropped => ("dropped", Tone::Bad),
        Verdict::LeftAlone => ("left alone", Tone::Warn),
    }
}
