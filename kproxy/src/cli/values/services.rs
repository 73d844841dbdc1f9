//! The Services that a shell may complete to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use clap_complete::engine::CompletionCandidate;

use crate::dataplane::read::Pins;
use crate::plan::ServicePortId;

/// Where the maps are pinned unless told otherwise.
pub(in crate::cli) const BPFFS_ROOT: &str = "/sys/fs/bpf";

/// Services of the maps that begin so, by name or by namespace and name.
pub(in crate::cli) fn services(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = Pins::open(Path::new(BPFFS_ROOT)).ok().and_then(|pins| pins.names().ok());
    let names = names.into_iter().flatten().map(|(_, id)| id);
    beginning(&typed.to_string_lossy(), names).into_iter().map(CompletionCandidate::new).collect()
}

/// The names that begin with what is typed: with their namespace, unless it is the end of a name that is alone.
fn beginning(typed: &str, all: impl IntoIterator<Item = ServicePortId>) -> BTreeSet<String> {
    let candidate = |ServicePortId { namespace, name, .. }: ServicePortId| {
        let whole = format!("{namespace}/{name}");
        if whole.starts_with(typed) {
            return Some(whole);
        }
        name.starts_with(typed).then_some(name)
    };
    all.into_iter().filter_map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use crate::plan::Protocol;

    #[test]
    fn services_are_found_by_name_and_by_namespace() {
        let id = |namespace: &str, name: &str, port: &str| ServicePortId {
            namespace: namespace.into(),
            name: name.into(),
            port: port.into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let all = || [id("shop", "web", "http"), id("shop", "web", "https"), id("web", "shop", "")];
        let found = |typed: &str| beginning(typed, all()).into_iter().collect::<Vec<_>>();
        assert_eq!(found(""), ["shop/web", "web/shop"]);
        assert_eq!(found("sh"), ["shop", "shop/web"]);
        assert_eq!(found("web/"), ["web/shop"]);
        assert_eq!(found("x"), Vec::<String>::new());
    }
}
