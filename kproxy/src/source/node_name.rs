//! The name of this node.

use anyhow::Context as _;

/// The node name as kube-proxy finds it: the override, else the host name; white space trimmed,
/// lower case (`GetHostname` in kubernetes `pkg/util/node/node.go`).
///
/// An empty override counts as none; one of nothing but blanks is refused.
pub fn node_name(hostname_override: Option<&str>) -> anyhow::Result<String> {
    let name = match hostname_override {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => nix::unistd::gethostname()
            .context("read the host name; give the node name with --hostname-override")?
            .into_string()
            .map_err(|name| anyhow::anyhow!("the host name {name:?} is not UTF-8"))
            .context("give the node name with --hostname-override")?,
    };
    let name = name.trim();
    anyhow::ensure!(
        !name.is_empty(),
        "the node name is empty; give the name of this node's Node object with --hostname-override"
    );
    Ok(name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn override_is_trimmed_and_lower_cased() {
        assert_eq!(node_name(Some(" Node-A\n")).unwrap(), "node-a");
    }

    #[test]
    fn blank_override_is_refused() {
        let error = node_name(Some("  ")).unwrap_err().to_string();
        assert!(error.contains("--hostname-override"), "{error}");
    }

    #[test]
    fn without_override_the_host_name_counts() {
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        assert_eq!(node_name(None).unwrap(), host.trim().to_lowercase());
        assert_eq!(node_name(Some("")).unwrap(), host.trim().to_lowercase());
    }
}
