//! What went wrong with one thing while the rest went on.

/// What could not be found out or done.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct Failure {
    what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Failure {
    pub(super) fn new(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}
