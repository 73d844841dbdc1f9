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

/// The cases of an id.
pub(super) fn cases_of<'a>(id: &str, cases: &'a [Case]) -> impl Iterator<Item = &'a Case> {
    cases.iter().filter(move |case| case.ids().any(|shown| shown == id))
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
    let mut named = BTreeSet::new();
    for case in cases {
        if let Some(id) = case.ids().find(|id| !known.contains(id)) {
            bail!("case {}: there is no id {id}", case.name);
        }
        let tagged = case.looks().flat_map(|(ids, _)| ids);
        if let Some(id) = tagged.into_iter().find(|id| !case.ids().any(|own| own == *id)) {
            bail!("case {}: a look is for {id}, which the case does not cover", case.name);
        }
        if !named.insert(&case.name) {
            bail!("two cases are called {}", case.name);
        }
        if let Some(id) = case.ids().find(|id| !case.looks().any(|(ids, _)| case.is_for(id, ids))) {
            bail!("case {}: no look is for {id}", case.name);
        }
    }
    for id in ids {
        match (cases_of(&id.id, cases).next(), &id.reason) {
            (Some(case), Some(_)) => bail!("{} has a reason and the case {}", id.id, case.name),
            (None, None) => bail!("{} has no case and no reason", id.id),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::read;

    /// The areas of the reference on kube-proxy 1.36.3 (its sections 1.1 to 1.13), then what it owes to
    /// conntrack, and how far each counts. There is no VER-09.
    const AREAS: [(&str, u8); 14] = [
        ("SEL", 7),
        ("SVC", 21),
        ("EPS", 20),
        ("TOP", 13),
        ("VER", 21),
        ("LBR", 8),
        ("AFF", 10),
        ("MSQ", 13),
        ("NP", 11),
        ("HCN", 12),
        ("CT", 11),
        ("PKT", 12),
        ("NODE", 8),
        ("FLOW", 13),
    ];

    #[test]
    fn the_list_holds_every_id_of_the_reference_once() {
        let all = AREAS
            .iter()
            .flat_map(|(area, last)| (1..=*last).map(move |number| format!("{area}-{number:02}")));
        let all: Vec<String> = all.filter(|id| id != "VER-09").collect();
        let listed: Vec<String> = read().unwrap().into_iter().map(|id| id.id).collect();
        assert_eq!(listed, all);
    }

    #[test]
    fn every_id_has_a_case_or_a_reason() {
        let (ids, cases) = (read().unwrap(), read::all().unwrap());
        check(&ids, &cases).unwrap();
        let without = without_case(&ids, &cases);
        assert!(without.iter().all(|id| !id.reason.is_empty()), "{without:?}");
        let with = ids.iter().filter(|id| cases_of(&id.id, &cases).next().is_some());
        assert_eq!(with.count() + without.len(), ids.len());
    }

    fn problem(ids: &str, cases: &str) -> String {
        let ids: Vec<Id> = serde_saphyr::from_str(ids).unwrap();
        check(&ids, &read::parse(cases).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn gaps_are_named() {
        let ids = "[{id: VER-01, is: a}, {id: VER-02, is: b, reason: c}]";
        let look = "---\nprobe: p\nfrom: []\nto: []\nsee: s\n";
        let case = format!("case: VER-01\n{look}");
        let of = |cases: &str| problem(ids, cases);
        check(&serde_saphyr::from_str::<Vec<Id>>(ids).unwrap(), &read::parse(&case).unwrap())
            .unwrap();
        assert_eq!(of(&format!("{case}---\n{case}")), "two cases are called VER-01");
        assert_eq!(of("case: VER-01\n"), "case VER-01: no look is for VER-01");
        assert_eq!(of(&format!("case: VER-02\n{look}")), "VER-01 has no case and no reason");
        let both = format!("{case}---\ncase: VER-02\n{look}");
        assert_eq!(of(&both), "VER-02 has a reason and the case VER-02");
        let unknown = format!("{case}---\ncase: VER-03\n{look}");
        assert_eq!(of(&unknown), "case VER-03: there is no id VER-03");
        let tagged = look.replace("from", "ids: [VER-02]\nfrom");
        assert_eq!(
            of(&format!("case: VER-01\n{tagged}")),
            "case VER-01: a look is for VER-02, which the case does not cover"
        );
    }
}
