//! The lab that all cases share, with proxies of one kind.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use kproxy_lab::{Lab, Network, Place, Proxy};
use serde_json::{Value, json};

use super::{expected::Who, names::Names, settings::Settings, words::Owners};

/// Ranges of addresses outside the cluster that the cases use as externalIPs and load-balancer
/// addresses; the router sends them to the first node.
const OUTSIDE_RANGES: [(&str, &str); 2] =
    [("203.0.113.0/24", "172.18.0.11"), ("2001:db8:113::/64", "fd00:18::11")];
/// Addresses of the client that source ranges of the cases leave out.
const SECOND_CLIENT: [&str; 2] = ["192.0.2.130/24", "2001:db8::130/64"];

/// Until Kubernetes 1.36 the API server took addresses with leading zeros; they may still be stored
/// (SVC-18).
const LENIENT_ADDRESSES: &str = "--feature-gates=StrictIPCIDRValidation=false";

/// The lab with proxies of one kind.
pub(super) struct World<'a> {
    pub(super) lab: &'a Lab,
    pub(super) who: Who,
    pub(super) proxies: Vec<Arc<Proxy>>,
    /// The places.
    pub(super) names: Names,
    pub(super) owners: Owners,
}

/// Makes the lab.
///
/// # Errors
/// When it cannot be made.
pub(super) fn make_lab(network: Network) -> Result<Lab> {
    let lab = Lab::builder().network(network).nodes(2).pods(&["a", "b", "c", "d", "e"]).build()?;
    let api = lab.start_control_plane_with(&[LENIENT_ADDRESSES])?.api();
    // Cases are about what is refused, not about how many refusals a second a kernel tells.
    for place in lab.place_names() {
        let unlimited = "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; \
                         echo 0 > /proc/sys/net/ipv6/icmp/ratelimit";
        lab.place(&place)?.run("sh", &["-c", unlimited])?;
    }
    for (number, node) in (1..).zip(lab.nodes()) {
        let ranges = [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")];
        let fields = json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": format!("zone-{number}")}},
            "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        });
        api.patch("Node", "", &node, fields)?;
    }
    // A second client; never chosen unless a case binds to it.
    for address in SECOND_CLIENT {
        let arguments = ["address", "add", address, "dev", "eth0", "preferred_lft", "0"];
        lab.client().run("ip", &arguments)?;
    }
    lab.route_services_via("n1")?;
    for (range, via) in OUTSIDE_RANGES {
        lab.router().run("ip", &["route", "replace", range, "via", via])?;
    }
    Ok(lab)
}

impl<'a> World<'a> {
    /// The lab, with no proxies yet.
    pub(super) fn new(lab: &'a Lab, who: Who) -> Self {
        let (names, owners) = (Names::default(), Owners::default());
        Self { lab, who, proxies: Vec::new(), names, owners }
    }

    /// Starts the proxies and learns the places' addresses.
    pub(super) fn start(&mut self, settings: &Settings) -> Result<()> {
        for (number, node) in (1..).zip(self.lab.nodes()) {
            // A case may have flushed them (PKT-08).
            self.lab.renew_rules(&node)?;
            self.proxies.push(self.lab.launch_proxy(&node, settings.spec(self.who, number))?);
        }
        self.proxies.iter().try_for_each(|proxy| proxy.wait_ready())?;
        self.learn()
    }

    fn learn(&mut self) -> Result<()> {
        for name in self.lab.place_names() {
            let place = self.lab.place(&name)?;
            self.names.set(&name, place.addresses().both());
            for address in addresses_of(&place)? {
                self.owners.of.insert(address, name.clone());
            }
        }
        Ok(())
    }
}

/// All addresses of a place but loopback ones. A node has more than one: the bridge of its pods,
/// for example.
fn addresses_of(place: &Place) -> Result<Vec<IpAddr>> {
    let text = place.run("ip", &["-json", "address", "show"])?;
    let links: Value = serde_json::from_str(&text).context("read the output of ip")?;
    let infos = links.as_array().into_iter().flatten();
    let infos = infos.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    let addresses = infos.filter_map(|info| info["local"].as_str()?.parse::<IpAddr>().ok());
    Ok(addresses.filter(|address| !address.is_loopback()).collect())
}
