//! The lab that all cases share, and the order in which they are played.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use kproxy_lab::{Lab, Network, Place, Proxy};
use serde_json::{Value, json};

use super::{
    case::{Case, Who},
    look::Sight,
    names::Names,
    seen::Owners,
    settings::Settings,
    stage::Stage,
};
use crate::say;

/// Cases played side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 6;
/// Ranges of addresses outside the cluster that the cases use as externalIPs and load-balancer
/// addresses; the router sends them to the first node.
const OUTSIDE_RANGES: [(&str, &str); 2] =
    [("203.0.113.0/24", "172.18.0.11"), ("2001:db8:113::/64", "fd00:18::11")];
/// Addresses of the client that source ranges of the cases leave out.
const SECOND_CLIENT: [&str; 2] = ["192.0.2.130/24", "2001:db8::130/64"];

/// Until Kubernetes 1.36 the API server took addresses with leading zeros; they may still be stored
/// (SVC-18).
const LENIENT_ADDRESSES: &str = "--feature-gates=StrictIPCIDRValidation=false";

/// What the cases saw, by the case's name.
pub(super) type Sights = BTreeMap<String, Vec<Sight>>;

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

/// Plays cases of the same settings on one proxy.
///
/// # Errors
/// When the proxies' traces cannot be removed. Proxies that do not start are what the cases saw.
pub(super) fn play(lab: &Lab, who: Who, settings: &Settings, cases: &[&Case]) -> Result<Sights> {
    let (names, owners) = (Names::default(), Owners::default());
    let mut world = World { lab, who, proxies: Vec::new(), names, owners };
    let sights = match world.start(settings) {
        Ok(()) => world.play_all(cases),
        Err(error) => {
            say::line(format!("{who} did not start: {error:#}"));
            let sight = Sight::failure("start", &error.root_cause().to_string());
            cases.iter().map(|case| (case.name.clone(), vec![sight.clone()])).collect()
        }
    };
    world.proxies.iter().try_for_each(|proxy| proxy.remove())?;
    Ok(sights)
}

impl World<'_> {
    /// Starts the proxies and learns the places' addresses.
    fn start(&mut self, settings: &Settings) -> Result<()> {
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

    fn play_all(&self, cases: &[&Case]) -> Sights {
        let (alone, together): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|c| c.alone);
        let all = Mutex::new(Sights::new());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE {
                scope.spawn(|| {
                    while let Some(case) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.play(case, &all);
                    }
                });
            }
        });
        for case in alone {
            self.play(case, &all);
        }
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn play(&self, case: &Case, all: &Mutex<Sights>) {
        let started = std::time::Instant::now();
        let mut sights = Stage::new(self).play(case);
        if self.lab.network() != Network::Bridge {
            sights = sights.into_iter().map(Sight::on_another_network).collect();
        }
        let good = sights.iter().filter(|sight| sight.is_expected()).count();
        let took = started.elapsed().as_secs_f32();
        say::line(format!("{:<7} {good} of {} as expected ({took:.1} s)", case.name, sights.len()));
        for sight in sights.iter().filter(|sight| !sight.is_expected()) {
            say::line(format!("        {}: {}", sight.probe, sight.seen));
            say::line(format!("        expected: {}", sight.expected));
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).insert(case.name.clone(), sights);
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
