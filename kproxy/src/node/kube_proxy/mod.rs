//! What kube-proxy has left on this node: rules of each of its modes, found and removed as its own `--cleanup` does,
//! and nothing of anybody else's.

mod failure;
mod iptables;
mod ipvs;
mod process;
mod tool;

use std::collections::BTreeSet;

pub(crate) use self::process::{Running, running};
use self::{
    failure::Failure,
    iptables::{Found, Ruleset},
    ipvs::Ipvs,
};
use super::nft;
use crate::model::Family;

/// Its tables of mode nftables.
const TABLES: [&str; 2] = ["ip kube-proxy", "ip6 kube-proxy"];
/// Tables of iptables-nft, which `iptables-save` shows.
const IPTABLES: [&str; 5] = [" nat", " filter", " mangle", " raw", " security"];

/// What is there of kube-proxy's.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    tables: Vec<&'static str>,
    iptables: Vec<Ruleset>,
    ipvs: Ipvs,
    /// Families whose addresses rules of somebody else translate, too.
    others_translate: BTreeSet<Family>,
}

impl Rules {
    /// Looks for it in this network namespace; and where it could not look.
    pub(crate) fn find() -> (Self, Vec<Failure>) {
        let (mut failures, mut present) = (Vec::new(), Vec::new());
        let mut ask = |what: &str, answer: Result<String, nft::Error>| match answer {
            Ok(text) => text,
            // Who has no nft writes no rules with it.
            Err(nft::Error::NoNft(_)) => String::new(),
            Err(error) => {
                failures.push(Failure::new(what, error));
                String::new()
            }
        };
        let tables = ask("look for tables of kube-proxy", nft::list_tables());
        let chains = ask("look for chains of kube-proxy", nft::list_chains());
        present.extend(TABLES.into_iter().filter(|name| nft::is_listed(&tables, name)));
        let (others, foreign) = others_translate(&tables);
        let Found { rulesets: iptables, mut others_translate, failures: unseen } =
            iptables::find(&chains);
        failures.extend(others.into_iter().chain(unseen));
        others_translate.extend(foreign);
        let uses_sets = iptables.iter().flat_map(|set| &set.tables).any(|table| table.uses_sets);
        let (ipvs, unseen) = Ipvs::find(uses_sets);
        failures.extend(unseen);
        (Self { tables: present, iptables, ipvs, others_translate }, failures)
    }

    /// What is there, in lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let iptables = self.iptables.iter().flat_map(Ruleset::lines);
        iptables
            .chain(self.tables.iter().map(|name| table(name)))
            .chain(self.ipvs.lines())
            .collect()
    }

    /// What of it stays, or looks like it and is somebody else's.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.iptables.iter().flat_map(Ruleset::kept).chain(self.ipvs.kept()).collect()
    }

    /// Families whose connections end when it is removed: no other rule translates addresses, and without one the
    /// kernel neither tracks connections nor goes on translating those that it knows.
    pub(crate) fn translates_alone(&self) -> BTreeSet<Family> {
        let tables = TABLES.into_iter().zip(Family::ALL);
        let of_tables =
            tables.filter(|(name, _)| self.tables.contains(name)).map(|(_, family)| family);
        let of_iptables = self.iptables.iter().map(|ruleset| ruleset.variant.family);
        let all: BTreeSet<_> = of_tables.chain(of_iptables).collect();
        all.difference(&self.others_translate).copied().collect()
    }

    /// Removes it, and goes on after a failure. The lines of what is gone.
    pub(crate) fn remove(&self) -> (Vec<String>, Vec<Failure>) {
        let (mut gone, mut failures) = (Vec::new(), Vec::new());
        for ruleset in &self.iptables {
            match ruleset.remove() {
                Ok(()) => gone.extend(ruleset.lines()),
                Err(failure) => failures.push(failure),
            }
        }
        for name in &self.tables {
            match nft::delete(name) {
                Ok(()) => gone.push(table(name)),
                Err(error) => failures.push(Failure::new("remove its rules", error)),
            }
        }
        // Last: rules look addresses up in its sets.
        let (lines, failed) = self.ipvs.remove();
        gone.extend(lines);
        failures.extend(failed);
        (gone, failures)
    }
}

fn table(name: &str) -> String {
    format!("nftables table {name}")
}

/// Families whose addresses rules in nftables tables of somebody else translate; those of iptables tell themselves.
fn others_translate(tables: &str) -> (Vec<Failure>, BTreeSet<Family>) {
    let (mut failures, mut families) = (Vec::new(), BTreeSet::new());
    for name in tables.lines().filter_map(|line| line.trim().strip_prefix("table ")) {
        if TABLES.contains(&name) || IPTABLES.iter().any(|table| name.ends_with(table)) {
            continue;
        }
        match nft::list_table(name) {
            Ok(rules) if translates(&rules) => families.extend(families_of(name)),
            Ok(_) => {}
            Err(error) => failures.push(Failure::new("look for rules beside kube-proxy's", error)),
        }
    }
    (failures, families)
}

fn families_of(table: &str) -> Vec<Family> {
    match table.split(' ').next() {
        Some("ip") => vec![Family::V4],
        Some("ip6") => vec![Family::V6],
        Some("inet") => Family::ALL.to_vec(),
        _ => Vec::new(),
    }
}

/// Whether a table as nft prints it translates addresses: a chain of type nat, and a statement that does it.
fn translates(rules: &str) -> bool {
    const STATEMENTS: [&str; 4] = ["masquerade", "snat", "dnat", "redirect"];
    let is_rule = |line: &&str| {
        !line.contains(" hook ") && !line.starts_with("chain ") && !line.contains("ct status ")
    };
    let mut words = rules.lines().map(str::trim).filter(is_rule).flat_map(|line| line.split(' '));
    rules.contains("type nat hook ") && words.any(|word| STATEMENTS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_translates_by_a_statement_in_a_chain_for_it() {
        let table = |kind: &str, rule: &str| {
            let chain = format!("type {kind} hook output priority dstnat; policy accept;");
            format!("table ip other {{\n\tchain dnat {{\n\t\t{chain}\n\t\t{rule}\n\t}}\n}}\n")
        };
        assert!(translates(&table("nat", "meta mark 0x77 masquerade")));
        assert!(translates(&table("nat", "dnat to 192.0.2.1")));
        for [kind, rule] in
            [["nat", "accept"], ["nat", "ct status dnat accept"], ["filter", "dnat"]]
        {
            assert!(!translates(&table(kind, rule)), "{kind} {rule}");
        }
        assert_eq!(families_of("inet kproxy"), Family::ALL);
        assert_eq!(families_of("bridge x"), []);
    }

    #[test]
    fn connections_end_with_the_last_table_that_translates() {
        let rules = |tables: &[&'static str], others: &[Family]| Rules {
            tables: tables.to_vec(),
            others_translate: others.iter().copied().collect(),
            ..Rules::default()
        };
        let alone = |rules: Rules| rules.translates_alone().into_iter().collect::<Vec<_>>();
        assert_eq!(alone(rules(&TABLES, &[Family::V4])), [Family::V6]);
        assert_eq!(alone(rules(&TABLES[..1], &[])), [Family::V4]);
        assert_eq!(alone(rules(&[], &[])), []);
    }
}
