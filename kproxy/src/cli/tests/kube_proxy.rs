//! kube-proxy's command line.

use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};

use super::super::args::{Cli, Command, Format, KubeProxyCli};
use super::super::{config, is_kube_proxy, run, with_hyphens};
use super::{PLAIN, TERMINAL};
use crate::config::flags::FLAGS;

/// Every flag of kube-proxy 1.36.3 and 1.37.2 on Linux, which have the same, with a value of its own: `AddFlags` in
/// k8s.io/kubernetes `cmd/kube-proxy/app/options.go`, `AddFlags` in k8s.io/component-base `logs/api/v1/options.go`,
/// and `--boot-id-file` and `--machine-id-file` from a library. As `kube-proxy --help` lists them.
const EVERY: [&str; 62] = [
    "--bind-address=192.0.2.1",
    "--bind-address-hard-fail",
    "--boot-id-file=/proc/sys/kernel/random/boot_id",
    "--cleanup",
    "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
    "--config=/var/lib/kube-proxy/config.conf",
    "--config-sync-period=15m",
    "--conntrack-max-per-core=1",
    "--conntrack-min=2",
    "--conntrack-tcp-be-liberal",
    "--conntrack-tcp-timeout-close-wait=1h0m0s",
    "--conntrack-tcp-timeout-established=24h0m0s",
    "--conntrack-udp-timeout=1.5s",
    "--conntrack-udp-timeout-stream=2s",
    "--detect-local-mode=NodeCIDR",
    "--feature-gates=AllAlpha=true,AllBeta=false",
    "--healthz-bind-address=0.0.0.0:10256",
    "--healthz-port=10256",
    "--hostname-override=n1",
    "--init-only",
    "--iptables-localhost-nodeports",
    "--iptables-masquerade-bit=14",
    "--iptables-min-sync-period=1s",
    "--iptables-sync-period=30s",
    "--ipvs-exclude-cidrs=192.0.2.0/24,198.51.100.0/24",
    "--ipvs-min-sync-period=0s",
    "--ipvs-scheduler=rr",
    "--ipvs-strict-arp",
    "--ipvs-sync-period=30s",
    "--ipvs-tcp-timeout=1s",
    "--ipvs-tcpfin-timeout=1s",
    "--ipvs-udp-timeout=1s",
    "--kube-api-burst=10",
    "--kube-api-content-type=application/json",
    "--kube-api-qps=7.5",
    "--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf",
    "--log-flush-frequency=5s",
    "--log-json-info-buffer-size=0",
    "--log-json-split-stream=false",
    "--log-text-info-buffer-size=0",
    "--log-text-split-stream=false",
    "--logging-format=text",
    "--machine-id-file=/etc/machine-id",
    "--masquerade-all",
    "--master=https://192.0.2.1:6443",
    "--metrics-bind-address=127.0.0.1:10249",
    "--metrics-port=10249",
    "--nodeport-addresses=primary",
    "--oom-score-adj=-998",
    "--pod-bridge-interface=cni0",
    "--pod-interface-name-prefix=veth",
    "--profiling",
    "--proxy-mode=ipvs",
    "--show-hidden-metrics-for-version=1.36",
    "-v=2",
    "--v=2",
    "--version",
    "--vmodule=proxier*=4,iptables=6",
    "--write-config-to=/tmp/config.yaml",
    "-v2",
    "--hostname_override=n1",
    "--conntrack_min=7",
];

fn parsed(words: &[&str]) -> Result<KubeProxyCli, clap::Error> {
    let words = std::iter::once("kube-proxy").chain(words.iter().copied());
    KubeProxyCli::try_parse_from(with_hyphens(words.map(Into::into).collect()))
}

#[test]
fn every_flag_of_kube_proxy_is_accepted() {
    for flag in EVERY {
        let cli = parsed(&[flag]).unwrap_or_else(|error| panic!("{flag}: {error}"));
        // And what it says can be put in force.
        let of_table = cli.run.kube_proxy.0.first();
        let needs_another = flag.starts_with("--config=");
        let known = FLAGS.iter().any(|row| flag.starts_with(&format!("--{}=", row.name)));
        assert!(of_table.is_some() || !known, "{flag}");
        if !needs_another {
            let resolved = run::in_force(&cli.run);
            assert!(resolved.is_ok(), "{flag}: {resolved:?}");
        }
    }
    for row in FLAGS {
        let with_value = format!("--{}", row.name);
        assert!(EVERY.iter().any(|flag| flag.split('=').next() == Some(&with_value)), "{row:?}");
    }
    assert!(parsed(&["start"]).is_err(), "CFG-05");
    assert!(parsed(&["--no-such-flag"]).is_err());
    // Of Windows alone.
    assert!(parsed(&["--enable-dsr"]).is_err());
}

#[test]
fn words_are_taken_as_go_takes_them() {
    let words = [
        "--masquerade-all=F",
        "--conntrack-tcp-be-liberal",
        "--oom-score-adj",
        "-5",
        "--conntrack-min=1",
        "--conntrack-min=2",
        "--nodeport-addresses=192.0.2.0/24",
        "--nodeport-addresses",
        "198.51.100.0/24,primary",
        "-v",
        "5",
    ];
    let config = run::in_force(&parsed(&words).unwrap().run).unwrap().config;
    assert!(!config.iptables.masquerade_all && config.conntrack.tcp_be_liberal);
    assert_eq!((config.oom_score_adj, config.conntrack.min), (Some(-5), Some(2)));
    let ranges = ["192.0.2.0/24", "198.51.100.0/24", "primary"].map(str::to_owned);
    assert_eq!(config.node_port_addresses, Some(ranges.to_vec()));
    assert_eq!(config.logging.verbosity, 5);
    for wrong in ["--masquerade-all=yes", "--conntrack-min=", "--kube-api-qps=x", "--v=-1"] {
        let refused = parsed(&[wrong]).map(|cli| run::in_force(&cli.run));
        assert!(matches!(refused, Err(_) | Ok(Err(_))), "{wrong}: {refused:?}");
    }
}

#[test]
fn the_name_decides_which_command_line_it_is() {
    for (program, is) in [
        ("kube-proxy", true),
        ("/usr/local/bin/kube-proxy", true),
        ("./kproxy", false),
        ("kube-proxy-2", false),
    ] {
        assert_eq!(is_kube_proxy(Some(&program.into())), is, "{program}");
    }
    assert!(!is_kube_proxy(None));
}

/// What `kproxy config` prints.
fn printed(words: &[&str], format: Format, look: &super::Look) -> String {
    let words = ["kproxy", "config"].iter().chain(words);
    let matches = Cli::command().try_get_matches_from(words).unwrap();
    let Command::Config(args) = Cli::from_arg_matches(&matches).unwrap().command else {
        unreachable!("the verb is config");
    };
    let matches = matches.subcommand_matches("config").unwrap();
    let in_force = run::in_force(&args.run).unwrap();
    let mut out = Vec::new();
    config::run(format, matches, &in_force, look, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn config_tells_each_value_and_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.conf");
    let text = "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
                clusterCIDR: 10.244.0.0/16\nconntrack: {min: 5}\n";
    std::fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let words = [&config, "--conntrack-min=7", "--lb-algorithm", "maglev", "--masquerade-all"];
    let rows = printed(&words, Format::Json, &PLAIN);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).unwrap();
    let row = |setting: &str| {
        let row = rows.iter().find(|row| row["setting"] == setting);
        row.unwrap_or_else(|| panic!("{setting}: {rows:?}")).clone()
    };
    let min = row("conntrack.min");
    assert_eq!((&min["value"], &min["flag"]), (&7.into(), &"--conntrack-min".into()));
    let cidr = row("clusterCIDR");
    assert_eq!((&cidr["source"], &cidr["file"]), (&"file".into(), &file.to_str().into()));
    let algorithm = row("--lb-algorithm");
    assert_eq!((&algorithm["value"], &algorithm["source"]), (&"maglev".into(), &"flag".into()));
    assert_eq!(row("--serve-external-ips")["value"], "true");
    assert_eq!(row("bindAddress")["source"], "default");
    assert!(row("iptables.masqueradeAll")["without_meaning"].is_string());
    assert!(row("conntrack.min").get("without_meaning").is_none());

    let table = printed(&words, Format::Table, &TERMINAL);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.starts_with("SETTING"), "{table}");
    insta::assert_snapshot!(
        "config",
        printed(&["--hostname-override=n1", "-v4"], Format::Table, &TERMINAL)
    );
}
