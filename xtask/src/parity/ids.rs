//! All behaviours of kube-proxy by their ids: `cases/ids.yaml`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::case::Case;

/// A behaviour.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Id {
    /// Such as `VER-06`.
    pub(super) id: String,
    /// The behaviour in a sentence.
    pub(super) is: String,
    /// Why no probe can show it, if no case does.
    pub(super) reason: Option<String>,
    /// The test that shows it, if one does in place of a case.
    pub(super) shown_by: Option<String>,
}

/// A behaviour without a case.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct WithoutCase<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// Why no probe can show it.
    pub(super) reason: &'a str,
    /// The test that shows it in place of a case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shown_by: Option<&'a str>,
}

/// Reads the ids, in their order.
///
/// # Errors
/// When the file is broken.
pub(super) fn read() -> Result<Vec<Id>> {
    serde_saphyr::from_str(include_str!("cases/ids.yaml")).context("read cases/ids.yaml")
}

/// The case of an id.
pub(super) fn case_of<'a>(id: &str, cases: &'a [Case]) -> Option<&'a Case> {
    let own = cases.iter().find(|case| case.id == id);
    own.or_else(|| cases.iter().find(|case| case.covers.iter().any(|covered| covered == id)))
}

/// Ids that no case shows.
pub(super) fn without_case<'a>(ids: &'a [Id], cases: &[Case]) -> Vec<WithoutCase<'a>> {
    let shown: BTreeSet<&str> = cases.iter().flat_map(Case::ids).collect();
    ids.iter()
        .filter(|id| !shown.contains(id.id.as_str()))
        .map(|id| WithoutCase {
            id: &id.id,
            reason: id.reason.as_deref().unwrap_or_default(),
            shown_by: id.shown_by.as_deref(),
        })
        .collect()
}

/// Checks that the cases are named after ids, that every id has a case or a reason, and not both.
///
/// # Errors
/// Names the first that is wrong.
pub(super) fn check(ids: &[Id], cases: &[Case]) -> Result<()> {
    let known: BTreeSet<&str> = ids.iter().map(|id| id.id.as_str()).collect();
    let mut primary = BTreeSet::new();
    for case in cases {
        if let Some(id) = case.ids().find(|id| !known.contains(id)) {
            bail!("case {}: there is no id {id}", case.id);
        }
        let tagged = case.looks().flat_map(|(ids, _)| ids);
        if let Some(id) = tagged.into_iter().find(|id| !case.ids().any(|own| own == *id)) {
            bail!("case {}: a look is for {id}, which the case does not cover", case.id);
        }
        if !primary.insert(&case.id) {
            bail!("two cases are called {}", case.id);
        }
        if case.looks().next().is_none() {
            bail!("case {} looks at nothing", case.id);
        }
    }
    for id in ids {
        match (case_of(&id.id, cases), &id.reason) {
            (Some(case), Some(_)) => bail!("{} has a reason and the case {}", id.id, case.id),
            (None, None) => bail!("{} has no case and no reason", id.id),
            _ => {}
        }
    }
    Ok(())
}
