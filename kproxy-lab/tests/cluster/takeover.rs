//! From the real kube-proxy to kproxy and back, as docs/install.md says: what is open goes on.

use std::{net::SocketAddr, process::Command, time::Duration};

use kproxy_lab::{
    Family, Held, Hold, Lab, Mode, Outcome, POD_PORT, Place, Probe, Proxy, ProxySpec, Source,
    manifest::{Service, slices},
};
use serde_json::Value;

use crate::common::wait_until;

/// Backends on the dialled node and on the other one, and the NodePorts that lead to them.
const BACKENDS: [(&str, [(&str, u16); 2]); 2] =
    [("n1/a", [("TCP", 30_080), ("UDP", 30_081)]), ("n2/a", [("TCP", 30_082), ("UDP", 30_083)])];

fn objects(lab: &Lab) -> Vec<Value> {
    let mut all = Vec::new();
    for (backend, ports) in BACKENDS {
        let backend = lab.place(backend).unwrap();
        for (protocol, port) in ports {
            let name = format!("{}-{port}", protocol.to_lowercase());
            let service = Service::new(&name).of_type("NodePort");
            all.push(service.port("main", protocol, 80, POD_PORT).node_port(port).into());
            let slices = slices(&name, "main", protocol, POD_PORT, &[&backend]);
            all.extend(slices.map(Value::from));
        }
    }
    all
}

/// Every frontend, with its protocol.
fn frontends(lab: &Lab) -> Vec<(&'static str, SocketAddr)> {
    let ports = BACKENDS.into_iter().flat_map(|(_, ports)| ports);
    let node = lab.node("n1");
    ports.flat_map(|(protocol, port)| Family::ALL.map(|f| (protocol, node.at(f, port)))).collect()
}

fn probes(lab: &Lab) -> impl Iterator<Item = Probe> {
    let all = frontends(lab).into_iter();
    all.map(|(protocol, to)| if protocol == "TCP" { Probe::tcp(to) } else { Probe::udp(to) })
}

/// A connection or a dialogue by each frontend.
fn hold(lab: &Lab, client: &Place) -> Vec<Held> {
    let all = frontends(lab).into_iter();
    all.map(|(protocol, to)| if protocol == "TCP" { Hold::tcp(to) } else { Hold::udp(to) })
        .map(|hold| client.hold(hold.pause(Duration::from_millis(50))).unwrap())
        .collect()
}

/// All are answered as before, after a while.
fn go_on(what: &str, held: &[Held]) {
    let before: Vec<_> = held.iter().map(|held| held.report().unwrap().answered).collect();
    let reports = || held.iter().map(|held| held.report().unwrap()).collect::<Vec<_>>();
    let goes_on = || reports().iter().zip(&before).all(|(now, before)| now.answered > before + 5);
    wait_until(goes_on, || format!("{what}: {:?}", reports()));
}

fn end(what: &str, held: Vec<Held>) {
    for held in held {
        let report = held.stop().unwrap();
        assert!(report.is_flawless(), "{what}: {report:?}");
    }
}

fn dial(client: &Place, lab: &Lab, what: &str) {
    for probe in probes(lab) {
        let outcome = client.probe(probe.clone().count(20)).unwrap();
        assert!(outcome.all_answered(), "{what}, {probe:?}: {outcome}");
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// kube-proxy handles no signal: its status says nothing.
fn stop(proxy: &Proxy) {
    proxy.stop().unwrap();
}

#[test]
fn connections_of_either_proxy_go_on_by_its_rules_when_the_other_one_comes() {
    let lab = Lab::builder().nodes(2).pods(&["a"]).build().unwrap();
    let api = lab.start_control_plane().unwrap().api();
    objects(&lab).into_iter().for_each(|object| drop(api.apply_object(object).unwrap()));
    let kube_proxy = lab.start_proxy("n1", ProxySpec::kube_proxy(Mode::Nftables)).unwrap();
    let client = lab.client();
    for probe in probes(&lab) {
        client.probe_until(&probe, Outcome::all_answered).unwrap();
    }
    let of_kube_proxy = hold(&lab, &client);
    go_on("before kproxy", &of_kube_proxy);

    // kube-proxy has the address of the metrics.
    let spec = ProxySpec::kproxy(Source::Api).beside().args(["--metrics-bind-address", ""]);
    let kproxy = lab.start_proxy("n1", spec).unwrap();
    stop(&kube_proxy);
    dial(&client, &lab, "of kproxy");
    let of_kproxy = hold(&lab, &client);
    go_on("of kube-proxy", &of_kube_proxy);
    go_on("of kproxy", &of_kproxy);
    assert!(kproxy.log().contains("kube-proxy's connections go on by netfilter"));
    let flows = output(lab.kproxy_command("n1", "dump").unwrap().args(["flows", "-o", "json"]));
    let flows: Vec<Value> = serde_json::from_str(&flows).unwrap();
    let count = |kind: &str, protocol: &str| {
        flows.iter().filter(|flow| flow["kind"] == kind && flow["protocol"] == protocol).count()
    };
    assert!(count("untranslated", "TCP") >= 4 && count("untranslated", "UDP") >= 4, "{flows:#?}");
    assert!(count("service", "TCP") >= 4 && count("service", "UDP") >= 4, "{flows:#?}");
    end("of kube-proxy", of_kube_proxy);

    // Back, and nobody waits for what is open: netfilter goes on with it.
    kube_proxy.start().unwrap();
    stop(&kproxy);
    let mut cleanup = lab.kproxy_command("n1", "cleanup").unwrap();
    let said = output(cleanup.args(["--drain", "--timeout", "2s"]));
    assert!(said.contains(" 0 end now"), "{said}");
    dial(&client, &lab, "of kube-proxy again");
    go_on("of kproxy, by netfilter", &of_kproxy);
    for held in of_kproxy {
        let report = held.stop().unwrap();
        // Between the rules of one and the other a datagram may fall.
        assert!(report.broken.is_none() && report.lost <= 2, "{report:?}");
    }
}
