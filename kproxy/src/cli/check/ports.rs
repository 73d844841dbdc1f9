//! Ports that kproxy gives out or answers on, and others that want them.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::finding::{Finding, Outcome};
use crate::daemon::{Settings, SourceNat};
use crate::model::Problem;
use crate::node::source_ports;

/// Looks.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut all = vec![source_ports(&settings.source_nat), node_ports()];
    let running = settings.run_dir.running().is_ok_and(|pid| pid.is_some());
    if !running {
        all.extend(listens("metrics", settings.metrics_address));
        all.extend(listens("health", settings.healthz_address));
    }
    all
}

fn source_ports(setting: &SourceNat) -> Finding {
    const CHECK: &str = "source ports";
    let SourceNat::Programs { ports } = setting else {
        return Finding::ok(CHECK, "netfilter gives them out (--snat netfilter)");
    };
    let ports = match ports.clone().map_or_else(source_ports::free, |ports| Ok(Some(ports))) {
        Ok(Some(ports)) => ports,
        Ok(None) => {
            let found = "net.ipv4.ip_local_port_range leaves no 1024 in a row free: netfilter masquerades instead of the \
                         programs";
            let remedy =
                "make the range smaller, or name ports that nothing else uses with --snat-ports";
            return Finding::warning(CHECK, found, remedy);
        }
        Err(error) => return Finding::unseen(CHECK, &error),
    };
    match source_ports::overlap(&ports) {
        Ok(Some(problem)) => Finding::of_problem(CHECK, Outcome::Warning, problem),
        Ok(None) => Finding::ok(CHECK, format!("{}-{}", ports.start(), ports.end())),
        Err(error) => Finding::unseen(CHECK, &error),
    }
}

fn node_ports() -> Finding {
    const CHECK: &str = "NodePorts";
    match source_ports::node_ports_given_out() {
        Ok(None) => Finding::ok(
            CHECK,
            "30000-32767 (the default range): the kernel gives none of them to clients",
        ),
        Ok(Some(Problem { what, remedy, .. })) => Finding::warning(CHECK, what, remedy),
        Err(error) => Finding::unseen(CHECK, &error),
    }
}

/// Whether an address can be listened at; nothing is said of one that is switched off.
fn listens(check: &'static str, address: Option<SocketAddr>) -> Option<Finding> {
    let address = address?;
    Some(match TcpListener::bind(address) {
        Ok(_) => Finding::ok(check, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let found = format!(
                "{address} is taken; kproxy takes it over within 5 seconds of its being free"
            );
            let remedy = "kube-proxy has it as long as it runs; `ss -ltnp` says who else does";
            Finding::warning(check, found, remedy)
        }
        Err(error) => {
            let found = format!("{address} cannot be listened at: {error}");
            Finding::warning(check, found, "name an address of this node, or nothing for nowhere")
        }
    })
}
