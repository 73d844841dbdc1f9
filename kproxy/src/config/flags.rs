//! kube-proxy's flags, and the field of the configuration that each sets.
//!
//! Those of 1.36.3 and 1.37.2, which have the same: `AddFlags` in k8s.io/kubernetes
//! `cmd/kube-proxy/app/options.go` and in k8s.io/component-base `logs/api/v1/options.go`. What is no field
//! (`--config`, `--master`, `--cleanup` …) is not here.

use serde_json::{Value, json};

use super::defaults::{HEALTHZ_PORT, METRICS_PORT, with_port};
use super::duration::GoDuration;

/// A flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Its name.
    pub(crate) name: &'static str,
    /// The path of its field.
    pub(crate) path: &'static str,
    /// What it takes.
    pub(crate) kind: Kind,
    /// What it does, for the help; empty: nothing here.
    pub(crate) help: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Any text, shown in the help by this name.
    Text(&'static str),
    /// A whole number.
    Number,
    /// A number.
    Decimal,
    /// Yes or no.
    Bool,
    /// A time.
    Duration,
    /// Texts with a comma between.
    List(&'static str),
    /// `name=true` and `name=false`, with a comma between.
    Gates,
    /// `pattern=number`, with a comma between.
    Vmodule,
    /// An address with a port, or alone for this port; empty: nowhere.
    Address(u16),
    /// The port of an address that was given none; 0: nowhere.
    Port,
}

impl Kind {
    /// The value of a field.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        let wrong = |what: &str| format!("`{text}` is no {what}");
        let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let pairs = || {
            items().map(|item| {
                let pair = item.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
                pair.ok_or_else(|| format!("`{item}` has no value; write it like NAME=VALUE"))
            })
        };
        Ok(match self {
            Self::Text(_) => text.into(),
            Self::Address(port) => with_port(text, port).into(),
            Self::Number | Self::Port => {
                text.parse::<i32>().map_err(|_ignored| wrong("whole number of 32 bits"))?.into()
            }
            Self::Decimal => {
                let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
                number.ok_or_else(|| wrong("number"))?.into()
            }
            Self::Bool => is_true(text).ok_or_else(|| wrong("answer: give true or false"))?.into(),
            Self::Duration => text.parse::<GoDuration>()?.to_string().into(),
            Self::List(_) => items().collect(),
            Self::Gates => {
                let mut gates = serde_json::Map::new();
                for pair in pairs() {
                    let (name, value) = pair?;
                    let why = || format!("`{value}` of {name} is neither true nor false");
                    gates.insert(name.to_owned(), is_true(value).ok_or_else(why)?.into());
                }
                gates.into()
            }
            Self::Vmodule => {
                let mut items = Vec::new();
                for pair in pairs() {
                    let (pattern, number) = pair?;
                    let why = |_ignored| format!("`{number}` of {pattern} is no verbosity");
                    let number: u32 = number.parse().map_err(why)?;
                    items.push(json!({"filePattern": pattern, "verbosity": number}));
                }
                items.into()
            }
        })
    }

    /// Whether it may be given several times, and all of them count.
    pub(crate) const fn adds_up(self) -> bool {
        matches!(self, Self::List(_) | Self::Gates | Self::Vmodule)
    }
}

/// As Go's `strconv.ParseBool` has it.
fn is_true(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

const fn flag(name: &'static str, path: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, path, kind, help }
}

const CIDRS: &str = "CIDR[,CIDR]";
const NAME: &str = "NAME";

/// All of them.
pub(crate) static FLAGS: &[Flag] = &[
    flag(
        "kubeconfig",
        "clientConnection.kubeconfig",
        Kind::Text("FILE"),
        "Kubeconfig of the API server to follow [default: the pod's service account]",
    ),
    flag(
        "hostname-override",
        "hostnameOverride",
        Kind::Text(NAME),
        "Name of this node in the cluster [default: the host name, in lower case]",
    ),
    flag(
        "cluster-cidr",
        "clusterCIDR",
        Kind::Text(CIDRS),
        "Pod ranges, at most one a family: load-balancer source ranges that hold one as a whole let every pod in",
    ),
    flag(
        "nodeport-addresses",
        "nodePortAddresses",
        Kind::List("CIDR|WORD[,CIDR|WORD]"),
        "Addresses on which NodePorts and health checks answer: ranges, and the words `primary` for the addresses of \
         the Node object, `localhost` and `all`; a family without any has all of its addresses [default: every \
         address; with --proxy-mode nftables: primary]",
    ),
    flag(
        "iptables-localhost-nodeports",
        "iptables.localhostNodePorts",
        Kind::Bool,
        "Whether NodePorts answer on loopback addresses, which --nodeport-addresses covers",
    ),
    flag(
        "bind-address",
        "bindAddress",
        Kind::Text("IP"),
        "The node's primary address, if it is not the one of its Node object",
    ),
    flag(
        "metrics-bind-address",
        "metricsBindAddress",
        Kind::Address(METRICS_PORT),
        "Where `/metrics` is served, and `/proxyMode` and `/configz` beside it: an address and port, or an address \
         alone for port 10249; an empty value: nowhere",
    ),
    flag(
        "metrics-port",
        "metricsBindAddress",
        Kind::Port,
        "Port of --metrics-bind-address, if that has none; 0: nowhere (deprecated)",
    ),
    flag(
        "healthz-bind-address",
        "healthzBindAddress",
        Kind::Address(HEALTHZ_PORT),
        "Where load balancers ask whether this node takes traffic (`/healthz`, `/livez`): an address and port, or an \
         address alone for port 10256; `0.0.0.0` and `::` are every address of both families; an empty value: nowhere",
    ),
    flag(
        "healthz-port",
        "healthzBindAddress",
        Kind::Port,
        "Port of --healthz-bind-address, if that has none; 0: nowhere (deprecated)",
    ),
    flag(
        "feature-gates",
        "featureGates",
        Kind::Gates,
        "Feature gates of Kubernetes: known ones are accepted and change nothing, unknown ones are told",
    ),
    flag(
        "conntrack-max-per-core",
        "conntrack.maxPerCore",
        Kind::Number,
        "Connections that the kernel's connection tracking has room for, for each CPU: the limit is raised to that, \
         never lowered, and to 1048576 at most; 0: left as it is, whatever `--conntrack-min` says",
    ),
    flag(
        "conntrack-min",
        "conntrack.min",
        Kind::Number,
        "Connections that there is room for at least, however few CPUs there are",
    ),
    flag(
        "conntrack-tcp-timeout-established",
        "conntrack.tcpEstablishedTimeout",
        Kind::Duration,
        "How long it keeps an established TCP connection without a packet; 0: left as it is",
    ),
    flag(
        "conntrack-tcp-timeout-close-wait",
        "conntrack.tcpCloseWaitTimeout",
        Kind::Duration,
        "How long it keeps one that the far end has closed; 0: left as it is",
    ),
    flag(
        "conntrack-tcp-be-liberal",
        "conntrack.tcpBeLiberal",
        Kind::Bool,
        "Packets outside the window of a TCP connection are no reason for it to call it invalid",
    ),
    flag(
        "conntrack-udp-timeout",
        "conntrack.udpTimeout",
        Kind::Duration,
        "How long it keeps an unanswered UDP exchange; 0: left as it is",
    ),
    flag(
        "conntrack-udp-timeout-stream",
        "conntrack.udpStreamTimeout",
        Kind::Duration,
        "How long it keeps a UDP stream; 0: left as it is",
    ),
    flag(
        "logging-format",
        "logging.format",
        Kind::Text("FORMAT"),
        "How logs are written: text, or json, one object a line",
    ),
    flag(
        "v",
        "logging.verbosity",
        Kind::Number,
        "How much is logged where --log-level does not say: up to 3 info, 4 and 5 debug, more trace",
    ),
    flag("proxy-mode", "mode", Kind::Text("MODE"), ""),
    flag("masquerade-all", "iptables.masqueradeAll", Kind::Bool, ""),
    flag("iptables-masquerade-bit", "iptables.masqueradeBit", Kind::Number, ""),
    flag("iptables-sync-period", "iptables.syncPeriod", Kind::Duration, ""),
    flag("iptables-min-sync-period", "iptables.minSyncPeriod", Kind::Duration, ""),
    flag("ipvs-sync-period", "ipvs.syncPeriod", Kind::Duration, ""),
    flag("ipvs-min-sync-period", "ipvs.minSyncPeriod", Kind::Duration, ""),
    flag("ipvs-scheduler", "ipvs.scheduler", Kind::Text(NAME), ""),
    flag("ipvs-exclude-cidrs", "ipvs.excludeCIDRs", Kind::List(CIDRS), ""),
    flag("ipvs-strict-arp", "ipvs.strictARP", Kind::Bool, ""),
    flag("ipvs-tcp-timeout", "ipvs.tcpTimeout", Kind::Duration, ""),
    flag("ipvs-tcpfin-timeout", "ipvs.tcpFinTimeout", Kind::Duration, ""),
    flag("ipvs-udp-timeout", "ipvs.udpTimeout", Kind::Duration, ""),
    flag("detect-local-mode", "detectLocalMode", Kind::Text("MODE"), ""),
    flag("pod-bridge-interface", "detectLocal.bridgeInterface", Kind::Text(NAME), ""),
    flag("pod-interface-name-prefix", "detectLocal.interfaceNamePrefix", Kind::Text(NAME), ""),
    flag("kube-api-content-type", "clientConnection.contentType", Kind::Text("TYPE"), ""),
    flag("kube-api-burst", "clientConnection.burst", Kind::Number, ""),
    flag("kube-api-qps", "clientConnection.qps", Kind::Decimal, ""),
    flag("config-sync-period", "configSyncPeriod", Kind::Duration, ""),
    flag("oom-score-adj", "oomScoreAdj", Kind::Number, ""),
    flag("bind-address-hard-fail", "bindAddressHardFail", Kind::Bool, ""),
    flag("profiling", "enableProfiling", Kind::Bool, ""),
    flag(
        "show-hidden-metrics-for-version",
        "showHiddenMetricsForVersion",
        Kind::Text("VERSION"),
        "",
    ),
    flag("log-flush-frequency", "logging.flushFrequency", Kind::Duration, ""),
    flag("vmodule", "logging.vmodule", Kind::Vmodule, ""),
    flag("log-text-split-stream", "logging.options.text.splitStream", Kind::Bool, ""),
    flag(
        "log-text-info-buffer-size",
        "logging.options.text.infoBufferSize",
        Kind::Text("SIZE"),
        "",
    ),
    flag("log-json-split-stream", "logging.options.json.splitStream", Kind::Bool, ""),
    flag(
        "log-json-info-buffer-size",
        "logging.options.json.infoBufferSize",
        Kind::Text("SIZE"),
        "",
    ),
];

/// One that was typed.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// Which.
    pub(crate) flag: &'static Flag,
    /// With which values, in their order.
    pub(crate) values: Vec<String>,
}

impl Typed {
    /// Whether it leaves what holds without it: a name or an address that is empty, as for kube-proxy.
    pub(super) fn says_nothing(&self) -> bool {
        let may_be_empty = ["hostname-override", "bind-address"].contains(&self.flag.name);
        may_be_empty && self.values.iter().all(String::is_empty)
    }
}
