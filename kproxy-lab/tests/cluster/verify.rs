//! `kproxy verify`: maps and hooks that somebody has damaged, with the daemon dead and alive.

use std::fs;
use std::path::PathBuf;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use kproxy_lab::Probe;

use crate::common::{Cluster, NODE_PORT, TARGET, vips};

/// A folder below that of the pins of n1.
fn pins(cluster: &Cluster, folder: &str) -> PathBuf {
    let kproxy = cluster.lab.bpffs("n1").join("kproxy");
    let versions = fs::read_dir(kproxy).unwrap().map(|entry| entry.unwrap().path().join(folder));
    versions.into_iter().find(|path| path.is_dir()).unwrap()
}

fn map(cluster: &Cluster, name: &str) -> MapData {
    MapData::from_pin(pins(cluster, "maps").join(name)).unwrap()
}

fn hash<const K: usize, const V: usize>(map: MapData) -> HashMap<MapData, [u8; K], [u8; V]>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    Map::HashMap(map).try_into().unwrap()
}

/// Takes the TCP frontend of `web` away, and has its first backend listen elsewhere.
fn damage(cluster: &Cluster) {
    let mut frontends = hash::<20, 12>(map(cluster, "KP_FRONTENDS"));
    let keys: Vec<[u8; 20]> = frontends.keys().map(Result::unwrap).collect();
    let web = |key: &&[u8; 20]| key[12..] == [10, 96, 0, 10, 0, 80, 6, 0];
    frontends.remove(keys.iter().find(web).unwrap()).unwrap();
    let mut slots: Array<_, [u8; 24]> = Map::Array(map(cluster, "KP_SLOTS")).try_into().unwrap();
    let slot = |index| slots.get(&index, 0).unwrap();
    let port = TARGET.to_be_bytes();
    let index = (0..64).find(|index| slot(*index)[16..18] == port).unwrap();
    let mut damaged = slot(index);
    damaged[16..18].copy_from_slice(&7u16.to_be_bytes());
    slots.set(index, damaged, 0).unwrap();
}

/// Exit code and standard output.
fn verify(cluster: &Cluster, options: &[&str]) -> (i32, String) {
    let output = cluster.try_kproxy("n1", &[&["verify"], options].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    assert!(code != 2, "{options:?}: {}\n{}", text(&output.stderr), cluster.logs());
    (code, text(&output.stdout))
}

fn assert_in_order(cluster: &Cluster) {
    let (code, said) = verify(cluster, &[]);
    assert!(code == 0 && said.starts_with("no difference from the folder"), "{code}: {said}");
    let pod = cluster.lab.pod("n1", "b");
    assert!(pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap().all_answered());
}

#[test]
fn damage_is_named_and_repaired_with_the_daemon_dead_and_alive() {
    const FRONTEND: &str = "frontend 10.96.0.10:80/TCP: planned service default/web:tcp, ClusterIP, the kernel has none";
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    assert_in_order(&cluster);

    let proxy = &cluster.proxies[0];
    proxy.kill().unwrap();
    assert_in_order(&cluster);
    damage(&cluster);
    let links = fs::read_dir(pins(&cluster, "links")).unwrap().map(|entry| entry.unwrap().path());
    let is_ingress = |path: &PathBuf| path.to_string_lossy().contains("/kp_ingress");
    fs::remove_file(links.into_iter().find(is_ingress).unwrap()).unwrap();
    let (code, said) = verify(&cluster, &[]);
    let moved = ":7 of default/web:";
    for part in [FRONTEND, moved, ": planned in the Cluster set", "hook kp_ingress at "] {
        assert!(code == 1 && said.contains(part), "{part}: {said}");
    }
    assert!(said.lines().last().unwrap().ends_with(&cluster.lab.manifests().display().to_string()));
    // Without a plan there is what contradicts itself.
    let (code, said) = verify(&cluster, &["--maps-only"]);
    assert!(
        code == 1 && said.contains("hook kp_ingress at ") && !said.contains(FRONTEND),
        "{said}"
    );
    let (code, said) = verify(&cluster, &["--repair"]);
    assert!(code == 0 && said.trim_end().ends_with("all repaired"), "{code}: {said}");
    assert_in_order(&cluster);
    assert!(!proxy.is_running(), "and no daemon is left");

    proxy.launch().unwrap();
    proxy.wait_ready().unwrap();
    assert!(proxy.log().contains("writes=0"), "{}", proxy.log());
    damage(&cluster);
    let (code, said) = verify(&cluster, &["-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    let differences = told["differences"].as_array().unwrap();
    let is_frontend = |finding: &&serde_json::Value| finding["text"] == FRONTEND;
    let found = differences.iter().find(is_frontend).unwrap_or_else(|| panic!("{said}"));
    assert_eq!((code, &found["kind"], &found["kernel"]), (1, &"frontend".into(), &().into()));
    let (code, said) = verify(&cluster, &["--repair"]);
    assert!(code == 0 && said.trim_end().ends_with("all repaired"), "{code}: {said}");
    assert!(proxy.log().contains("looked at the kernel again"), "{}", proxy.log());
    assert_in_order(&cluster);

    // What manifests would change, against what the same daemon's source has.
    let manifest = cluster.lab.manifests().join("web.yaml").display().to_string();
    let output = cluster.try_kproxy("n1", &["diff", "-f", &manifest]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let other = cluster.lab.dir().join("other.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    let node_ports = [NODE_PORT, NODE_PORT + 9].map(|port| port.to_string());
    assert!(text.contains(&node_ports[0]), "{text}");
    fs::write(&other, text.replace(&node_ports[0], &node_ports[1])).unwrap();
    let output = cluster.try_kproxy("n1", &["diff", "-f", &other.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for [sign, port] in [["+", &node_ports[1]], ["-", &node_ports[0]]] {
        assert!(
            said.contains(&format!("  {sign} frontend NodePort {port}/TCP (IPv6)\n")),
            "{said}"
        );
    }
    let archive = cluster.lab.dir().join("report.tar.gz").display().to_string();
    let said = cluster.kproxy("n1", &["bugreport", "--output", &archive]);
    let has = |part: &str| said.lines().any(|line| line.starts_with(part));
    assert!(
        ["status.json", "config.json", "metrics.txt", "process.txt"].iter().all(|part| has(part)),
        "{said}"
    );
}
