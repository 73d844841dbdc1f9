//! `kproxy run`: makes of what was typed what is meant, and runs the daemon with it.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tracing::{info, warn};
use wildmatch::WildMatch;

use super::args::{self, RunArgs};
use super::exit::Exit;
use super::render::yaml;
use super::values::{ClusterRanges, DeviceGlob};
use crate::config::{self, GoDuration, InForce, KubeProxyConfiguration};
use crate::daemon::{self, Conntrack, RunDir, Settings, SocketLb, Source, SourceNat, Started};
use crate::dataplane;
use crate::node::{name, watch::Names};
use crate::plan::{Family, NodePortAddresses, OptOut};

/// What is in force of kube-proxy's configuration.
///
/// # Errors
/// The file or a value cannot be used.
pub(super) fn in_force(args: &RunArgs) -> Result<InForce, config::Error> {
    config::resolve(args.config.as_deref(), &args.kube_proxy.0)
}

/// Runs until SIGTERM or SIGINT. The data path is left in place.
///
/// # Errors
/// A setting cannot be used, and those of the daemon.
pub(super) fn run(args: RunArgs, in_force: InForce) -> Result<Exit> {
    if let Some(file) = &args.write_config_to {
        write_config(file, &in_force.config)?;
        return Ok(Exit::Fine);
    }
    let (init_only, settings) = (args.init_only, settings(args, in_force.config)?);
    if init_only {
        daemon::set_conntrack(&settings);
    } else {
        daemon::run(settings)?;
    }
    Ok(Exit::Fine)
}

fn write_config(file: &Path, config: &KubeProxyConfiguration) -> Result<()> {
    let told = || format!("write {}, which --write-config-to names", file.display());
    let mut text = Vec::new();
    yaml::write(&mut text, config)?;
    std::fs::File::create(file).and_then(|mut file| file.write_all(&text)).with_context(told)?;
    info!(file = %file.display(), "the configuration is written");
    Ok(())
}

/// What was typed, as the daemon takes it.
///
/// # Errors
/// A value cannot be used.
pub(super) fn settings(args: RunArgs, config: KubeProxyConfiguration) -> Result<Settings> {
    let RunArgs {
        manifests,
        master,
        config: _,
        write_config_to: _,
        kube_proxy: _,
        serve_external_ips,
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
        cleanup: _,
        init_only: _,
        pins,
        run_dir,
    } = args;
    let opt_out = OptOut {
        ranges: socket_lb_skip_pod_cidrs.into_iter().map(|range| range.0).collect(),
        namespaces: socket_lb_skip_namespaces.into_iter().map(|name| name.0).collect(),
    };
    let ports = snat_ports.map(|range| range.0);
    let globs = |given: Vec<DeviceGlob>| given.iter().map(|g| WildMatch::new(g.as_str())).collect();
    let kubeconfig = Some(&config.client_connection.kubeconfig).filter(|path| !path.is_empty());
    let node_port_addresses = node_port_addresses(&config);
    warn_of_open_family(&node_port_addresses);
    let named = Some(config.hostname_override.as_str()).filter(|name| !name.is_empty());
    let node_name = named.map_or_else(name::of_host, name::normalize);
    let cluster_cidrs = config.cluster_cidr.parse::<ClusterRanges>();
    Ok(Settings {
        node_name: node_name.context("hostnameOverride (--hostname-override)")?,
        source: match manifests {
            Some(dir) => Source::Manifests(dir),
            None => Source::ApiServer {
                kubeconfig: kubeconfig.map(Into::into),
                url: master.filter(|url| !url.is_empty()),
            },
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
        cluster_cidrs: cluster_cidrs
            .map_err(anyhow::Error::msg)
            .context("clusterCIDR (--cluster-cidr)")?
            .0,
        node_port_addresses,
        bind_address: config.bind_address.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()),
        serve_external_ips,
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
        // Checked to be an address, or nothing for nowhere.
        metrics_address: config.metrics_bind_address.parse().ok(),
        healthz_address: config.healthz_bind_address.parse().ok(),
        conntrack: conntrack(&config.conntrack),
        config,
        started: Started::here(),
    })
}

/// Checked to be neither negative nor too large.
fn conntrack(given: &config::Conntrack) -> Conntrack {
    let number = |number: Option<i32>| number.unwrap_or_default().unsigned_abs();
    let seconds = |time: GoDuration| u32::try_from(time.as_seconds()).unwrap_or_default();
    Conntrack {
        max_per_core: number(given.max_per_core),
        min: number(given.min),
        tcp_established: seconds(given.tcp_established_timeout.unwrap_or_default()),
        tcp_close_wait: seconds(given.tcp_close_wait_timeout.unwrap_or_default()),
        tcp_be_liberal: given.tcp_be_liberal,
        udp: seconds(given.udp_timeout),
        udp_stream: seconds(given.udp_stream_timeout),
    }
}

/// Checked to be words and ranges (NP-02, NP-04). `iptables.localhostNodePorts` is what kube-proxy has to leave
/// loopback out.
fn node_port_addresses(config: &KubeProxyConfiguration) -> NodePortAddresses {
    let loopback = config.iptables.localhost_node_ports.unwrap_or(true);
    let mut addresses = NodePortAddresses { loopback, ..NodePortAddresses::default() };
    for text in config.node_port_addresses.iter().flatten() {
        let ranges: &[&str] = match text.as_str() {
            "primary" => {
                addresses.primary = true;
                &[]
            }
            "localhost" => &["127.0.0.0/8", "::1/128"],
            "all" => &["0.0.0.0/0", "::/0"],
            range => &[range],
        };
        let ranges = ranges.iter().filter_map(|range| range.parse::<IpNet>().ok());
        addresses.ranges.extend(ranges.map(|range| range.trunc()));
    }
    addresses
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
    for family in [Family::V4, Family::V6] {
        let named = addresses.ranges.iter().any(|range| Family::of(&range.addr()) == family);
        if !addresses.ranges.is_empty() && !named && addresses.is_open(family) {
            warn!(
                "nodePortAddresses (--nodeport-addresses) leaves NodePorts open on every IPv{} address",
                family.number()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn np_02_np_04_np_07_words_and_ranges_of_node_ports() {
        let of = |texts: &[&str], localhost| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            let mut config = KubeProxyConfiguration {
                node_port_addresses: Some(texts),
                ..KubeProxyConfiguration::default()
            };
            config.iptables.localhost_node_ports = Some(localhost);
            let NodePortAddresses { ranges, primary, loopback } = node_port_addresses(&config);
            let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
            (ranges.join(" "), primary, loopback)
        };
        for (texts, ranges, primary) in [
            (&[][..], "", false),
            (&["primary"], "", true),
            (&["192.0.2.7/24", "fd00::1/64"], "192.0.2.0/24 fd00::/64", false),
            (&["localhost", "primary"], "127.0.0.0/8 ::1/128", true),
            (&["all"], "0.0.0.0/0 ::/0", false),
        ] {
            assert_eq!(of(texts, true), (ranges.to_owned(), primary, true), "{texts:?}");
            assert_eq!(of(texts, false), (ranges.to_owned(), primary, false), "{texts:?}");
        }
    }
}
