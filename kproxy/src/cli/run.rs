//! `kproxy run`: makes of what was typed what is meant, and runs the daemon with it.

use anyhow::Result;
use tracing::warn;
use wildmatch::WildMatch;

use super::args::{self, ConntrackArgs, RunArgs};
use super::exit::Exit;
use super::values::DeviceGlob;
use crate::daemon::{self, Conntrack, RunDir, Settings, SocketLb, Source, SourceNat};
use crate::dataplane;
use crate::node::{name, watch::Names};
use crate::plan::{Family, NodePortAddresses, OptOut};

/// Runs until SIGTERM or SIGINT. The data path is left in place.
///
/// # Errors
/// A setting cannot be used, and those of the daemon.
pub(super) fn run(args: RunArgs) -> Result<Exit> {
    daemon::run(settings(args)?)?;
    Ok(Exit::Fine)
}

fn settings(args: RunArgs) -> Result<Settings> {
    let RunArgs {
        manifests,
        kubeconfig,
        hostname_override,
        cluster_cidr,
        nodeport_addresses,
        bind_address,
        cgroup_root,
        devices,
        pod_devices,
        socket_lb,
        socket_lb_skip_pod_cidrs,
        socket_lb_skip_namespaces,
        snat,
        snat_ports,
        flow_timeouts,
        lb_algorithm,
        max_services,
        max_slots,
        max_frontends,
        max_flows,
        max_affinity,
        max_ranges,
        metrics_bind_address,
        healthz_bind_address,
        conntrack,
        pins,
        run_dir,
    } = args;
    let named = hostname_override.filter(|name| !name.is_empty());
    let opt_out = OptOut {
        ranges: socket_lb_skip_pod_cidrs.into_iter().map(|range| range.0).collect(),
        namespaces: socket_lb_skip_namespaces.into_iter().map(|name| name.0).collect(),
    };
    let ports = snat_ports.map(|range| range.0);
    let globs = |given: Vec<DeviceGlob>| given.iter().map(|g| WildMatch::new(g.as_str())).collect();
    warn_of_open_family(&nodeport_addresses.0);
    Ok(Settings {
        node_name: named.map_or_else(name::of_host, Ok)?,
        source: match manifests {
            Some(dir) => Source::Manifests(dir),
            None => Source::ApiServer { kubeconfig },
        },
        run_dir: RunDir::new(run_dir.run_dir),
        dataplane: dataplane::Settings {
            bpffs_root: pins.bpffs_root,
            cgroup_root,
            max_services: max_services.0,
            max_slots: max_slots.0,
            max_frontends: max_frontends.0,
            max_flows: max_flows.0,
            max_affinity: max_affinity.0,
            max_ranges: max_ranges.0,
        },
        devices: Names { uplinks: globs(devices), pods: globs(pod_devices) },
        cluster_cidrs: cluster_cidr.0,
        node_port_addresses: nodeport_addresses.0,
        bind_address: Some(bind_address).filter(|ip| !ip.is_unspecified()),
        socket_lb: match socket_lb {
            args::SocketLb::All => SocketLb::All,
            args::SocketLb::Host => SocketLb::Host,
            args::SocketLb::None => SocketLb::None,
        },
        opt_out: effective(opt_out, socket_lb),
        source_nat: match snat {
            args::Snat::Bpf => SourceNat::Programs { ports },
            args::Snat::Netfilter => SourceNat::Netfilter,
        },
        flow_timeouts: flow_timeouts.into_iter().map(|timeout| (timeout.0, timeout.1)).collect(),
        algorithm: lb_algorithm,
        metrics_address: metrics_bind_address.0,
        healthz_address: healthz_bind_address.0,
        conntrack: self::conntrack(&conntrack),
    })
}

const fn conntrack(args: &ConntrackArgs) -> Conntrack {
    Conntrack {
        max_per_core: args.conntrack_max_per_core,
        min: args.conntrack_min,
        tcp_established: args.conntrack_tcp_timeout_established.0,
        tcp_close_wait: args.conntrack_tcp_timeout_close_wait.0,
        tcp_be_liberal: args.conntrack_tcp_be_liberal,
        udp: args.conntrack_udp_timeout.0,
        udp_stream: args.conntrack_udp_timeout_stream.0,
    }
}

/// Who is opted out in effect: with `--socket-lb host` every pod is already.
fn effective(opt_out: OptOut, socket_lb: args::SocketLb) -> OptOut {
    if socket_lb == args::SocketLb::All || opt_out.is_empty() {
        return opt_out;
    }
    warn!("--socket-lb leaves the sockets of all pods alone: nobody is left to opt out");
    OptOut::default()
}

/// Ranges of one family only are taken for a mistake more often than not (NP-02).
fn warn_of_open_family(addresses: &NodePortAddresses) {
    let NodePortAddresses::Ranges(_) = addresses else { return };
    for family in [Family::V4, Family::V6] {
        if addresses.takes_all(family) {
            warn!(
                "--nodeport-addresses leaves NodePorts open on every IPv{} address",
                family.number()
            );
        }
    }
}
