//! `kproxy check`: what is in the way is named, with what to do.

use kproxy_lab::{Lab, ProxySpec, Source};
use serde_json::Value;

/// What is wrong with a node.
struct Case {
    /// Makes it so, and mends it.
    scripts: [&'static str; 2],
    /// The check that finds it, and what it makes of it.
    finds: [&'static str; 2],
    /// What it names.
    names: &'static str,
}

const CASES: [Case; 5] = [
    Case {
        scripts: ["sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"],
        finds: ["forwarding", "failure"],
        names: "net.ipv4.ip_forward",
    },
    Case {
        scripts: [
            "nft 'table ip guard { chain f { type filter hook forward priority 0; policy drop; }; }'",
            "nft delete table ip guard",
        ],
        finds: ["FORWARD policy", "warning"],
        names: "chain f of table ip guard",
    },
    Case {
        scripts: ["nft add table ip kube-proxy", "nft delete table ip kube-proxy"],
        finds: ["kube-proxy", "warning"],
        names: "nftables table ip kube-proxy",
    },
    Case {
        scripts: [
            "sysctl -qw net.ipv4.ip_local_port_range='20000 40000'",
            "sysctl -qw net.ipv4.ip_local_port_range='32768 60999'",
        ],
        finds: ["NodePorts", "warning"],
        names: "20000-40000",
    },
    Case {
        scripts: [
            "ip link add bpfin.cali type veth peer name bpfout.cali",
            "ip link del bpfin.cali",
        ],
        finds: ["other proxies", "failure"],
        names: "Calico",
    },
];

/// What `kproxy check` says of the node, and whether it exits with 0.
fn check(lab: &Lab) -> (Vec<Value>, bool) {
    let mut command = lab.kproxy_command("n1", "check").unwrap();
    let output = command.args(["-o", "json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    let passed = output.status.code() == Some(0);
    assert_eq!(said["can_run"], passed, "{said}");
    (said["checks"].as_array().unwrap().clone(), passed)
}

#[test]
fn what_is_in_the_way_of_kproxy_is_named() {
    let lab = Lab::builder().nodes(1).build().unwrap();
    let node = lab.node("n1");
    let (checks, passed) = check(&lab);
    assert!(passed, "{checks:#?}");
    let found = |name: &str| checks.iter().find(|check| check["check"] == name);
    for name in ["kernel", "BTF", "capabilities", "programs", "cgroup v2", "devices", "hooks"] {
        assert_eq!(found(name).unwrap()["outcome"], "ok", "{checks:#?}");
    }
    for Case { scripts: [break_it, _], .. } in &CASES {
        node.run("sh", &["-c", break_it]).unwrap();
    }
    let (checks, passed) = check(&lab);
    assert!(!passed, "{checks:#?}");
    for Case { scripts: [_, mend_it], finds: [name, outcome], names } in &CASES {
        let is_it = |check: &&Value| {
            check["check"] == *name
                && check["outcome"] == *outcome
                && check["found"].as_str().unwrap().contains(names)
        };
        let found = checks.iter().find(is_it).unwrap_or_else(|| panic!("{name}: {checks:#?}"));
        assert!(found["remedy"].is_string());
        node.run("sh", &["-c", mend_it]).unwrap();
    }

    // While it runs nothing is changed for it, and its own programs and ports are no hindrance.
    let proxy = lab.start_proxy("n1", ProxySpec::kproxy(Source::Manifests)).unwrap();
    let (checks, passed) = check(&lab);
    let all = Value::from(checks).to_string();
    assert!(passed && all.contains(&format!("runs here, pid {}", proxy.pid().unwrap())), "{all}");
    assert!(all.contains("nobody else's program"), "{all}");
}
