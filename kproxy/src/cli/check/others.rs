//! Who else translates addresses of Services on this node, and whose programs run at kproxy's hooks.

use std::collections::BTreeSet;

use nix::net::if_::if_nameindex;

use super::finding::Finding;
use crate::daemon::{Settings, SocketLb};
use crate::dataplane::read::hooks::{self, HookProgram, HookRow, ProgramNames};
use crate::errors::with_causes;
use crate::node::kube_proxy::{self, Rules, Running};
use crate::node::{Device, NodeState, cgroup};

/// More devices of pods than this are not asked for their programs: they are alike.
const PODS: usize = 8;

/// What gives away that somebody else serves Services.
struct Trace {
    /// Beginning of the name of a program, as the kernel cuts it off; or the whole name of a device.
    name: &'static str,
    /// Whether that is a program; otherwise it is a device.
    is_program: bool,
    /// Whether it translates for certain, not only when set up to.
    surely: bool,
    /// Who it is, and what it does.
    who: &'static str,
    /// What a person can do.
    remedy: &'static str,
}

const TRACES: [Trace; 7] = [
    Trace {
        name: "cil_sock",
        is_program: true,
        surely: true,
        who: "Cilium translates the sockets of this node (kubeProxyReplacement)",
        remedy: "leave Services to Cilium, or set kubeProxyReplacement=false and socketLB.enabled=false",
    },
    Trace {
        name: "cil_",
        is_program: true,
        surely: false,
        who: "Cilium's programs are attached to devices",
        remedy: "with kubeProxyReplacement=false they leave Services alone; see `cilium status`",
    },
    Trace {
        name: "calico_connect",
        is_program: true,
        surely: true,
        who: "Calico's eBPF data plane translates the sockets of this node",
        remedy: "leave Services to Calico, or set bpfEnabled: false in its FelixConfiguration",
    },
    Trace {
        name: "bpfin.cali",
        is_program: false,
        surely: true,
        who: "Calico's eBPF data plane serves Services here",
        remedy: "leave Services to Calico, or set bpfEnabled: false in its FelixConfiguration",
    },
    Trace {
        name: "kube-dummy-if",
        is_program: false,
        surely: false,
        who: "kube-router is or was at work, which serves Services by IPVS unless told otherwise",
        remedy: "run it with --run-service-proxy=false, and `kube-router --cleanup-config` once",
    },
    Trace {
        name: "antrea-gw0",
        is_program: false,
        surely: false,
        who: "Antrea serves Services of pods in Open vSwitch (AntreaProxy)",
        remedy: "set antreaProxy.enable: false, or leave Services to it",
    },
    Trace {
        name: "ovn-k8s-mp0",
        is_program: false,
        surely: true,
        who: "OVN-Kubernetes serves Services in Open vSwitch",
        remedy: "leave Services to it: it cannot be told not to",
    },
];

/// Looks.
pub(super) fn look(settings: &Settings, node: &NodeState, names: &ProgramNames) -> Vec<Finding> {
    let mut all = vec![kproxy(settings)];
    all.extend(kube_proxy());
    let devices: BTreeSet<String> = if_nameindex().map_or_else(
        |_| BTreeSet::new(),
        |all| all.iter().map(|device| device.name().to_string_lossy().into_owned()).collect(),
    );
    let programs: BTreeSet<&str> = names.all().collect();
    all.extend(proxies(&programs, &devices));
    all.extend(hooks(settings, node, names));
    all
}

fn kproxy(settings: &Settings) -> Finding {
    const CHECK: &str = "kproxy";
    match settings.run_dir.running() {
        Ok(Some(pid)) => {
            Finding::ok(CHECK, format!("runs here, pid {pid}; `kproxy status` says how it is"))
        }
        Ok(None) => Finding::ok(CHECK, "does not run here yet"),
        Err(error) => Finding::unseen(CHECK, &error),
    }
}

fn kube_proxy() -> Vec<Finding> {
    const CHECK: &str = "kube-proxy";
    let (rules, failures) = Rules::find();
    let lines = rules.lines();
    let rules = match lines.len() {
        0 => None,
        1..=3 => Some(lines.join(", ")),
        count => Some(format!("{}, {} and {} more", lines[0], lines[1], count - 2)),
    };
    let running = kube_proxy::running().map(|running| match running {
        Running::Process(pid) => format!("runs here, pid {pid}"),
        Running::Metrics(at) => format!("answers at {at}"),
    });
    let mut all = vec![match (running, rules) {
        (None, None) => Finding::ok(CHECK, "does not run here and has left no rules"),
        (Some(running), rules) => {
            let rules = rules.map_or_else(String::new, |rules| format!("; its rules: {rules}"));
            let remedy = "kproxy comes before its rules and takes new connections over: start kproxy, stop kube-proxy, \
                          then run `kproxy cleanup --kube-proxy` (docs/install.md)";
            Finding::warning(CHECK, running + &rules, remedy)
        }
        (None, Some(rules)) => {
            let found =
                format!("does not run here and has left rules, which go on translating: {rules}");
            Finding::warning(CHECK, found, "run `kproxy cleanup --kube-proxy` once kproxy serves")
        }
    }];
    all.extend(failures.iter().map(|failure| {
        let remedy = "install the tool that is named, or look for rules by hand";
        Finding::warning(CHECK, with_causes(failure), remedy)
    }));
    all
}

fn proxies(programs: &BTreeSet<&str>, devices: &BTreeSet<String>) -> Vec<Finding> {
    const CHECK: &str = "other proxies";
    let is_there = |trace: &&Trace| match trace.is_program {
        true => programs.iter().any(|name| name.starts_with(trace.name)),
        false => devices.contains(trace.name),
    };
    let mut all: Vec<Finding> = Vec::new();
    let mut seen: Vec<&Trace> = Vec::new();
    for trace in TRACES.iter().filter(is_there) {
        // Whoever translates for certain has been told of.
        let same = |other: &&Trace| other.surely && first_word(other.who) == first_word(trace.who);
        if seen.iter().any(same) {
            continue;
        }
        let sort = if trace.surely { Finding::failure } else { Finding::warning };
        all.push(sort(CHECK, format!("{} ({})", trace.who, trace.name), trace.remedy.to_owned()));
        seen.push(trace);
    }
    if all.is_empty() {
        all.push(Finding::ok(
            CHECK,
            "no trace of Cilium, Calico's eBPF, kube-router, Antrea, OVN-Kubernetes",
        ));
    }
    all
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\'']).next().unwrap_or(text)
}

fn hooks(settings: &Settings, node: &NodeState, names: &ProgramNames) -> Vec<Finding> {
    const CHECK: &str = "hooks";
    let mut all = Vec::new();
    let loopback = Device::loopback();
    let devices = node.devices.iter().chain(node.pods.iter().take(PODS)).chain([&loopback]);
    for device in devices {
        match hooks::of_device(device, names) {
            Ok(rows) => all.extend(rows.iter().filter_map(|row| shared(&device.name, row))),
            Err(error) => all.push(Finding::unseen(CHECK, &error)),
        }
    }
    let root = cgroup::root(settings.dataplane.cgroup_root.as_deref());
    if let (Ok(root), true) = (root, settings.socket_lb != SocketLb::None) {
        match hooks::of_cgroup(&root, names) {
            Ok(rows) => {
                let name = root.display().to_string();
                all.extend(rows.iter().filter_map(|row| shared(&name, row)));
            }
            Err(error) => all.push(Finding::unseen(CHECK, &error)),
        }
    }
    if all.is_empty() {
        all.push(Finding::ok(CHECK, "nobody else's program is where kproxy's are attached"));
    }
    all
}

/// What to say of a hook where somebody else's program runs.
fn shared(at: &str, HookRow { hook, programs }: &HookRow) -> Option<Finding> {
    const CHECK: &str = "hooks";
    if programs.iter().all(HookProgram::is_ours) {
        return None;
    }
    let name = |program: &HookProgram| match program.name.as_str() {
        "" => format!("program {}", program.id),
        name => name.to_owned(),
    };
    let order: Vec<_> = programs.iter().map(name).collect();
    let found = format!("{at} {hook}: {}, in this order", order.join(", "));
    if *hook == "xdp" {
        let remedy = "it sees packets before kproxy and may keep them: see that it leaves those to Services alone";
        return Some(Finding::warning(CHECK, format!("{at} xdp: {}", order.join(", ")), remedy));
    }
    let first = programs.iter().position(|program| !program.is_ours()).unwrap_or_default();
    let ours = programs.iter().position(HookProgram::is_ours);
    Some(if ours.is_some_and(|ours| ours < first) {
        Finding::ok(CHECK, format!("{found}: kproxy's come first"))
    } else {
        let remedy = "what comes before kproxy's sees addresses of Services, what comes behind it those of backends; one \
                      that ends the chain (any verdict but TCX_NEXT, or TC_ACT_UNSPEC and TC_ACT_PIPE of a filter) hides \
                      the packet from kproxy";
        Finding::warning(CHECK, found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::finding::Outcome;

    #[test]
    fn other_proxies_are_known_by_their_programs_and_devices() {
        let found = |programs: &[&'static str], devices: &[&str]| {
            let devices = devices.iter().map(|name| (*name).to_owned()).collect();
            let found = proxies(&programs.iter().copied().collect(), &devices).into_iter();
            found.map(|f| (f.outcome, f.found)).collect::<Vec<_>>()
        };
        let names = |programs: &[&'static str], devices: &[&str]| {
            let word =
                |(outcome, text): &(Outcome, String)| (*outcome, first_word(text).to_owned());
            found(programs, devices).iter().map(word).collect::<Vec<_>>()
        };
        let none = found(&["kp_ingress", "sd_devices"], &["eth0", "lo", "cali1234"]);
        assert_eq!(none[0].0, Outcome::Ok);
        let failure = |name: &str| vec![(Outcome::Failure, name.to_owned())];
        assert_eq!(names(&["cil_sock4_conne", "cil_from_contai"], &[]), failure("Cilium"));
        assert_eq!(names(&["cil_from_contai"], &[]), [(Outcome::Warning, "Cilium".to_owned())]);
        assert_eq!(names(&["calico_connect_"], &["bpfin.cali"]), failure("Calico"));
        assert_eq!(names(&[], &["kube-dummy-if"]), [(Outcome::Warning, "kube-router".to_owned())]);
    }

    #[test]
    fn the_order_at_a_hook_tells_whether_kproxy_sees_every_packet() {
        let row = |hook, names: &[&str]| HookRow {
            hook,
            programs: names
                .iter()
                .zip(1..)
                .map(|(name, id)| HookProgram { name: (*name).to_owned(), id })
                .collect(),
        };
        let outcome = |hook, names: &[&str]| shared("eth0", &row(hook, names)).map(|f| f.outcome);
        assert_eq!(outcome("ingress", &["kp_ingress"]), None);
        assert_eq!(outcome("ingress", &["kp_ingress", "other"]), Some(Outcome::Ok));
        assert_eq!(outcome("ingress", &["other", "kp_ingress"]), Some(Outcome::Warning));
        assert_eq!(outcome("egress", &["other"]), Some(Outcome::Warning));
        assert_eq!(outcome("xdp", &["other"]), Some(Outcome::Warning));
        let text = shared("eth0", &row("egress", &["", "kp_egress"])).unwrap().found;
        assert_eq!(text, "eth0 egress: program 1, kp_egress, in this order");
    }
}
