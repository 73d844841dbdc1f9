//! `kproxy top`: Services by what goes on at them.
//!
//! `rates` makes rows of two looks at the maps, `state` holds what is on the screen and takes keys, `screen` draws
//! it, `plain` prints it where there is no terminal.

pub(super) mod plain;
pub(super) mod rates;
pub(super) mod screen;
pub(super) mod state;

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::flag;

use self::rates::{Rates, Sample};
use self::state::{State, Then};
use super::args::TopArgs;
use super::exit::Exit;
use super::render::Look;
use crate::dataplane::read::Pins;

/// The shortest time between two looks at the maps.
const SHORTEST: Duration = Duration::from_millis(500);
/// How long a key or a signal may have to wait for its effect.
const ATTENTIVE: Duration = Duration::from_millis(200);

/// Shows the screen until it is left, or prints tables.
///
/// # Errors
/// Maps that cannot be read, a terminal that cannot be used, and those of the writer.
pub(super) fn run(args: TopArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let pins = Pins::open(&args.pins.bpffs_root)?;
    let interval = args.interval.0.max(SHORTEST);
    let iterations = if args.once { Some(1) } else { args.iterations };
    let is_terminal = io::stdout().is_terminal();
    let since = Instant::now();
    let mut before = Sample::read(&pins, since)?;
    let mut state = State::new(args.sort);
    if let Some(iterations) = iterations.or((!is_terminal).then_some(1)) {
        for number in 0..iterations {
            thread::sleep(interval);
            let now = Sample::read(&pins, since)?;
            state.rates = Rates::between(&before, &now);
            before = now;
            if number > 0 {
                writeln!(out)?;
            }
            plain::print(out, look, &state)?;
            out.flush()?;
        }
        return Ok(Exit::Fine);
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be used; try --once")?;
    let result = watch(&mut terminal, &pins, (since, before), interval, &mut state);
    ratatui::try_restore().context("the terminal cannot be set back; try `reset`")?;
    result.map(|()| Exit::Fine)
}

/// Reads, draws and takes keys until it is left.
fn watch(
    terminal: &mut DefaultTerminal,
    pins: &Pins,
    (since, mut before): (Instant, Sample),
    interval: Duration,
    state: &mut State,
) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGHUP] {
        flag::register(number, Arc::clone(&stop)).context("could not listen for signals")?;
    }
    let mut next = since + interval.min(Duration::from_secs(1));
    loop {
        terminal.draw(|frame| screen::draw(frame, state, interval))?;
        let rest = next.saturating_duration_since(Instant::now());
        if event::poll(rest.min(ATTENTIVE))?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && state.key(key) == Then::Quit
        {
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if Instant::now() >= next {
            let now = Sample::read(pins, since)?;
            state.rates = Rates::between(&before, &now);
            // A node with very many flows is read less often, and never for more than a fifth of the time.
            next = Instant::now() + interval.max(now.took * 4);
            before = now;
        }
    }
}
