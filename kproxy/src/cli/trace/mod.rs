//! `kproxy trace`: what the programs decide, as they do.
//!
//! `wanted` turns what was typed into what the programs are asked for and what is shown of it, `told` puts names to
//! an event, `print` shows it.

pub(super) mod print;
pub(super) mod told;
pub(super) mod wanted;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::print::Printer;
use self::told::Names;
use self::wanted::Wanted;
use super::args::TraceArgs;
use super::exit::Exit;
use super::render::Look;
use crate::dataplane::listen::{EventRow, Listener};
use crate::dataplane::read::Pins;

/// How often the programs are told that somebody still listens.
const RENEWAL: Duration = Duration::from_secs(1);

/// Listens and prints, until the time is up, enough was seen, or a signal comes.
///
/// # Errors
/// Somebody listens already, there is no such Service, maps that cannot be opened, and those of the writer.
pub(super) fn run(args: TraceArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let pins = Pins::open(&args.pins.bpffs_root)?;
    let mut names = Names::new(pins)?;
    let wanted = Wanted::new(&args, &mut names)?;
    // A second signal ends it whatever it does.
    let stop = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        flag::register_conditional_default(number, Arc::clone(&stop))
            .and_then(|_| flag::register(number, Arc::clone(&stop)))
            .context("could not listen for signals")?;
    }
    let mut listener = Listener::new(&args.pins.bpffs_root, wanted.trace(args.rate))?;
    let mut printer = Printer::new(look, args.output);
    let start = Instant::now();
    let (mut renewed, mut untold) = (start, 0);
    let mut left = args.count.unwrap_or(u64::MAX);
    let ends = args.timeout.map(|timeout| start + timeout.0);
    loop {
        while left > 0
            && let Some(event) = listener.next()
        {
            let row = EventRow::from(&event);
            if wanted.shows(&row) {
                printer.event(out, &names.told(row))?;
                left -= 1;
            }
            if renewed.elapsed() >= RENEWAL {
                break;
            }
        }
        out.flush()?;
        let now = Instant::now();
        let is_over =
            left == 0 || stop.load(Ordering::Relaxed) || ends.is_some_and(|ends| ends <= now);
        if is_over || renewed.elapsed() >= RENEWAL {
            let so_far = listener.untold();
            printer.untold(out, so_far - untold, args.rate)?;
            untold = so_far;
        }
        if is_over {
            return Ok(Exit::Fine);
        }
        if renewed.elapsed() >= RENEWAL {
            listener.renew();
            renewed = now;
        }
        let rest = ends.map_or(RENEWAL, |ends| ends.saturating_duration_since(now));
        listener.wait(rest.min(RENEWAL.saturating_sub(renewed.elapsed())))?;
    }
}
