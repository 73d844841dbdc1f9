//! What newer kernels have that kproxy makes use of, and what it does without.

use std::collections::BTreeMap;

/// What a guest was found to have, by the words of `guest/facts.sh`.
pub(super) type Facts = BTreeMap<String, bool>;

/// Not a word of `guest/facts.sh`: whether kproxy told network namespaces apart.
pub(super) const NETNS_COOKIE: &str = "netns-cookie";

/// Something that not every kernel has.
#[derive(Debug)]
pub(super) struct Feature {
    /// What it is.
    pub(super) name: &'static str,
    /// The facts that it takes.
    facts: &'static [&'static str],
    /// What is different without it.
    pub(super) without: &'static str,
}

const fn feature(
    name: &'static str,
    facts: &'static [&'static str],
    without: &'static str,
) -> Feature {
    Feature { name, facts, without }
}

/// In the order in which kernels came by them.
pub(super) const FEATURES: [Feature; 11] = [
    feature("BTF of the kernel", &["btf"], "kproxy does not start"),
    feature(
        "bpf_ktime_get_coarse_ns (5.11)",
        &["coarse-clock"],
        "flows are stamped by the fine clock, which takes longer to read",
    ),
    feature(
        "maps count for the cgroup (5.11)",
        &["memory-of-cgroup"],
        "they count against RLIMIT_MEMLOCK; kproxy lifts it (CAP_SYS_RESOURCE)",
    ),
    feature(
        "bpf_fib_lookup tells the MTU (5.12)",
        &["route-mtu"],
        "who sends too big packets is told an MTU of 1280",
    ),
    feature(
        "SO_NETNS_COOKIE (5.14)",
        &[NETNS_COOKIE],
        "with an opt-out every pod is left alone; the node's namespace must be the initial one",
    ),
    feature(
        "verified instructions are told (5.16)",
        &["verified-instructions"],
        "the budgets below are not checked, the programs only loaded",
    ),
    feature(
        "bpf_set_retval (5.18)",
        &["set-retval"],
        "connect() to a Service without endpoints times out: its packets are dropped instead",
    ),
    feature(
        "bpf_skc_to_mptcp_sock (5.19), MPTCP",
        &["mptcp-helper", "mptcp"],
        "MPTCP sockets see the backend in getpeername() and stay counted for least-connections",
    ),
    feature(
        "BPF_FIB_LOOKUP_SKIP_NEIGH (6.3)",
        &["skip-neighbour"],
        "route lookups look for the neighbour too, in vain for the first packet to it",
    ),
    feature(
        "tcx links (6.6)",
        &["tcx"],
        "programs of devices are filters of clsact: somebody's `tc qdisc del` takes them along until \
         kproxy puts them back",
    ),
    feature("SCTP sockets", &["sctp"], "no process can open one; Services of SCTP do no harm"),
];

impl Feature {
    /// Whether a kernel has it; `None`: it was not looked at.
    pub(super) fn is_in(&self, facts: &Facts) -> Option<bool> {
        let known = self.facts.iter().map(|fact| facts.get(*fact).copied());
        known.reduce(|a, b| Some(a? && b?)).flatten()
    }
}

/// The lines `fact NAME yes` or `no`.
pub(super) fn facts(text: &str) -> Facts {
    let lines = text.lines().filter_map(|line| line.strip_prefix("fact ")?.split_once(' '));
    lines.map(|(name, answer)| (name.to_owned(), answer == "yes")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_takes_all_its_facts_and_each_is_looked_at() {
        let facts = facts("fact mptcp yes\nfact mptcp-helper no\nfact btf yes\n");
        let is_in = |name: &str| {
            FEATURES.iter().find(|feature| feature.name.contains(name)).unwrap().is_in(&facts)
        };
        assert_eq!((is_in("MPTCP"), is_in("BTF"), is_in("tcx")), (Some(false), Some(true), None));
        let script = include_str!("guest/facts.sh");
        for fact in FEATURES.iter().flat_map(|feature| feature.facts) {
            assert!(*fact == NETNS_COOKIE || script.contains(&format!("fact {fact} ")), "{fact}");
        }
    }
}
