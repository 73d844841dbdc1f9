//! Logs: on standard error, so that standard output is data alone.

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is a level or a list of `module=level`.
///
/// # Errors
/// A filter that cannot be understood.
pub fn init(filter: &str) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).with_context(|| {
        format!(
            "--log-level (KPROXY_LOG) `{filter}`: give error, warn, info, debug, trace, or a list \
             such as info,kproxy::dataplane=debug"
        )
    })?;
    let color = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .init();
    Ok(())
}
