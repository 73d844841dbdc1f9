//! Of the daemon and its maps.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cli::dump;
use crate::cli::render::json;
use crate::cli::{config, run, started, status, verify};
use crate::daemon::{RunDir, Settings};
use crate::dataplane::read::Pins;

/// Longest wait for the metrics.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn status(pins: &Pins, run_dir: &RunDir) -> Result<String> {
    Ok(json::text(&status::collect(pins, run_dir)?)?)
}

pub(super) fn verify(pins: &Pins, run_dir: &RunDir) -> Result<String> {
    Ok(json::text(&verify::maps_alone(pins, run_dir)?)?)
}

pub(super) fn dump(pins: &Pins) -> Result<String> {
    dump::everything(pins)
}

pub(super) fn programs(pins: &Pins) -> Result<String> {
    Ok(json::text(&pins.links()?)?)
}

/// What `kproxy config` prints with the daemon's command line.
pub(super) fn config(run_dir: &RunDir) -> Result<String> {
    let started = run_dir.started()?.context(
        "the run folder does not say how the daemon was started: it has not run since kproxy says so",
    )?;
    let (args, matches) = started::parsed(&started)?;
    Ok(json::text(&config::rows(&matches, &run::in_force(&args)?))?)
}

/// Its command line is in the configuration, its environment is nobody's business.
pub(super) fn process(run_dir: &RunDir) -> Result<String> {
    let pid = run_dir.running()?.context("the daemon is not running")?;
    let folder = Path::new("/proc").join(pid.to_string());
    let mut text = String::new();
    for file in ["status", "limits", "cgroup"] {
        let path = folder.join(file);
        let content =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text += &format!("==> {file} <==\n{content}\n");
    }
    Ok(text)
}

pub(super) fn metrics(settings: Option<&Settings>) -> Result<String> {
    let settings = settings.context("the run folder does not say where they are served")?;
    let address = settings.metrics_address.context("they are served nowhere")?;
    let told = || format!("ask {address} for /metrics");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(told)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(told)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => bail!("{address} has no metrics to tell"),
    }
}
