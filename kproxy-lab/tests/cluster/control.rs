//! What may be wrong with the API server, in short; `cargo xtask chaos control` has the long form.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use kproxy_lab::manifest::{self, Service, Slice};
use kproxy_lab::{
    Api, Family, Fault, Hold, Lab, Outcome, POD_PORT, Place, Probe, Proxy, ProxySpec, Relay, Source,
};
use serde_json::{Value, json};

use crate::common::{SILENCE, at, wait_until};

/// Two Services, the second one to be changed at will.
const WEB: &str = "web";
const OTHER: &str = "other";

/// A lab whose kproxy reads through a relay.
struct Relayed {
    lab: Lab,
    relay: Relay,
    proxy: Arc<Proxy>,
    vips: [SocketAddr; 2],
}

impl Relayed {
    fn new() -> Self {
        let lab = Lab::builder().pods(&["a", "b", "c"]).build().unwrap();
        let relay = lab.start_control_plane().unwrap().start_relay().unwrap();
        let vips = [WEB, OTHER].map(|name| apply(&lab, name, "a"));
        let spec = ProxySpec::kproxy(Source::Api).kubeconfig(relay.kubeconfig());
        let proxy = lab.start_proxy("n1", spec).unwrap();
        let relayed = Self { lab, relay, proxy, vips };
        relayed.answers("in sync", WEB, "a");
        relayed
    }

    fn api(&self) -> &Api {
        self.lab.control().unwrap().api()
    }

    fn client(&self) -> Arc<Place> {
        self.lab.pod("n1", "c")
    }

    /// Waits until a Service is answered by this pod alone.
    fn answers(&self, what: &str, service: &str, pod: &str) {
        let vip = self.vips[usize::from(service == OTHER)];
        let wanted = [(format!("n1/{pod}"), 3)];
        let probe = Probe::tcp(vip).count(3).timeout(SILENCE);
        let is_right = |outcome: &Outcome| {
            outcome
                .servers()
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .eq(wanted.clone())
        };
        self.client().probe_until(&probe, is_right).unwrap_or_else(|error| {
            panic!("{what}: {error:#}\n{}", self.proxy.log());
        });
    }

    /// What was there before is served.
    fn still_serves(&self, what: &impl std::fmt::Debug) {
        let outcome = self.client().probe(Probe::tcp(self.vips[0]).count(5)).unwrap();
        assert!(outcome.all_answered(), "{what:?}: {outcome}\n{}", self.proxy.log());
    }

    /// Changes that kproxy has made to its maps since it started.
    fn writes(&self) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], 10_249));
        let metrics = self.lab.node("n1").http_get(address, "/metrics").unwrap();
        let line = metrics.lines().find(|line| line.starts_with("kproxy_map_writes_total"));
        line.unwrap_or_else(|| panic!("{metrics}")).to_owned()
    }

    fn problems(&self) -> String {
        let mut status = self.lab.kproxy_command("n1", "status").unwrap();
        let output = status.args(["-o", "json"]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["problems"].to_string()
    }
}

/// A Service with one endpoint; its ClusterIP.
fn apply(lab: &Lab, name: &str, pod: &str) -> SocketAddr {
    let api = lab.control().unwrap().api();
    let service = api.apply_object(Service::new(name).port("", "TCP", 80, POD_PORT)).unwrap();
    let slice = Slice::of(name, Family::V4).port("", "TCP", POD_PORT).pod(&lab.pod("n1", pod));
    api.apply_object(slice).unwrap();
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    at(ip.parse::<std::net::IpAddr>().unwrap(), 80)
}

#[test]
fn lc_11_whatever_is_wrong_with_the_api_server_traffic_goes_on_and_changes_arrive_afterwards() {
    let cluster = Relayed::new();
    let held = cluster.client().hold(Hold::tcp(cluster.vips[0])).unwrap();
    let mut pods = ["b", "a"].into_iter().cycle();
    // Few: each failure lets the watches wait longer.
    for fault in [Fault::Refuse(429), Fault::Truncate, Fault::Cut] {
        let pod = pods.next().unwrap();
        cluster.relay.set(fault.clone());
        apply(&cluster.lab, OTHER, pod);
        sleep(Duration::from_millis(300));
        cluster.still_serves(&fault);
        cluster.relay.set(Fault::None);
        cluster.answers(&format!("{fault:?}"), OTHER, pod);
    }
    // Lists that say nothing new.
    let (writes, lists) = (cluster.writes(), cluster.relay.lists());
    cluster.relay.set(Fault::Expire);
    wait_until(|| cluster.relay.lists() >= lists + 4, || "nothing is listed again".to_owned());
    cluster.relay.set(Fault::None);
    let again = cluster.relay.watches();
    wait_until(|| cluster.relay.watches() >= again + 4, || "nothing is watched again".to_owned());
    assert_eq!(cluster.writes(), writes);

    // Objects that cannot be decoded stay as they were, and are named.
    let pod = pods.next().unwrap();
    cluster.relay.set(Fault::Spoil(format!("{OTHER}-v4")));
    apply(&cluster.lab, OTHER, pod);
    wait_until(
        || cluster.problems().contains("EndpointSlice default/other-v4"),
        || cluster.problems(),
    );
    cluster.answers("it is as it was", OTHER, pods.next().unwrap());
    cluster.relay.set(Fault::None);
    let mended = json!({"metadata": {"annotations": {"mended": "true"}}});
    cluster.api().patch("EndpointSlice", "default", "other-v4", mended).unwrap();
    cluster.answers("mended", OTHER, pod);

    // The own Node goes, and is not there when kproxy starts.
    cluster.api().delete("Node", "", "n1").unwrap();
    cluster.proxy.kill().unwrap();
    cluster.proxy.start().unwrap();
    assert!(cluster.proxy.log().contains("writes=0"), "{}", cluster.proxy.log());
    cluster.still_serves(&"no Node");
    cluster.api().apply_object(manifest::node(&cluster.lab.node("n1"))).unwrap();

    // Many changes at once, and the last ones count.
    for number in 0..50 {
        for service in [WEB, OTHER] {
            apply(&cluster.lab, service, if number % 2 == 0 { "b" } else { "a" });
        }
    }
    for service in [WEB, OTHER] {
        cluster.answers("the last change", service, "a");
    }
    let report = held.stop().unwrap();
    assert!(report.is_flawless(), "{report:?}");
    cluster.proxy.kill().unwrap();
    cluster.proxy.start().unwrap();
    assert!(cluster.proxy.log().contains("writes=0"), "{}", cluster.proxy.log());
}

#[test]
fn an_api_server_that_comes_back_with_an_older_store_is_believed() {
    let cluster = Relayed::new();
    let control = cluster.lab.control().unwrap();
    control.save_store().unwrap();
    apply(&cluster.lab, OTHER, "b");
    cluster.answers("a change that will not have been", OTHER, "b");
    cluster.api().delete("Service", "default", WEB).unwrap();
    let gone = |outcome: &Outcome| outcome.answered() == 0;
    cluster.client().probe_until(&Probe::tcp(cluster.vips[0]).timeout(SILENCE), gone).unwrap();
    // Far ahead of what the store will be.
    for _ in 0..20 {
        apply(&cluster.lab, OTHER, "a");
        apply(&cluster.lab, OTHER, "b");
    }
    cluster.answers("the last change", OTHER, "b");
    control.restore_store().unwrap();
    cluster.answers("as it was", OTHER, "a");
    cluster.answers("there again", WEB, "a");
    assert!(cluster.proxy.log().contains("knows less than it has told"), "{}", cluster.proxy.log());
    // And it goes on from there.
    apply(&cluster.lab, OTHER, "b");
    cluster.answers("a change since", OTHER, "b");
}
