//! A cluster's DNS as clusters have it: CoreDNS reads Services from the real API server, through
//! the ClusterIP of `default/kubernetes`; pods resolve names with glibc's getaddrinfo().

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Output;

use kproxy_lab::manifest::{Service, Slice, slices};
use kproxy_lab::{ControlPlane, Family, Lab, POD_PORT, Place, Probe, Process, ProxySpec, Source};
use serde_json::json;

use super::{PORT, start};

/// ClusterIPs of the DNS: what every pod's resolv.conf names.
const DNS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
/// ClusterIPs of `web`.
const WEB: [&str; 2] = ["10.96.0.30", "fd00:10:96::30"];
/// Endpoints of `many`: more addresses than 512 bytes hold.
const MANY: u8 = 60;
/// Times that each name is looked up.
const ROUNDS: usize = 40;

/// What CoreDNS may read, as its own deployment grants it.
const RIGHTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: 'system:coredns'}
rules:
- apiGroups: ['']
  resources: [endpoints, services, pods, namespaces]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: 'system:coredns'}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:coredns'}
subjects:
- {kind: ServiceAccount, name: coredns, namespace: kube-system}
";

/// Services of the cluster: its DNS on `n1/a` and `n2/a`, `web` on `n2/b`, and the headless `many`.
fn services(lab: &Lab, control: &ControlPlane) {
    let api = control.api();
    let in_system = json!({"namespace": "kube-system"});
    let dns = Service::new("kube-dns")
        .metadata(in_system.clone())
        .cluster_ips(DNS[0], DNS[1])
        .port("dns", "UDP", PORT, PORT)
        .port("dns-tcp", "TCP", PORT, PORT);
    api.apply_object(dns).unwrap();
    for family in Family::ALL {
        let slice = Slice::of("kube-dns", family).metadata(in_system.clone());
        let slice = slice.port("dns", "UDP", PORT).port("dns-tcp", "TCP", PORT);
        api.apply_object(slice.pod(&lab.pod("n1", "a")).pod(&lab.pod("n2", "a"))).unwrap();
    }
    let web = Service::new("web").cluster_ips(WEB[0], WEB[1]).port("http", "TCP", 80, POD_PORT);
    api.apply_object(web).unwrap();
    for slice in slices("web", "http", "TCP", POD_PORT, &[&lab.pod("n2", "b")]) {
        api.apply_object(slice).unwrap();
    }
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
    api.apply_object(Service::new("many").port("http", "TCP", 80, 80).spec(headless)).unwrap();
    let ready = json!({"ready": true});
    let many = (1..=MANY).fold(Slice::of("many", Family::V4).port("http", "TCP", 80), |s, n| {
        s.endpoint(IpAddr::from([198, 51, 100, n]), "n1", ready.clone())
    });
    api.apply_object(many).unwrap();
}

/// A kubeconfig that names the API server by its ClusterIP, as pods find it.
fn kubeconfig(control: &ControlPlane) -> PathBuf {
    control.api().apply(RIGHTS).unwrap();
    let file = control.service_account_kubeconfig("kube-system", "coredns").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("https://").unwrap();
    let (_server, after) = after.split_once('\n').unwrap();
    let quote = if before.ends_with('"') { "\"" } else { "" };
    fs::write(&file, format!("{before}https://10.96.0.1:443{quote}\n{after}")).unwrap();
    file
}

/// Resolves names with getaddrinfo() and a resolv.conf of the pod's own: `getent` of the C library.
fn getaddrinfo(from: &Place, resolv_conf: &str, names: &[&str]) -> Output {
    let dir = from.dir().unwrap();
    let files = ["resolv.conf", "nsswitch.conf"].map(|name| dir.join(name));
    fs::write(&files[0], resolv_conf).unwrap();
    fs::write(&files[1], "hosts: files dns\n").unwrap();
    let script = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/nsswitch.conf \
        && shift 2 && exec getent ahosts \"$@\"";
    let mut command = from.command("unshare").unwrap();
    command.args(["--mount", "sh", "-c", script, "sh"]).args(&files).args(names);
    command.output().unwrap()
}

fn resolv_conf(server: &str, options: &str) -> String {
    // One attempt: a question or an answer that is lost is a lookup that fails.
    format!(
        "nameserver {server}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5 timeout:10 attempts:1 {options}\n"
    )
}

/// Streams' addresses in the output of `getent ahosts`, in order: `10.96.0.30 STREAM web…`.
fn addresses(output: &Output, what: &str) -> Vec<IpAddr> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let out = text(&output.stdout);
    assert!(output.status.success(), "{what}: {}: {out}{}", output.status, text(&output.stderr));
    out.lines().filter_map(|line| line.split_once(" STREAM")?.0.trim().parse().ok()).collect()
}

fn cluster() -> (Lab, [Process; 2]) {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    services(&lab, control);
    let kubeconfig = kubeconfig(control);
    lab.start_proxies(ProxySpec::kproxy(Source::Api)).unwrap();
    let plugin = format!(
        "kubernetes cluster.local in-addr.arpa ip6.arpa {{
            kubeconfig {}
        }}",
        kubeconfig.display()
    );
    let servers = [("n1", 101), ("n2", 102)]
        .map(|(node, number)| start(&lab.pod(node, "a"), number, &plugin));
    (lab, servers)
}

#[test]
fn glibc_resolves_names_of_services_through_the_clusterip_of_coredns() {
    let (lab, _servers) = cluster();
    let names = ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local."];
    let all: Vec<&str> = names.iter().copied().cycle().take(ROUNDS * names.len()).collect();
    let web = WEB.map(|ip| ip.parse::<IpAddr>().unwrap());
    for from in [lab.pod("n1", "b"), lab.pod("n2", "b"), lab.node("n1")] {
        for server in DNS {
            // Both questions at once over UDP, one after the other, and both over one connection.
            for options in ["", "single-request", "use-vc"] {
                let what = format!("{} asks {server} {options}", from.name());
                let output = getaddrinfo(&from, &resolv_conf(server, options), &all);
                let found = addresses(&output, &what);
                for ip in web {
                    let count = found.iter().filter(|found| **found == ip).count();
                    assert_eq!(count, all.len(), "{what}: {ip}");
                }
                assert_eq!(found.len(), 2 * all.len(), "{what}");
            }
            // An answer that is too long for UDP is asked for again over TCP.
            let what = format!("{} asks {server} for many", from.name());
            let output = getaddrinfo(&from, &resolv_conf(server, ""), &["many"]);
            let found: BTreeSet<IpAddr> = addresses(&output, &what).into_iter().collect();
            assert_eq!(found.len(), usize::from(MANY), "{what}");
        }
    }
    // What was resolved is a ClusterIP that answers.
    for ip in web {
        let outcome = lab.pod("n1", "b").probe(Probe::tcp((ip, 80)).count(3)).unwrap();
        assert_eq!(outcome.servers(), [("n2/b", 3)].into(), "{outcome}");
    }
}
