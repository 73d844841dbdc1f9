//! How a verb ends.

/// How a verb ended; errors apart, which exit with 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Fine.
    Fine,
    /// The answer is no.
    No,
}
