//! The name of this node, as kube-proxy finds it (`GetHostname` in kubernetes `pkg/util/node/node.go`).

use std::ffi::OsString;

/// Why the node has no name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name is blank.
    #[error("the name is blank")]
    Blank,
    /// The host name cannot be read.
    #[error("read the host name; give the node name with --hostname-override")]
    Read(#[source] nix::Error),
    /// The host name is no text.
    #[error("the host name {0:?} is not UTF-8; give the node name with --hostname-override")]
    NotText(OsString),
    /// The host name is blank.
    #[error(
        "the host name is blank; give the name of this node's Node object with --hostname-override"
    )]
    NoHostName,
}

/// A name as the API server has it: white space trimmed, lower case.
///
/// # Errors
/// It is blank.
pub(crate) fn normalize(name: &str) -> Result<String, Error> {
    match name.trim() {
        "" => Err(Error::Blank),
        name => Ok(name.to_lowercase()),
    }
}

/// The name of a node that nobody has named: its host name.
///
/// # Errors
/// There is no usable host name.
pub(crate) fn of_host() -> Result<String, Error> {
    let name = nix::unistd::gethostname().map_err(Error::Read)?;
    let name = name.into_string().map_err(Error::NotText)?;
    normalize(&name).or(Err(Error::NoHostName))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_in_lower_case() {
        assert_eq!(normalize(" Node-A\n").unwrap(), "node-a");
        assert!(normalize("  ").is_err());
    }

    #[test]
    fn a_node_without_a_name_has_its_host_name() {
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        assert_eq!(of_host().unwrap(), host.trim().to_lowercase());
    }
}
