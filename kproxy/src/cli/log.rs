//! Logs: on standard error, so that standard output is data alone.

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::source;

/// Starts logging. `filter` is a level or a list of `module=level`.
///
/// # Errors
/// A filter that cannot be understood.
pub(super) fn init(filter_text: &str) -> Result<()> {
    let mut filter = EnvFilter::builder().parse(filter_text).with_context(|| {
        format!(
            "--log-level (KPROXY_LOG) `{filter_text}`: give error, warn, info, debug, trace, or a list \
             such as info,kproxy::dataplane=debug"
        )
    })?;
    // What the kube crates would log, the source reports once and by name; asking for them by name
    // brings it back.
    for directive in source::kube::LOG_DIRECTIVES {
        let module = directive.split('=').next().unwrap_or_default();
        if !filter_text.contains(module) {
            filter = filter.add_directive(directive.parse()?);
        }
    }
    let color = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .init();
    Ok(())
}
