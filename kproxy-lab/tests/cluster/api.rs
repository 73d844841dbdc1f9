//! kproxy on the real API server.

use std::collections::BTreeSet;
use std::time::Duration;

use kproxy_lab::manifest::{Service, Slice, pod as pod_object, slices};
use kproxy_lab::{
    Api, Family, Hold, Lab, Outcome, POD_PORT, Place, Probe, ProxySpec, Source, Transport,
    poll_until,
};
use serde_json::{Value, json};

use crate::asked::{Asked, granted_by};
use crate::common::{SILENCE, at, wait_until};
use crate::opt_out::leads_to;

/// Asks until the outcome is as wanted.
fn until(what: &str, from: &Place, probe: &Probe, wanted: impl Fn(&Outcome) -> bool) {
    from.probe_until(probe, wanted).expect(what);
}

fn cluster_ip(service: &Value) -> std::net::SocketAddr {
    at(service["spec"]["clusterIP"].as_str().unwrap().parse::<std::net::IpAddr>().unwrap(), 80)
}

/// A Service with one endpoint: its ClusterIP and port.
fn web_of(lab: &Lab, api: &Api) -> std::net::SocketAddr {
    let web = api.apply_object(Service::new("web").port("", "TCP", 80, POD_PORT)).unwrap();
    let slice = Slice::of("web", Family::V4).port("", "TCP", POD_PORT).pod(&lab.pod("n1", "a"));
    api.apply_object(slice).unwrap();
    cluster_ip(&web)
}

#[test]
fn services_are_created_changed_and_deleted_on_the_real_api_server() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    lab.start_proxies(ProxySpec::kproxy(Source::Api)).unwrap();
    let (pod, client, host) = (lab.pod("n1", "b"), lab.client(), lab.node("n1"));
    let (a, b) = (lab.pod("n1", "a"), lab.pod("n2", "a"));

    // EPS-17: the Service comes first and refuses, then its slices.
    let web = Service::new("web").of_type("NodePort").port("http", "TCP", 80, POD_PORT);
    let web = api.apply_object(web.node_port(30_090)).unwrap();
    let vip = cluster_ip(&web);
    until("no slices yet", &pod, &Probe::tcp(vip), Outcome::all_refused);
    for slice in slices("web", "http", "TCP", POD_PORT, &[&a, &b]) {
        api.apply_object(slice).unwrap();
    }
    let both = |outcome: &Outcome| outcome.all_answered() && outcome.server_set().len() == 2;
    let node_port = host.at(Family::V6, 30_090);
    for (from, to) in [(&pod, vip), (&host, vip), (&client, node_port)] {
        until("two backends", from, &Probe::tcp(to).count(6), both);
    }

    // An endpoint that is not ready any more.
    let [mut v4, _] = slices("web", "http", "TCP", POD_PORT, &[&a]);
    v4 = v4.pod_with(&b, json!({"ready": false, "serving": false, "terminating": false}));
    api.apply_object(v4).unwrap();
    until("only a", &pod, &Probe::tcp(vip).count(6), |o| o.servers() == [("n1/a", 6)].into());

    // NP-10: another NodePort; the old one stops.
    api.patch(
        "Service",
        "default",
        "web",
        json!({"spec": {"ports": [{"name": "http", "protocol": "TCP", "port": 80,
            "targetPort": POD_PORT, "nodePort": 30_091}]}}),
    )
    .unwrap();
    let v4 = |port| host.at(Family::V4, port);
    until("new NodePort", &client, &Probe::tcp(v4(30_091)), Outcome::all_answered);
    until("old NodePort", &client, &Probe::tcp(v4(30_090)), Outcome::all_refused);

    // SEL-01: handed to another proxy, and back.
    let label = "service.kubernetes.io/service-proxy-name";
    let labels = |value: Value| json!({"metadata": {"labels": {label: value}}});
    api.patch("Service", "default", "web", labels("other".into())).unwrap();
    let silent = Probe::tcp(vip).timeout(SILENCE);
    until("another proxy's", &pod, &silent, |o| o.answered() + o.refused() == 0);
    api.patch("Service", "default", "web", labels(Value::Null)).unwrap();
    until("ours again", &pod, &Probe::tcp(vip), Outcome::all_answered);

    // SEL-04: headless slices do not count.
    let headless = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    api.patch("EndpointSlice", "default", "web-v4", headless).unwrap();
    until("headless", &pod, &Probe::tcp(vip), Outcome::all_refused);

    api.delete("Service", "default", "web").unwrap();
    until("deleted", &pod, &silent, |o| o.answered() + o.refused() == 0);
}

#[test]
fn lc_11_the_api_server_may_be_away_at_start_and_later() {
    let lab = Lab::builder().build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    let pod = lab.pod("n1", "b");
    let vip = web_of(&lab, api);

    control.stop_api_server().unwrap();
    let proxy = lab.launch_proxy("n1", ProxySpec::kproxy(Source::Api)).unwrap();
    proxy.wait_for_log("API server").unwrap();
    assert!(!proxy.log().contains("in sync"), "{}", proxy.log());
    control.start_api_server().unwrap();
    proxy.wait_ready().unwrap();
    until("in sync", &pod, &Probe::tcp(vip), Outcome::all_answered);

    // Away again, and kproxy starts anew meanwhile: the pinned state stands.
    control.stop_api_server().unwrap();
    proxy.kill().unwrap();
    proxy.launch().unwrap();
    proxy.wait_for_log("API server").unwrap();
    assert!(pod.probe(Probe::tcp(vip).count(5)).unwrap().all_answered());
    control.start_api_server().unwrap();
    api.delete("EndpointSlice", "default", "web-v4").unwrap();
    until("caught up", &pod, &Probe::tcp(vip), Outcome::all_refused);
}

/// A connection that is cut without a RST, as by a firewall that has forgotten it.
#[test]
fn lc_11_an_api_server_that_falls_silent_is_noticed_and_caught_up_with() {
    let lab = Lab::builder().build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    let pod = lab.pod("n1", "b");
    let vip = web_of(&lab, api);
    let proxy = lab.start_proxy("n1", ProxySpec::kproxy(Source::Api)).unwrap();
    until("in sync", &pod, &Probe::tcp(vip), Outcome::all_answered);

    let node = lab.node("n1");
    let drop = "nft add table inet cut; \
                nft add chain inet cut in '{ type filter hook input priority 0; }'; \
                nft add rule inet cut in tcp sport 6443 drop";
    node.run("sh", &["-c", drop]).unwrap();
    api.delete("EndpointSlice", "default", "web-v4").unwrap();
    // As long as an operator should wait for it at most.
    let noticed = || Ok(proxy.log().contains("does not answer since 20"));
    let (time, pause) = (Duration::from_secs(45), Duration::from_secs(1));
    let in_time = poll_until(time, pause, noticed, |noticed| *noticed).unwrap();
    assert!(in_time, "nothing noticed\n{}", proxy.log());
    assert!(pod.probe(Probe::tcp(vip).count(5)).unwrap().all_answered(), "nothing is taken away");
    node.run("nft", &["delete", "table", "inet", "cut"]).unwrap();
    until("caught up", &pod, &Probe::tcp(vip), Outcome::all_refused);
}

/// The capabilities that the DaemonSet grants.
fn granted(objects: &[Value]) -> Vec<&str> {
    let daemon_set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    let added = container["securityContext"]["capabilities"]["add"].as_array().unwrap();
    added.iter().map(|name| name.as_str().unwrap()).collect()
}

/// The rights and capabilities that deploy/kproxy.yaml grants are those that kproxy needs.
#[test]
fn kproxy_runs_with_exactly_what_the_deployed_manifests_grant() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let asked = Asked::of("kproxy", "kproxy");
    let control = asked.start_control_plane(&lab);
    let api = control.api();
    let manifests = include_str!("../../../deploy/kproxy.yaml");
    let objects = api.apply(manifests).unwrap();
    let kubeconfig = control.service_account_kubeconfig("kproxy", "kproxy").unwrap();
    let spec =
        ProxySpec::kproxy(Source::Api).kubeconfig(&kubeconfig).capabilities(&granted(&objects));
    lab.start_proxies(spec).unwrap();

    let web = Service::new("web").of_type("NodePort").port("http", "TCP", 80, POD_PORT);
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let balanced = Service::new("balanced").port("udp", "UDP", 80, POD_PORT).spec(local);
    let web = api.apply_object(web.node_port(30_090)).unwrap();
    let balanced = api.apply_object(balanced).unwrap();
    let pods = [lab.pod("n1", "a"), lab.pod("n2", "a")];
    for slice in slices("web", "http", "TCP", POD_PORT, &[&pods[0], &pods[1]]) {
        api.apply_object(slice).unwrap();
    }
    for slice in slices("balanced", "udp", "UDP", POD_PORT, &[&pods[0]]) {
        api.apply_object(slice).unwrap();
    }
    let both = |outcome: &Outcome| outcome.all_answered() && outcome.server_set().len() == 2;
    until("a pod", &lab.pod("n1", "b"), &Probe::tcp(cluster_ip(&web)).count(6), both);
    let node_port = lab.node("n1").at(Family::V4, 30_090);
    until("the client", &lab.client(), &Probe::tcp(node_port).count(6), both);
    // A device that comes later is served with these capabilities, too.
    let host = lab.node("n1");
    host.run("ip", &["address", "add", "172.18.0.98/24", "dev", "eth0"]).unwrap();
    let late = at("172.18.0.98".parse::<std::net::IpAddr>().unwrap(), 30_090);
    until(
        "a new address",
        &lab.client(),
        &Probe::tcp(late).timeout(SILENCE),
        Outcome::all_answered,
    );
    // A load balancer's question.
    let health = balanced["spec"]["healthCheckNodePort"].as_u64().unwrap() as u16;
    let answer = lab.client().http_get(host.at(Family::V4, health), "/").unwrap();
    assert!(answer.contains("\"localEndpoints\": 1"), "{answer}");
    // A free address of the range that the API server gives ClusterIPs out from.
    let free = at("10.96.250.250".parse::<std::net::IpAddr>().unwrap(), 80);
    lab.pod("n1", "b").probe(Probe::tcp(free).timeout(SILENCE)).unwrap();
    let counters = lab.kproxy_command("n1", "dump").unwrap().arg("counters").output().unwrap();
    let counters = String::from_utf8_lossy(&counters.stdout).into_owned();
    assert!(counters.contains("free-service-address"), "{counters}");
    // A pod's socket to an endpoint that goes.
    let held = lab.pod("n1", "b").hold(Hold::udp(cluster_ip(&balanced))).unwrap();
    api.delete("EndpointSlice", "default", "balanced-v4").unwrap();
    let report = || held.report().unwrap();
    wait_until(|| !report().errors.is_empty(), || format!("{:?}", report()));
    assert_eq!(asked.so_far(), granted_by(&objects, "kproxy"), "asked for, and granted");
}

/// The patches of deploy/ change what they say and leave the rest.
#[test]
fn the_deployed_patches_fit_the_daemon_set() {
    let lab = Lab::builder().nodes(1).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    api.apply(include_str!("../../../deploy/kproxy.yaml")).unwrap();
    let patched = |text| api.patch_file("apps/v1/DaemonSet", "kproxy", "kproxy", text).unwrap();
    let container = |set: &Value| set["spec"]["template"]["spec"]["containers"][0].clone();
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"];

    let private = container(&patched(include_str!("../../../deploy/private-run.yaml")));
    let mounts = private["volumeMounts"].as_array().unwrap();
    let mount = |path: &str| mounts.iter().find(|mount| mount["mountPath"] == path).unwrap();
    assert_eq!(mount("/run/netns")["mountPropagation"], "None");
    assert_eq!(mount("/run/netns")["readOnly"], true);
    assert_eq!(mount("/sys/fs/bpf")["mountPropagation"], "HostToContainer");
    for probe in probes {
        assert_eq!(private[probe]["exec"]["command"][1], "status", "{private}");
    }

    let back = patched(include_str!("../../../deploy/go-back.yaml"));
    let resting = container(&back);
    assert_eq!(resting["args"], json!(["cleanup", "--drain", "--timeout", "10m", "--stay"]));
    assert!(probes.iter().all(|probe| resting.get(*probe).is_none()), "{resting}");
    assert_eq!(resting["image"], private["image"]);
    assert_eq!(back["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "100%");
}

/// With the rights that deploy/kproxy.yaml describes for it, in the namespace that is opted out only.
#[test]
fn pods_of_a_namespace_are_opted_out_with_the_right_to_read_that_one() {
    let lab = Lab::builder().pods(&["a", "b", "c"]).build().unwrap();
    let asked = Asked::of("kproxy", "kproxy");
    let control = asked.start_control_plane(&lab);
    let api = control.api();
    let objects = api.apply(include_str!("../../../deploy/kproxy.yaml")).unwrap();
    for namespace in ["mesh", "plain"] {
        let object = |kind: &str, fields: Value| {
            let mut object = json!({"apiVersion": "v1", "kind": kind});
            object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            api.apply_object(object).unwrap();
        };
        object("Namespace", json!({"metadata": {"name": namespace}}));
        object("ServiceAccount", json!({"metadata": {"name": "default", "namespace": namespace}}));
    }
    let (mesh, plain) = (lab.pod("n1", "b"), lab.pod("n1", "c"));
    api.apply_object(pod_object("mesh", &mesh)).unwrap();
    api.apply_object(pod_object("plain", &plain)).unwrap();
    let web = Service::new("web").port("http", "TCP", 80, POD_PORT);
    let vip = cluster_ip(&api.apply_object(web).unwrap());
    for slice in slices("web", "http", "TCP", POD_PORT, &[&lab.pod("n1", "a")]) {
        api.apply_object(slice).unwrap();
    }

    let kubeconfig = control.service_account_kubeconfig("kproxy", "kproxy").unwrap();
    let proxy = lab
        .start_proxy(
            "n1",
            ProxySpec::kproxy(Source::Api)
                .kubeconfig(&kubeconfig)
                .capabilities(&granted(&objects))
                .args(["--socket-lb-skip-namespaces", "mesh"]),
        )
        .unwrap();
    // Without the right everything else goes on, and no pod is taken for one that may be translated.
    let status = || {
        let status = lab.kproxy_command("n1", "status").unwrap().args(["-o", "json"]).output();
        serde_json::from_slice::<Value>(&status.unwrap().stdout).unwrap()
    };
    let waited = |what: &str, is_so: &dyn Fn() -> bool| {
        wait_until(is_so, || format!("{what}: {}\n{}", status(), proxy.log()));
    };
    waited("the missing right is told", &|| {
        status()["problems"].to_string().contains("ClusterRole kproxy-pods")
    });
    for pod in [&mesh, &plain] {
        assert_eq!(leads_to(pod, Transport::Tcp, vip), vip, "{}", pod.name());
    }
    api.apply_object(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "kproxy-pods", "namespace": "mesh"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kproxy-pods",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "kproxy", "namespace": "kproxy"}],
    }))
    .unwrap();
    waited("others are served", &|| leads_to(&plain, Transport::Tcp, vip) != vip);
    assert_eq!(leads_to(&mesh, Transport::Tcp, vip), vip);
    assert_eq!(status()["problems"], json!([]));

    // A Pod whose name and network namespace come before anybody knows its address.
    let mut later = pod_object("mesh", &mesh);
    later["metadata"]["name"] = "later".into();
    let running = later.as_object_mut().unwrap().remove("status").unwrap();
    api.apply_object(later).unwrap();
    api.patch_status("Pod", "mesh", "later", &json!({"phase": "Pending"})).unwrap();
    let late = lab.add_pod("n1", "late").unwrap();
    until("a new pod", &late, &Probe::tcp(vip).timeout(SILENCE), Outcome::all_answered);
    assert_eq!(leads_to(&late, Transport::Tcp, vip), vip);
    let mut running = running;
    let ips = late.addresses().both().map(|ip| json!({"ip": ip.to_string()}));
    (running["podIP"], running["podIPs"]) = (ips[0]["ip"].clone(), ips.to_vec().into());
    api.patch_status("Pod", "mesh", "later", &running).unwrap();
    let stranger = lab.add_pod("n1", "stranger").unwrap();
    until("a stranger", &stranger, &Probe::tcp(vip).timeout(SILENCE), Outcome::all_answered);
    waited("it is served", &|| leads_to(&stranger, Transport::Tcp, vip) != vip);
    assert_eq!(leads_to(&late, Transport::Tcp, vip), vip);

    // It has ended: its address may be another pod's from now on.
    api.patch_status("Pod", "mesh", "later", &json!({"phase": "Succeeded"})).unwrap();
    waited("its address is free", &|| leads_to(&late, Transport::Tcp, vip) != vip);
    assert_eq!(leads_to(&mesh, Transport::Tcp, vip), vip);
    let of_pods = |line: &String| line.contains(" pods");
    let asked: BTreeSet<String> = asked.so_far().into_iter().filter(of_pods).collect();
    assert_eq!(asked, granted_by(&objects, "kproxy-pods"), "asked for, and granted");
}
