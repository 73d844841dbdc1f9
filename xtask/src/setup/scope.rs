//! What commands need of the machine.

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// kproxy on labs without an API server.
    Manifests,
    /// The same, on other kernels too.
    Kernels,
    /// All that is tested and compared on this kernel.
    All,
}
