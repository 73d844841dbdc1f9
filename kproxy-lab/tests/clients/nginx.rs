//! nginx as a reverse proxy: how an ingress controller sits on Services. Clients reach it through
//! a NodePort or on the host network, it reaches its backends through a ClusterIP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use kproxy_lab::manifest::{Service, slices, yaml};
use kproxy_lab::{Family, Lab, Place, Process, ProxySpec, Source};
use serde_json::{Value, json};

/// Port of the backends.
const BACKEND: u16 = 8088;
/// Port of the reverse proxies.
const FRONT: u16 = 8089;
/// NodePorts of the reverse proxy, with external policy `Cluster` and `Local`.
const NODE_PORTS: [u16; 2] = [30080, 30081];
/// ClusterIPs of the backends.
const APP: [&str; 2] = ["10.96.0.20", "fd00:10:96::20"];
/// Ways to the backends: by IPv4 and IPv6, a connection for each request or kept ones.
const WAYS: [&str; 4] = ["/fresh-v4", "/fresh-v6", "/kept-v4", "/kept-v6"];
/// Most requests of one client on one way.
const MOST: usize = 200;

/// Starts nginx in a place with this `http` section.
fn start(place: &Place, http: &str) -> Process {
    let dir = place.dir().unwrap();
    let shown = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {shown}/{what};\n"))
        .concat();
    let config = format!(
        "daemon off;
        user root;
        worker_processes 2;
        pid {shown}/nginx.pid;
        events {{}}
        http {{
            log_format plain '$remote_addr $uri $status';
            access_log {shown}/access.log plain;
            {temporary}
            {http}
        }}"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = place.command("/usr/sbin/nginx").unwrap();
    command.args(["-e", "stderr", "-c"]).arg(&file).arg("-p").arg(&dir);
    let server = place.process("nginx", command).unwrap();
    server.launch().unwrap();
    // Written after its ports are bound.
    let pid = dir.join("nginx.pid");
    server.wait_until("its pid file", || Ok(pid.is_file())).unwrap();
    server
}

/// Answers `NAME CLIENT NUMBER`: what it is called, whom it sees, which request of the connection
/// it is.
fn backend(name: &str) -> String {
    format!(
        "server {{
            listen {BACKEND}; listen [::]:{BACKEND};
            location / {{ return 200 '{name} $remote_addr $connection_requests'; }}
        }}"
    )
}

/// Forwards to the ClusterIPs.
fn reverse_proxy() -> String {
    let [v4, v6] = [APP[0].to_owned(), format!("[{}]", APP[1])];
    let upstream = |name: &str, server: &str| {
        format!("upstream {name} {{ server {server}:80; keepalive 4; keepalive_requests 5; }}\n")
    };
    let fresh = |to: &str| format!("proxy_pass http://{to}:80;");
    let kept = |to: &str| {
        format!("proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://{to};")
    };
    let location = |(path, text): (&str, String)| format!("location = {path} {{ {text} }}\n");
    let texts = [fresh(&v4), fresh(&v6), kept("kept-v4"), kept("kept-v6")];
    let locations: String = WAYS.into_iter().zip(texts).map(location).collect();
    format!(
        "{}{}server {{ listen {FRONT}; listen [::]:{FRONT};\n{locations}}}",
        upstream("kept-v4", &v4),
        upstream("kept-v6", &v6)
    )
}

/// What a backend said.
struct Said {
    server: String,
    client: String,
    number: u32,
}

/// Asks until every backend has answered; each request has to be answered.
fn ask(from: &Place, to: SocketAddr, way: &str) -> Vec<Said> {
    let mut all = Vec::new();
    while all.len() < MOST {
        let text = from.http_get(to, way).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        let [server, client, number] = words[..] else { panic!("{to}{way} says `{text}`") };
        let number = number.parse().unwrap();
        all.push(Said { server: server.into(), client: client.into(), number });
        let servers: BTreeSet<&str> = all.iter().map(|said| said.server.as_str()).collect();
        if servers == ["n1/a", "n2/a"].into() && all.len() >= 12 {
            return all;
        }
    }
    let mut servers = BTreeMap::<_, usize>::new();
    all.iter().for_each(|said| *servers.entry(said.server.as_str()).or_default() += 1);
    panic!("{} asks {to}{way}, only these answer: {servers:?}", from.name());
}

/// Clients in the last lines of nginx's log, and how many lines there are.
fn logged(place: &Place, after: usize) -> (BTreeSet<String>, usize) {
    let log = fs::read_to_string(place.dir().unwrap().join("access.log")).unwrap();
    let client = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    (log.lines().skip(after).map(client).collect(), log.lines().count())
}

/// Backends on `n1/a` and `n2/a`; reverse proxies on `n1/b` and on the host of `n2`.
fn cluster() -> (Lab, Vec<Process>) {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let [a, b, ingress] = [("n1", "a"), ("n2", "a"), ("n1", "b")].map(|(n, p)| lab.pod(n, p));
    let servers = vec![
        start(&a, &backend(a.name())),
        start(&b, &backend(b.name())),
        start(&ingress, &reverse_proxy()),
        start(&lab.node("n2"), &reverse_proxy()),
    ];
    let app = Service::new("app").cluster_ips(APP[0], APP[1]).port("http", "TCP", 80, BACKEND);
    let mut objects = vec![Value::from(app)];
    objects.extend(slices("app", "http", "TCP", BACKEND, &[&a, &b]).map(Value::from));
    let fronts =
        [("ingress", "10.96.0.21", "fd00:10:96::21"), ("local", "10.96.0.22", "fd00:10:96::22")];
    for ((name, v4, v6), node_port) in fronts.into_iter().zip(NODE_PORTS) {
        let policy = if name == "local" { "Local" } else { "Cluster" };
        let service = Service::new(name)
            .cluster_ips(v4, v6)
            .of_type("NodePort")
            .port("http", "TCP", 80, FRONT)
            .node_port(node_port)
            .spec(json!({"externalTrafficPolicy": policy}));
        objects.push(service.into());
        objects.extend(slices(name, "http", "TCP", FRONT, &[&ingress]).map(Value::from));
    }
    lab.write_manifest("ingress.yaml", &yaml(objects).unwrap()).unwrap();
    lab.start_proxies(ProxySpec::kproxy(Source::Manifests)).unwrap();
    (lab, servers)
}

#[test]
fn nginx_behind_a_node_port_reaches_every_backend_through_a_clusterip() {
    let (lab, _servers) = cluster();
    let (client, ingress) = (lab.client(), lab.pod("n1", "b"));
    let mut lines = 0;
    for (node, node_port) in [("n1", NODE_PORTS[0]), ("n1", NODE_PORTS[1]), ("n2", NODE_PORTS[0])] {
        for family in Family::ALL {
            let to = lab.node(node).at(family, node_port);
            for way in WAYS {
                let said = ask(&client, to, way);
                let kept = said.iter().any(|said| said.number > 1);
                assert_eq!(kept, way.starts_with("/kept"), "{to}{way}");
                // The backends see the reverse proxy.
                let own = ingress.addresses().both().map(|ip| ip.to_string());
                assert!(said.iter().all(|said| own.contains(&said.client)), "{to}{way}");
            }
            // nginx sees the client when it is on the node that was asked, else that node.
            let seen = if node == "n1" { client.ip(family) } else { to.ip() };
            let (clients, now) = logged(&ingress, lines);
            assert_eq!(clients, [seen.to_string()].into(), "{to}");
            lines = now;
        }
    }
}

#[test]
fn nginx_on_the_host_network_reaches_every_backend_through_a_clusterip() {
    let (lab, _servers) = cluster();
    let (client, host) = (lab.client(), lab.node("n2"));
    let mut lines = 0;
    for family in Family::ALL {
        let to = host.at(family, FRONT);
        for way in WAYS {
            let said = ask(&client, to, way);
            let kept = said.iter().any(|said| said.number > 1);
            assert_eq!(kept, way.starts_with("/kept"), "{to}{way}");
        }
        let (clients, now) = logged(&host, lines);
        assert_eq!(clients, [client.ip(family).to_string()].into(), "{to}");
        lines = now;
    }
    // A pod reaches the backends through two Services: that of the reverse proxy, then theirs.
    let inner = SocketAddr::new("10.96.0.21".parse().unwrap(), 80);
    for way in WAYS {
        ask(&lab.pod("n2", "b"), inner, way);
    }
}
