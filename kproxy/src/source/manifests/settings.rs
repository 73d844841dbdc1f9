//! What the source is run with.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Settings of the manifests source.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Folder to read. Files in folders below it do not count.
    pub dir: PathBuf,
    /// Name of this node in the cluster.
    pub node_name: String,
    /// Namespaces whose Pods count: those that are opted out of the socket path.
    pub namespaces: BTreeSet<String>,
}
