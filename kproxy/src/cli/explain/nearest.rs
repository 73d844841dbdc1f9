//! What may have been meant.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use strsim::damerau_levenshtein;

use super::dialled::{Dialled, frontends};
use crate::dataplane::explain::View;
use crate::plan::ServicePortId;

/// So many are named at most.
const MOST: usize = 3;

/// The names that are most like `typed`: with no more than a third of it to be changed, or two letters.
pub(in crate::cli) fn names<'a>(
    all: impl IntoIterator<Item = &'a ServicePortId>,
    typed: &str,
) -> Vec<String> {
    let full = typed.contains('/');
    let all: BTreeSet<(&str, &str)> =
        all.into_iter().map(|id| (id.namespace.as_str(), id.name.as_str())).collect();
    let most = (typed.chars().count() / 3).max(2);
    let distance = |(namespace, name): (&str, &str)| {
        let whole = damerau_levenshtein(typed, &format!("{namespace}/{name}"));
        // The right name in the wrong namespace is as near as can be.
        let bare = typed.rsplit('/').next().unwrap_or(typed);
        let alone = damerau_levenshtein(bare, name) + usize::from(full);
        whole.min(alone)
    };
    let mut near: Vec<_> = all
        .into_iter()
        .map(|of| (distance(of), of))
        .filter(|(distance, _)| *distance <= most)
        .collect();
    near.sort_unstable();
    near.into_iter()
        .take(MOST)
        .map(|(_, (namespace, name))| format!("{namespace}/{name}"))
        .collect()
}

/// `; did you mean a or b?`
pub(in crate::cli) fn meant(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// What the same address has at other ports and protocols; else the frontends that are most like it.
pub(super) fn frontends_like(view: &View, dialled: &Dialled) -> Vec<String> {
    let all = frontends(view);
    let text = |at: SocketAddr, of: &Dialled| {
        let name = of.service.as_ref().map_or_else(|| "?".to_owned(), ServicePortId::text);
        format!("{at}/{} {name}", of.protocol.name())
    };
    let same: Vec<_> = all.iter().filter(|other| other.at.ip() == dialled.at.ip()).collect();
    if !same.is_empty() {
        let more = same.len().saturating_sub(MOST);
        let mut named: Vec<_> = same.iter().take(MOST).map(|other| text(other.at, other)).collect();
        if more > 0 {
            named.push(format!(
                "{more} more (`kproxy dump frontends --address {}`)",
                dialled.at.ip()
            ));
        }
        return named;
    }
    // Without a port the address alone counts.
    let typed = |at: SocketAddr| match dialled.at.port() {
        0 => at.ip().to_string(),
        _ => at.to_string(),
    };
    let mut near: Vec<_> = all
        .iter()
        .map(|other| (damerau_levenshtein(&typed(dialled.at), &typed(other.at)), other))
        .filter(|(distance, _)| *distance <= 2)
        .collect();
    near.sort_by_key(|(distance, other)| (*distance, other.at));
    near.into_iter().take(MOST).map(|(_, other)| text(other.at, other)).collect()
}
