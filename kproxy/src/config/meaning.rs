//! Fields of kube-proxy that change nothing here, and why: each is told in one line where it is given and is
//! not what holds without it.

/// Paths, or beginnings of paths, with the reason.
const WITHOUT: &[(&str, &str)] = &[
    (
        "mode",
        "kproxy has a data path of its own; only where NodePorts answer by default follows it",
    ),
    ("iptables.localhostNodePorts", ""),
    ("iptables.", "kproxy makes no iptables rules, and a change is in force at once"),
    ("ipvs.", "kproxy does without IPVS"),
    ("nftables.", "kproxy makes no nftables rules for Services, and a change is in force at once"),
    ("winkernel.", "it is for Windows"),
    ("windowsRunAsService", "it is for Windows"),
    ("portRange", "kube-proxy does not use it either"),
    ("oomScoreAdj", "it is left as the container runtime or systemd has set it"),
    ("configSyncPeriod", "a watch that has missed something begins anew"),
    ("clientConnection.kubeconfig", ""),
    ("clientConnection.", "kproxy keeps a few watches open and asks for nothing else"),
    ("bindAddressHardFail", "an address that is taken is a reported problem, and tried again"),
    ("enableProfiling", "there is no /debug/pprof"),
    ("showHiddenMetricsForVersion", "no metric is hidden"),
    ("detectLocalMode", "pods of the node are told by their devices"),
    ("detectLocal.", "pods of the node are told by their devices"),
    ("logging.flushFrequency", "nothing is held back"),
    ("logging.vmodule", "kproxy has other source files; see --log-level"),
    ("logging.options.", "logs go to standard error, unbuffered"),
];

/// Why a field changes nothing; `None`: it does.
pub(crate) fn why_without(path: &str) -> Option<&'static str> {
    let fits = |name: &str| if name.ends_with('.') { path.starts_with(name) } else { path == name };
    let (_, why) = WITHOUT.iter().find(|(name, _)| fits(name))?;
    Some(*why).filter(|why| !why.is_empty())
}

/// Whether Kubernetes has such a feature gate.
pub(super) fn knows_gate(name: &str) -> bool {
    include_str!("feature_gates.txt").lines().any(|line| line == name)
}
