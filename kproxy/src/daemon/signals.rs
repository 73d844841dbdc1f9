//! SIGTERM and SIGINT: the first ends the daemon in order, a second one at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` with the first signal. Any later one ends the process as if nobody had listened,
/// in the signal's handler: also while the runtime's thread is at work and sees no signal.
///
/// # Errors
/// A handler cannot be registered.
pub(super) fn stop_on_signals(shutdown: CancellationToken) -> io::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        // In this order: what is registered first runs first, so the signal that sets the flag does not
        // see it set.
        flag::register_conditional_default(number, Arc::clone(&stopping))?;
        flag::register(number, Arc::clone(&stopping))?;
    }
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    /// Makes this test binary, run with it, the process that gets the signals.
    const CHILD: &str = "KPROXY_TEST_SIGNALS";

    /// A daemon that is busy for a minute when it should stop.
    fn busy_daemon() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shutdown = CancellationToken::new();
            stop_on_signals(shutdown.clone()).unwrap();
            println!("\nready");
            shutdown.cancelled().await;
            println!("\nstopping");
            std::thread::sleep(Duration::from_secs(60));
        });
    }

    fn signal_child(child: &Child, signal: Signal) {
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    #[test]
    fn a_second_signal_ends_a_daemon_that_is_busy_stopping() {
        if std::env::var_os(CHILD).is_some() {
            return busy_daemon();
        }
        for (first, second) in [
            (Signal::SIGINT, Signal::SIGINT),
            (Signal::SIGTERM, Signal::SIGTERM),
            (Signal::SIGTERM, Signal::SIGINT),
        ] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--nocapture", "a_second_signal_ends_a_daemon_that_is_busy_stopping"])
                .env(CHILD, "1")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut says = |word: &str| lines.any(|line| line.unwrap() == word);
            assert!(says("ready"));
            signal_child(&child, first);
            assert!(says("stopping"), "{first} asks it to stop");
            assert_eq!(child.try_wait().unwrap(), None, "and does not end it");
            signal_child(&child, second);
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(second as i32), "{first}, then {second}");
        }
    }
}
