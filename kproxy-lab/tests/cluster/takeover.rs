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

/// Rules of somebody else: a table of nftables, a chain of iptables with a jump to it.
const FOREIGN: &str = "
nft add table inet somebody
nft add chain inet somebody input '{ type filter hook input priority 10; }'
nft add rule inet somebody input counter comment somebody
for iptables in iptables ip6tables; do
  $iptables -t nat -N KUBE-SOMEBODY
  $iptables -t nat -A PREROUTING -m comment --comment 'of somebody' -j KUBE-SOMEBODY
  $iptables -t nat -A POSTROUTING -m mark --mark 0x77 -j MASQUERADE
done
";
/// What kube-proxy would have made with the other implementation of iptables.
const LEGACY: &str = "
iptables-legacy -t nat -N KUBE-SERVICES
iptables-legacy -t nat -N KUBE-SVC-ERIFXISQEP7F7OF4
iptables-legacy -t nat -A KUBE-SERVICES -d 10.96.9.9 -j KUBE-SVC-ERIFXISQEP7F7OF4
iptables-legacy -t nat -A OUTPUT -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
iptables-legacy -t nat -A OUTPUT -d 192.0.2.77 -m comment --comment 'of somebody' -j ACCEPT
";
/// All that iptables has, without counters, and the names of nftables' tables.
const RULES: &str = "
for save in iptables-nft-save ip6tables-nft-save; do
  $save 2>/dev/null | grep -v '^#' | sed 's/ \\[.*//'
done
iptables-legacy-save | grep -v '^#' | sed 's/ \\[.*//'
nft list tables | grep -v ' \\(nat\\|filter\\|mangle\\)$'
nft --stateless list table inet somebody
";

fn shell(place: &Place, script: &str) -> String {
    place.run("sh", &["-ec", script]).unwrap()
}

/// `kproxy cleanup --kube-proxy` on the node: whether it ended well, and all that it said.
fn clean(lab: &Lab, more: &[&str]) -> (bool, String) {
    let mut command = lab.kproxy_command("n1", "cleanup").unwrap();
    let output = command.arg("--kube-proxy").args(more).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn refused(lab: &Lab, why: &str) {
    let (done, said) = clean(lab, &[]);
    assert!(!done && said.contains(why), "{why}: {said}");
}

/// kube-proxy of this mode leaves a node to kproxy, and its rules go with `before` in place as it began.
fn its_rules_go_and_no_others(mode: Mode, foreign: &str, wanted: &[&str]) {
    let lab = Lab::builder().nodes(2).pods(&["a"]).build().unwrap();
    let api = lab.start_control_plane().unwrap().api();
    objects(&lab).into_iter().for_each(|object| drop(api.apply_object(object).unwrap()));
    let (node, client) = (lab.node("n1"), lab.client());
    shell(&node, foreign);
    let before = shell(&node, RULES);
    let kube_proxy = lab.start_proxy("n1", ProxySpec::kube_proxy(mode)).unwrap();
    for probe in probes(&lab) {
        client.probe_until(&probe, Outcome::all_answered).unwrap();
    }
    let of_kube_proxy = hold(&lab, &client);
    go_on("before kproxy", &of_kube_proxy);
    refused(&lab, "kube-proxy is running");
    let spec = ProxySpec::kproxy(Source::Api).beside().args(["--metrics-bind-address", ""]);
    let kproxy = lab.start_proxy("n1", spec).unwrap();
    stop(&kube_proxy);

    if mode == Mode::Nftables {
        // Its table is the last that translates addresses.
        refused(&lab, "that kube-proxy has opened would end");
        shell(
            &node,
            "for ip in ip ip6; do nft add table $ip other; \
             nft add chain $ip other nat '{ type nat hook postrouting priority srcnat; }'; \
             nft add rule $ip other nat meta mark 0x77 masquerade; done",
        );
    }
    let (done, said) = clean(&lab, &["--dry-run"]);
    assert!(done, "{said}");
    wanted
        .iter()
        .for_each(|line| assert!(said.contains(&format!("would remove {line}")), "{said}"));
    let of_kproxy = hold(&lab, &client);
    std::thread::scope(|scope| {
        let dialling = scope.spawn(|| (0..3).for_each(|_| dial(&client, &lab, "meanwhile")));
        let (done, said) = clean(&lab, &[]);
        assert!(done, "{said}");
        wanted.iter().for_each(|line| assert!(said.contains(&format!("removed {line}")), "{said}"));
        assert!(said.contains("that kube-proxy has opened: netfilter goes on with them"), "{said}");
        dialling.join().unwrap();
    });
    go_on("of kproxy", &of_kproxy);
    go_on("of kube-proxy", &of_kube_proxy);
    end("of kproxy", of_kproxy);
    end("of kube-proxy", of_kube_proxy);
    let (done, said) = clean(&lab, &[]);
    assert!(done && said == "nothing to remove\n", "{said}");
    // What kube-proxy makes for the kubelet and leaves, it leaves with us, too.
    let is_others = |line: &&str| !line.contains("KUBE-FIREWALL") && !line.contains(" other");
    let lines = |text: &str| -> Vec<String> {
        let mut lines: Vec<_> = text.lines().filter(is_others).map(str::to_owned).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let after = shell(&node, RULES);
    // Those of the other implementation were there before.
    let is_its = |line: &&str| line.contains("KUBE-SERVICES") || line.contains("KUBE-SVC-");
    assert_eq!(after.lines().find(is_its), None);
    let before: String = before
        .lines()
        .filter(|line| !is_its(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let (before, after) = (lines(&before), lines(&after));
    let empty =
        |line: &&String| line.starts_with('*') || line.starts_with(':') || *line == "COMMIT";
    assert_eq!(before.iter().find(|line| !after.contains(line)), None, "gone");
    for line in after.iter().filter(|line| !before.contains(line)) {
        // Tables and chains of the kernel's stay, as the other proxy leaves them.
        assert!(empty(&line) && !line.contains("KUBE-"), "left: {line}");
    }
    drop(kproxy);
}

#[test]
fn rules_of_mode_nftables_go_and_no_others() {
    let tables = ["nftables table ip kube-proxy", "nftables table ip6 kube-proxy"];
    let no_iptables = FOREIGN.split("for iptables").next().unwrap();
    its_rules_go_and_no_others(Mode::Nftables, no_iptables, &tables);
}

#[test]
fn rules_of_mode_iptables_go_and_no_others() {
    let wanted = [
        "2 chains and 1 jump to them from table nat of iptables-legacy",
        "1 chain and 0 jumps to them from table mangle of iptables-nft",
        "1 chain and 0 jumps to them from table mangle of ip6tables-nft",
    ];
    its_rules_go_and_no_others(Mode::Iptables, &format!("{FOREIGN}{LEGACY}"), &wanted);
}

#[test]
fn rules_stay_while_nobody_else_serves() {
    let lab = Lab::builder().nodes(1).pods(&["a"]).build().unwrap();
    let node = lab.node("n1");
    shell(&node, "nft add table ip kube-proxy");
    refused(&lab, "kproxy does not serve on this node");
    let (done, said) = clean(&lab, &["--force"]);
    assert!(done && said == "removed nftables table ip kube-proxy\n", "{said}");
    assert!(!shell(&node, "nft list tables").contains("kube-proxy"));

    // Of mode ipvs, a device by its name; whether there are sets, nobody can say without ipset.
    let addresses =
        "ip link add kube-ipvs0 type bridge; ip address add 10.96.0.10/32 dev kube-ipvs0";
    shell(&node, addresses);
    let (done, said) = clean(&lab, &["--force"]);
    assert!(said.starts_with("removed device kube-ipvs0\n"), "{said}");
    assert!(done || said.contains("there is no ipset; install the package ipset"), "{said}");
    assert!(!shell(&node, "ip link").contains("kube-ipvs0"));
}
