//! Logs: on standard error, so that standard output is data alone.

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::source;

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `filter` is a level or a list of `module=level`.
///
/// # Errors
/// A filter that cannot be understood.
pub(super) fn init(filter_text: &str, format: LogFormat) -> Result<()> {
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(color).finish().init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .init(),
    }
    Ok(())
}

/// The level for klog's verbosity (`-v`, `logging.verbosity`), by what Kubernetes uses its numbers for: up to 3 what
/// operators want, 4 and 5 for finding faults, above that every step.
pub(super) const fn level_of(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4 | 5 => "debug",
        _ => "trace",
    }
}
