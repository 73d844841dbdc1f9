//! kube-proxy's chains in iptables: which they are, and how they go without anybody else's rules.
//!
//! What is printed by `iptables-save` is read, and written back are the lines that take chains and jumps away
//! (`iptables-restore --noflush`): one transaction a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{failure::Failure, tool};
use crate::model::Family;

/// Chains of kube-proxy by table, of its modes iptables and ipvs (`cleanup.go` in pkg/proxy/iptables and
/// pkg/proxy/ipvs). Those of the kubelet have other names: KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT.
const CHAINS: [(&str, &[&str]); 3] = [
    (
        "nat",
        &[
            "KUBE-SERVICES",
            "KUBE-NODEPORTS",
            POSTROUTING,
            MARK_MASQ,
            "KUBE-PROXY-CANARY",
            "KUBE-NODE-PORT",
            "KUBE-LOAD-BALANCER",
        ],
    ),
    (
        "filter",
        &[
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-FIREWALL",
            "KUBE-PROXY-CANARY",
            "KUBE-NODE-PORT",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
        ],
    ),
    ("mangle", &["KUBE-PROXY-CANARY"]),
];
/// Masks what [`MARK_MASQ`] has marked.
const POSTROUTING: &str = "KUBE-POSTROUTING";
const MARK_MASQ: &str = "KUBE-MARK-MASQ";
/// How the chains of one Service or endpoint begin, all in table nat; a hash follows. XLB: before Kubernetes 1.24.
const PREFIXES: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];
const HASH_LEN: usize = 16;
/// How the comments of its jumps from the kernel's chains begin.
const COMMENTS: [&str; 2] = ["kubernetes ", "kube-proxy "];
/// Targets that translate addresses.
const TRANSLATE: [&str; 5] = ["MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP"];
/// Sets of its mode ipvs begin so.
const SETS: &str = "KUBE-";

/// One of the two implementations of iptables, for one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Variant {
    pub(crate) family: Family,
    /// `-nft`, `-legacy`, or nothing where the system has only one of them.
    suffix: &'static str,
}

impl Variant {
    /// Its command.
    pub(crate) fn name(self) -> String {
        let program = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{program}{}", self.suffix)
    }
}

/// What a table holds of kube-proxy's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Chains that go.
    pub(crate) chains: Vec<String>,
    /// Rules of the kernel's chains that lead to them, as they are printed, without `-A`.
    pub(crate) jumps: Vec<String>,
    /// Chains that stay because somebody else's rule leads to them, and that rule.
    pub(crate) kept: Vec<(String, String)>,
    /// Its rules look addresses up in sets of kube-proxy's.
    pub(crate) uses_sets: bool,
}

impl Table {
    const fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }
}

/// What one implementation holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ruleset {
    pub(crate) variant: Variant,
    /// Tables that hold something of kube-proxy's.
    pub(crate) tables: Vec<Table>,
}

impl Ruleset {
    /// What it is, a line a table.
    pub(crate) fn lines(&self) -> Vec<String> {
        let command = self.variant.name();
        let line = |table: &Table| {
            let (chains, jumps) = (table.chains.len(), table.jumps.len());
            format!(
                "{chains} chain{} and {jumps} jump{} to them from table {} of {command}",
                plural(chains),
                plural(jumps),
                table.name
            )
        };
        self.tables.iter().filter(|table| !table.is_empty()).map(line).collect()
    }

    /// What stays, and why.
    pub(crate) fn kept(&self) -> Vec<String> {
        let command = self.variant.name();
        let of_table = |table: &Table| {
            let line = |(chain, rule): &(String, String)| {
                format!(
                    "chain {chain} of {command} -t {}: another rule needs it, `-A {rule}`",
                    table.name
                )
            };
            table.kept.iter().map(line).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of_table).collect()
    }

    /// Takes it away, one transaction a table.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let input = self.script();
        tool::run(
            &format!("{}-restore", self.variant.name()),
            &["--noflush", "--wait", "30"],
            &input,
        )
        .map(drop)
        .map_err(|source| Failure::new("remove its chains", source))
    }

    fn script(&self) -> String {
        let mut text = String::new();
        for table in self.tables.iter().filter(|table| !table.is_empty()) {
            // The first of a chain's lines empties it.
            let emptied = table.chains.iter().map(|chain| format!(":{chain} - [0:0]\n"));
            let jumps = table.jumps.iter().map(|rule| format!("-D {rule}\n"));
            let removed = table.chains.iter().map(|chain| format!("-X {chain}\n"));
            text.push_str(&format!("*{}\n", table.name));
            text.extend(emptied.chain(jumps).chain(removed));
            text.push_str("COMMIT\n");
        }
        text
    }
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What every implementation that can be asked holds of kube-proxy's.
    pub(super) rulesets: Vec<Ruleset>,
    /// Families whose addresses rules of others translate.
    pub(super) others_translate: BTreeSet<Family>,
    pub(super) failures: Vec<Failure>,
}

/// Looks. `nft_chains` is what nft prints of all chains.
pub(super) fn find(nft_chains: &str) -> Found {
    let Found { rulesets: mut found, mut others_translate, mut failures } = Found::default();
    for family in Family::ALL {
        let variants = ["-nft", "-legacy"].map(|suffix| Variant { family, suffix });
        let are_there = variants.map(|variant| tool::is_there(&saves(variant)));
        for (variant, is_there) in variants.into_iter().zip(are_there) {
            // Asked for tables that are not there the legacy one makes them.
            if variant.suffix == "-legacy" && !has_legacy_tables(family) {
                continue;
            }
            // Systems without both have one under the plain name.
            let plain = Variant { suffix: "", ..variant };
            let asked = match is_there {
                true => variant,
                false if are_there == [false; 2] && tool::is_there(&saves(plain)) => plain,
                false => {
                    failures.extend(unseen(variant, nft_chains));
                    continue;
                }
            };
            match tool::run(&saves(asked), &[], "") {
                Ok(saved) => {
                    if translates(&saved) {
                        others_translate.insert(family);
                    }
                    let tables = tables(&saved);
                    let ruleset = Ruleset { variant: asked, tables };
                    if !ruleset.tables.is_empty() && !found.contains(&ruleset) {
                        found.push(ruleset);
                    }
                }
                Err(source) => failures.push(Failure::new("look for chains of kube-proxy", source)),
            }
        }
    }
    Found { rulesets: found, others_translate, failures }
}

/// Whether a rule that is not kube-proxy's translates addresses, in what `iptables-save` has printed.
fn translates(saved: &str) -> bool {
    let nat = saved.lines().skip_while(|line| *line != "*nat").take_while(|line| *line != "COMMIT");
    let mut rules = nat.filter_map(|line| line.strip_prefix("-A "));
    rules.any(|rule| {
        let words = words(rule);
        let target = words.iter().position(|word| word == "-j").and_then(|at| words.get(at + 1));
        !is_owned("nat", &words[0]) && target.is_some_and(|t| TRANSLATE.contains(&t.as_str()))
    })
}

fn saves(variant: Variant) -> String {
    format!("{}-save", variant.name())
}

fn has_legacy_tables(family: Family) -> bool {
    !legacy_tables(family).trim().is_empty()
}

/// Tables of the legacy implementation that are there, one a line.
fn legacy_tables(family: Family) -> String {
    let path = match family {
        Family::V4 => "/proc/self/net/ip_tables_names",
        Family::V6 => "/proc/self/net/ip6_tables_names",
    };
    fs::read_to_string(path).unwrap_or_default()
}

/// That an implementation in use has no command here.
fn unseen(variant: Variant, nft_chains: &str) -> Option<Failure> {
    let command = saves(variant);
    let family = match variant.family {
        Family::V4 => "table ip ",
        Family::V6 => "table ip6 ",
    };
    let is_seen = || {
        let mut here = false;
        nft_chains.lines().map(str::trim).any(|line| {
            if line.starts_with("table ") {
                here = line.starts_with(family) && !line.contains(" kube-proxy ");
            }
            let chain = line.strip_prefix("chain ").and_then(|rest| rest.split(' ').next());
            here && chain
                .is_some_and(|chain| CHAINS.iter().any(|(table, _)| is_owned(table, chain)))
        })
    };
    (variant.suffix == "-legacy" || is_seen()).then(|| {
        let source = tool::Error::Missing { program: command, package: tool::IPTABLES };
        Failure::new("look for chains of kube-proxy", source)
    })
}

fn is_owned(table: &str, chain: &str) -> bool {
    let is_hash = |rest: &str| {
        rest.len() == HASH_LEN && rest.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
    };
    let of_service =
        || PREFIXES.iter().filter_map(|prefix| chain.strip_prefix(prefix)).any(is_hash);
    CHAINS.iter().any(|(name, chains)| *name == table && chains.contains(&chain))
        || table == "nat" && of_service()
}

/// What the tables that `iptables-save` has printed hold of kube-proxy's.
fn tables(saved: &str) -> Vec<Table> {
    let mut tables = Vec::new();
    let (mut name, mut chains, mut rules) = ("", Vec::new(), Vec::new());
    for line in saved.lines() {
        if let Some(table) = line.strip_prefix('*') {
            (name, chains, rules) = (table, Vec::new(), Vec::new());
        } else if let Some(chain) = line.strip_prefix(':') {
            chains.extend(chain.split(' ').next());
        } else if let Some(rule) = line.strip_prefix("-A ") {
            rules.push(rule);
        } else if line == "COMMIT" {
            let table = table(name, &chains, &rules);
            if !table.is_empty() || !table.kept.is_empty() {
                tables.push(table);
            }
        }
    }
    tables
}

fn table(name: &str, chains: &[&str], rules: &[&str]) -> Table {
    let mut owned: BTreeSet<&str> =
        chains.iter().copied().filter(|chain| is_owned(name, chain)).collect();
    let mut leads_to: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut jumps, mut foreign) = (Vec::new(), Vec::new());
    let mut uses_sets = false;
    for rule in rules {
        let words = words(rule);
        let chain = rule.split(' ').next().unwrap_or_default();
        let after = |option: &[&str]| {
            let at = words.iter().position(|word| option.contains(&word.as_str()))?;
            words.get(at + 1).map(String::as_str)
        };
        if owned.contains(chain) {
            uses_sets |= after(&["--match-set"]).is_some_and(|set| set.starts_with(SETS));
        }
        let Some(target) = after(&["-j", "-g"]).filter(|target| owned.contains(target)) else {
            continue;
        };
        if owned.contains(chain) {
            leads_to.entry(chain).or_default().push(target.to_owned());
        } else if after(&["--comment"])
            .is_some_and(|text| COMMENTS.iter().any(|c| text.starts_with(c)))
        {
            jumps.push((target.to_owned(), (*rule).to_owned()));
        } else {
            foreign.push((target.to_owned(), (*rule).to_owned()));
        }
    }
    // What others' rules lead to stays with all that it needs; what is marked for masquerade, with what masks it.
    let mut kept = Vec::new();
    while let Some((chain, rule)) = foreign.pop() {
        if !owned.remove(chain.as_str()) {
            continue;
        }
        let more = leads_to.get(chain.as_str()).into_iter().flatten().cloned();
        foreign.extend(more.map(|target| (target, rule.clone())));
        if chain == MARK_MASQ {
            foreign.push((POSTROUTING.to_owned(), rule.clone()));
            jumps.retain(|(target, _)| target != POSTROUTING);
        }
        kept.push((chain, rule));
    }
    let jumps = jumps.into_iter().map(|(_, rule)| rule).collect();
    let chains = owned.into_iter().map(str::to_owned).collect();
    Table { name: name.to_owned(), chains, jumps, kept, uses_sets }
}

/// The words of a rule: in quotes a space is no end, and `\` stands before a quote that is meant.
fn words(rule: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = rule.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' => word.extend(letters.next()),
            ' ' if !quoted => all.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    all.push(word);
    all
}

#[cfg(test)]
mod tests;
