//! kube-proxy's configuration, field by field.

use std::path::Path;

use serde_json::{Value, json};

use super::flags::{FLAGS, Typed};
use super::*;

const FILE: &str = "/var/lib/kube-proxy/config.conf";

/// What kubeadm 1.36 writes into its ConfigMap for `podSubnet: 10.244.0.0/16`: `kubeadm init phase addon kube-proxy`
/// encodes the internal type without its defaults.
const KUBEADM: &str = "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: \"\"
  interfaceNamePrefix: \"\"
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: \"\"
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
metricsBindAddress: \"\"
mode: \"\"
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: \"\"
showHiddenMetricsForVersion: \"\"
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: \"\"
  rootHnsEndpointName: \"\"
  sourceVip: \"\"
";

fn typed(flags: &[(&str, &str)]) -> Vec<Typed> {
    // In the table's order, as from the command line.
    let values = |name: &str| {
        flags.iter().filter(|flag| flag.0 == name).map(|flag| flag.1.to_owned()).collect()
    };
    assert!(flags.iter().all(|given| FLAGS.iter().any(|flag| flag.name == given.0)), "{flags:?}");
    let all = FLAGS.iter().map(|flag| Typed { flag, values: values(flag.name) });
    all.filter(|typed: &Typed| !typed.values.is_empty()).collect()
}

fn resolved(text: Option<&str>, flags: &[(&str, &str)]) -> Result<InForce, Error> {
    let file = text.map(|text| file::parse(Path::new(FILE), text)).transpose()?;
    put_together(file.map(|file| (Path::new(FILE), file)), &typed(flags))
}

/// A file with these fields.
fn file_with(fields: Value) -> String {
    let mut all = json!({"apiVersion": types::API_VERSION, "kind": types::KIND});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    all.to_string()
}

fn with(fields: Value) -> Result<InForce, Error> {
    resolved(Some(&file_with(fields)), &[])
}

/// The value of a field, and who has given it.
fn field(in_force: &InForce, path: &str) -> (String, Source) {
    let (_, value, source) =
        in_force.fields().into_iter().find(|(field, ..)| field == path).unwrap();
    (shown(&value), source)
}

#[test]
fn cfg_02_kubeadms_file_is_taken_without_a_word() {
    let in_force = resolved(Some(KUBEADM), &[("hostname-override", "N1")]).unwrap();
    assert_eq!(in_force.warnings, [""; 0]);
    let file = || Source::File(FILE.into());
    for (path, value, source) in [
        ("clientConnection.kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf", file()),
        ("clusterCIDR", "10.244.0.0/16", file()),
        ("bindAddress", "0.0.0.0", file()),
        ("hostnameOverride", "N1", Source::Flag("hostname-override")),
        // Zero, empty and null are as if they were not there.
        ("clientConnection.qps", "5.0", Source::Default),
        ("configSyncPeriod", "15m0s", Source::Default),
        ("conntrack.maxPerCore", "32768", Source::Default),
        ("conntrack.tcpCloseWaitTimeout", "1h0m0s", Source::Default),
        ("healthzBindAddress", "0.0.0.0:10256", Source::Default),
        ("metricsBindAddress", "127.0.0.1:10249", Source::Default),
        ("logging.flushFrequency", "5s", Source::Default),
        ("nodePortAddresses", "", Source::Default),
        ("oomScoreAdj", "-999", Source::Default),
    ] {
        assert_eq!(field(&in_force, path), (value.to_owned(), source), "{path}");
    }
}

/// What is written is read as the same again, by kproxy as by kube-proxy.
#[test]
fn cfg_04_what_is_written_is_read_as_the_same() {
    let given = json!({
        "mode": "ipvs", "nodePortAddresses": ["primary", "192.0.2.0/24"], "oomScoreAdj": -5,
        "featureGates": {"AllAlpha": true, "KubeProxyIPVS": true},
        "logging": {"flushFrequency": 7_000_000_000_i64, "verbosity": 4,
            "vmodule": [{"filePattern": "proxier*", "verbosity": 6}]},
        "ipvs": {"scheduler": "rr", "excludeCIDRs": ["192.0.2.0/24"], "tcpTimeout": "1.5s"},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "udpTimeout": "30s"},
    });
    for text in [KUBEADM.to_owned(), file_with(given), file_with(json!({}))] {
        let first = resolved(Some(&text), &[]).unwrap();
        let written = serde_saphyr::to_string(&first.config).unwrap();
        let second = resolved(Some(&written), &[]).unwrap();
        assert_eq!(first.config, second.config, "{written}");
    }
    assert_eq!(resolved(None, &[]).unwrap().config, KubeProxyConfiguration::defaults());
}

#[test]
fn cfg_02_unknown_fields_are_named_and_left_out() {
    let text = file_with(json!({
        "conntrack": {"maxPerCores": 1, "min": 7}, "nodePortAdresses": ["primary"],
        "iptables": {"sync": {"period": 1}},
    }));
    let in_force = resolved(Some(&text), &[]).unwrap();
    let fields = ["conntrack.maxPerCores", "nodePortAdresses", "iptables.sync"];
    for path in fields {
        let told = |warning: &String| warning.contains(&format!("{FILE}: {path}: no such field"));
        assert!(in_force.warnings.iter().any(told), "{path}: {:?}", in_force.warnings);
    }
    assert_eq!(in_force.warnings.len(), fields.len());
    assert_eq!(field(&in_force, "conntrack.min").0, "7");

    let twice = KUBEADM.replace("mode: \"\"", "bindAddress: 192.0.2.1");
    let in_force = resolved(Some(&twice), &[]).unwrap();
    assert_eq!(field(&in_force, "bindAddress").0, "192.0.2.1");
    assert_eq!(in_force.warnings.len(), 1, "{:?}", in_force.warnings);
    assert!(in_force.warnings[0].contains("twice"), "{:?}", in_force.warnings);
}

#[test]
fn cfg_02_files_that_cannot_be_used_are_refused_with_the_path() {
    for (text, told) in [
        ("", "holds kind"),
        ("kind: [", "no YAML"),
        ("kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1", "Kubelet"),
        ("kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1", "holds kind"),
        (&file_with(json!({"conntrack": {"maxPerCore": "many"}})), "conntrack.maxPerCore"),
        (&file_with(json!({"conntrack": {"min": 1_u64 << 40}})), "conntrack.min"),
        (&file_with(json!({"conntrack": {"udpTimeout": "1 day"}})), "conntrack.udpTimeout"),
        (&file_with(json!({"configSyncPeriod": 5})), "configSyncPeriod"),
        (&file_with(json!({"nodePortAddresses": "primary"})), "nodePortAddresses"),
        (&file_with(json!({"featureGates": {"A": "yes"}})), "featureGates.A"),
        (
            &file_with(json!({"logging": {"vmodule": [{"verbosity": -1}]}})),
            "logging.vmodule[0].verbosity",
        ),
        (&file_with(json!({"ipvs": ["rr"]})), "ipvs"),
    ] {
        let error = resolved(Some(text), &[]).unwrap_err();
        let error = crate::errors::with_causes(&error);
        assert!(error.contains(FILE) && error.contains(told), "{text}: {error}");
    }
}

/// One row a rule of `validation.go`.
#[test]
fn what_kube_proxy_refuses_is_refused_with_the_path() {
    for (fields, path) in [
        (json!({"mode": "userspace"}), "mode"),
        (json!({"mode": "ipvs", "featureGates": {"KubeProxyIPVS": false}}), "mode"),
        (json!({"iptables": {"masqueradeBit": 32}}), "iptables.masqueradeBit"),
        (json!({"iptables": {"masqueradeBit": -1}}), "iptables.masqueradeBit"),
        (json!({"mode": "nftables", "nftables": {"masqueradeBit": 32}}), "nftables.masqueradeBit"),
        (json!({"iptables": {"syncPeriod": "-1s"}}), "iptables.syncPeriod"),
        (json!({"iptables": {"minSyncPeriod": "-1s"}}), "iptables.minSyncPeriod"),
        (json!({"iptables": {"minSyncPeriod": "1m"}}), "iptables.minSyncPeriod"),
        (
            json!({"mode": "nftables", "nftables": {"minSyncPeriod": "1m"}}),
            "nftables.minSyncPeriod",
        ),
        (json!({"mode": "ipvs", "ipvs": {"syncPeriod": "-1s"}}), "ipvs.syncPeriod"),
        (json!({"mode": "ipvs", "ipvs": {"tcpTimeout": "-1s"}}), "ipvs.tcpTimeout"),
        (json!({"mode": "ipvs", "ipvs": {"tcpFinTimeout": "-1s"}}), "ipvs.tcpFinTimeout"),
        (json!({"mode": "ipvs", "ipvs": {"udpTimeout": "-1s"}}), "ipvs.udpTimeout"),
        (
            json!({"mode": "ipvs", "ipvs": {"excludeCIDRs": ["192.0.2.0/24", "x"]}}),
            "ipvs.excludeCIDRs[1]",
        ),
        (json!({"conntrack": {"maxPerCore": -1}}), "conntrack.maxPerCore"),
        (json!({"conntrack": {"min": -1}}), "conntrack.min"),
        (json!({"conntrack": {"tcpEstablishedTimeout": "-5s"}}), "conntrack.tcpEstablishedTimeout"),
        (json!({"conntrack": {"tcpCloseWaitTimeout": "-5s"}}), "conntrack.tcpCloseWaitTimeout"),
        (json!({"conntrack": {"udpTimeout": "-5s"}}), "conntrack.udpTimeout"),
        (json!({"conntrack": {"udpStreamTimeout": "-5s"}}), "conntrack.udpStreamTimeout"),
        (json!({"conntrack": {"udpTimeout": "700000h"}}), "conntrack.udpTimeout"),
        (json!({"oomScoreAdj": -1001}), "oomScoreAdj"),
        (json!({"oomScoreAdj": 1001}), "oomScoreAdj"),
        (json!({"clientConnection": {"burst": -1}}), "clientConnection.burst"),
        (json!({"configSyncPeriod": "-1s"}), "configSyncPeriod"),
        (json!({"bindAddress": "10.10.12.11:2000"}), "bindAddress"),
        (json!({"bindAddress": "node-1"}), "bindAddress"),
        (json!({"healthzBindAddress": "0.0.0.0:0"}), "healthzBindAddress"),
        (json!({"healthzBindAddress": "localhost:10256"}), "healthzBindAddress"),
        (json!({"metricsBindAddress": "127.0.0.1:65536"}), "metricsBindAddress"),
        (json!({"metricsBindAddress": ":10249"}), "metricsBindAddress"),
        (json!({"nodePortAddresses": ["192.0.2.1"]}), "nodePortAddresses[0]"),
        (json!({"nodePortAddresses": ["192.0.2.0/24", "Localhost"]}), "nodePortAddresses[1]"),
        (
            json!({"nodePortAddresses": ["primary", "10.0.0.0/8", "primary"]}),
            "nodePortAddresses[2]",
        ),
        (json!({"showHiddenMetricsForVersion": "1.34"}), "showHiddenMetricsForVersion"),
        (json!({"detectLocalMode": "Guess"}), "detectLocalMode"),
        (json!({"detectLocalMode": "BridgeInterface"}), "detectLocal.bridgeInterface"),
        (json!({"detectLocalMode": "InterfaceNamePrefix"}), "detectLocal.interfaceNamePrefix"),
        (json!({"clusterCIDR": "10.244.0.0"}), "clusterCIDR"),
        (json!({"clusterCIDR": "10.0.0.0/8,10.1.0.0/16"}), "clusterCIDR"),
        (json!({"clusterCIDR": "10.0.0.0/8,fd00::/64,fd01::/64"}), "clusterCIDR"),
        (json!({"logging": {"flushFrequency": -1}}), "logging.flushFrequency"),
        (json!({"logging": {"format": "xml"}}), "logging.format"),
        (json!({"logging": {"verbosity": 1_u32 << 31}}), "logging.verbosity"),
        (
            json!({"logging": {"format": "json", "vmodule": [{"filePattern": "a", "verbosity": 1}]}}),
            "logging.vmodule",
        ),
        (json!({"logging": {"vmodule": [{"verbosity": 1}]}}), "logging.vmodule[0]"),
        (
            json!({"logging": {"vmodule": [{"filePattern": "a=b", "verbosity": 1}]}}),
            "logging.vmodule[0]",
        ),
        (
            json!({"logging": {"options": {"text": {"splitStream": true}}}}),
            "logging.options.text.splitStream",
        ),
        (
            json!({"logging": {"options": {"json": {"infoBufferSize": "64Ki"}}}}),
            "logging.options.json.infoBufferSize",
        ),
        (
            json!({"logging": {"options": {"json": {"infoBufferSize": "big"}}}}),
            "logging.options.json.infoBufferSize",
        ),
    ] {
        let error = with(fields.clone()).expect_err(&fields.to_string()).to_string();
        // An interface that is missing nobody has given.
        let given = if path.starts_with("detectLocal.") { "" } else { &format!(" ({FILE})") };
        assert!(error.starts_with(&format!("{path}{given}: ")), "{fields}: {error}");
        assert!(!error.contains("; "), "one rule a row: {error}");
    }
    // All of them at once.
    let error = with(json!({"oomScoreAdj": 2000, "mode": "x"})).unwrap_err().to_string();
    assert!(error.contains("oomScoreAdj") && error.contains("mode"), "{error}");
}

#[test]
fn what_kube_proxy_takes_is_taken() {
    for fields in [
        json!({"mode": "ipvs", "ipvs": {"minSyncPeriod": "0s"}}),
        json!({"nftables": {"masqueradeBit": 99}}),
        json!({"ipvs": {"tcpTimeout": "-1s"}}),
        json!({"healthzBindAddress": "fd00::1", "metricsBindAddress": "[::1]:10249"}),
        json!({"nodePortAddresses": ["all", "primary", "192.0.2.0/24", "localhost"]}),
        json!({"clusterCIDR": "10.244.0.0/16,fd00:10:244::/56"}),
        json!({"detectLocalMode": "NodeCIDR", "clusterCIDR": ""}),
        json!({"logging": {"options": {"text": {"infoBufferSize": "64Ki", "splitStream": true}}},
            "featureGates": {"LoggingAlphaOptions": true}}),
    ] {
        let given = with(fields.clone());
        assert!(given.is_ok(), "{fields}: {given:?}");
    }
}

#[test]
fn fields_without_a_meaning_are_told_once_each_and_defaults_are_not() {
    let fields = json!({
        "mode": "iptables", "oomScoreAdj": -998, "bindAddressHardFail": true,
        "iptables": {"masqueradeBit": 14, "masqueradeAll": true, "syncPeriod": "1m"},
        "ipvs": {"strictARP": true}, "winkernel": {"enableDSR": true}, "portRange": "1-2",
        "clientConnection": {"qps": 50, "contentType": "application/vnd.kubernetes.protobuf"},
        "logging": {"format": "json"}, "nodePortAddresses": ["primary"],
    });
    let in_force = with(fields).unwrap();
    let told: Vec<_> =
        in_force.warnings.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let mut wanted = [
        "mode",
        "oomScoreAdj",
        "bindAddressHardFail",
        "iptables.masqueradeAll",
        "portRange",
        "iptables.syncPeriod",
        "ipvs.strictARP",
        "winkernel.enableDSR",
        "clientConnection.qps",
    ];
    wanted.sort_unstable();
    assert_eq!(told, wanted, "{:#?}", in_force.warnings);
    let gates = json!({"featureGates": {"NFTablesProxyMode": true, "RelaxedServiceNameValidation": true,
        "AllBeta": false, "MadeUp": true}});
    let warnings = with(gates).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("MadeUp"), "{warnings:?}");
}

#[test]
fn flags_come_before_the_file() {
    let text = file_with(json!({
        "conntrack": {"min": 5, "maxPerCore": 6}, "featureGates": {"AllAlpha": true, "AllBeta": true},
        "nodePortAddresses": ["192.0.2.0/24"], "hostnameOverride": "from-file",
        "metricsBindAddress": "192.0.2.1:9000",
    }));
    let flags = [
        ("conntrack-min", "7"),
        ("feature-gates", "AllAlpha=false"),
        ("feature-gates", "MultiCIDRServiceAllocator=true"),
        ("nodeport-addresses", "primary"),
        ("nodeport-addresses", "localhost, 198.51.100.0/24"),
        ("hostname-override", ""),
        ("v", "4"),
        ("metrics-bind-address", ""),
        ("healthz-bind-address", "::1"),
    ];
    let in_force = resolved(Some(&text), &flags).unwrap();
    let file = || Source::File(FILE.into());
    for (path, value, source) in [
        ("conntrack.min", "7", Source::Flag("conntrack-min")),
        ("conntrack.maxPerCore", "6", file()),
        (
            "featureGates",
            "AllAlpha=false,AllBeta=true,MultiCIDRServiceAllocator=true",
            Source::Flag("feature-gates"),
        ),
        (
            "nodePortAddresses",
            "primary,localhost,198.51.100.0/24",
            Source::Flag("nodeport-addresses"),
        ),
        ("hostnameOverride", "from-file", file()),
        ("logging.verbosity", "4", Source::Flag("v")),
        ("metricsBindAddress", "", Source::Flag("metrics-bind-address")),
        ("healthzBindAddress", "[::1]:10256", Source::Flag("healthz-bind-address")),
    ] {
        assert_eq!(field(&in_force, path), (value.to_owned(), source), "{path}");
    }
    let error = resolved(Some(&text), &[("conntrack-min", "-7")]).unwrap_err().to_string();
    assert!(error.starts_with("conntrack.min (--conntrack-min): -7: "), "{error}");
}

#[test]
fn deprecated_ports_count_where_the_address_has_none() {
    let metrics = |flags: &[(&str, &str)]| {
        let in_force = resolved(None, flags).unwrap();
        field(&in_force, "metricsBindAddress").0
    };
    let (address, port) = ("metrics-bind-address", "metrics-port");
    assert_eq!(metrics(&[(port, "9000")]), "127.0.0.1:9000");
    assert_eq!(metrics(&[(port, "0")]), "");
    assert_eq!(metrics(&[(address, "0.0.0.0"), (port, "9000")]), "0.0.0.0:9000");
    assert_eq!(metrics(&[(address, "0.0.0.0:9001"), (port, "9000")]), "0.0.0.0:9001");
    assert_eq!(metrics(&[(address, "0.0.0.0:9001"), (port, "0")]), "");
    assert!(resolved(None, &[(port, "65536")]).is_err());
}

#[test]
fn cfg_07_mode_nftables_keeps_node_ports_to_primary_addresses() {
    for (fields, wanted) in [
        (json!({"mode": "nftables"}), "primary"),
        (json!({"mode": "nftables", "nodePortAddresses": []}), "primary"),
        (json!({"mode": "nftables", "nodePortAddresses": ["all"]}), "all"),
        (json!({"mode": "iptables"}), ""),
        (json!({}), ""),
    ] {
        let in_force = with(fields.clone()).unwrap();
        assert_eq!(field(&in_force, "nodePortAddresses").0, wanted, "{fields}");
    }
}

#[test]
fn an_ipv6_node_has_ipv6_addresses_to_serve_on() {
    let in_force = with(json!({"bindAddress": "::"})).unwrap();
    assert_eq!(field(&in_force, "healthzBindAddress").0, "[::]:10256");
    assert_eq!(field(&in_force, "metricsBindAddress").0, "[::1]:10249");
}

/// Every flag sets a field that there is, and no two a field without being told apart.
#[test]
fn every_flag_has_a_field() {
    let defaults = value_of(&KubeProxyConfiguration::defaults());
    for flag in FLAGS {
        let is_there = at(&defaults, flag.path).is_some() || flag.name == "vmodule";
        assert!(is_there, "{}: {}", flag.name, flag.path);
        let without = why_without(flag.path).is_some();
        assert_eq!(flag.help.is_empty(), without, "{}", flag.name);
    }
}
