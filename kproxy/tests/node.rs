//! Node facts in a network namespace of the test's own. Needs root.

use std::{
    process::{Child, Command},
    time::Duration,
};

use kproxy::node::{
    NodeState, Served,
    nft::{self, Repair},
    watch,
};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch::Receiver;

/// Runs `test` on a thread in a new network namespace, which goes with the thread.
fn in_new_netns(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        test();
    })
    .join()
    .unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Another network namespace, which goes with its process.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec sleep 600"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The namespace is there once the shell speaks.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }

    /// Adds a veth whose other end is there.
    fn veth(&self, name: &str) {
        ip(&format!("link add {name} type veth peer name peer netns {}", self.0.id()));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until the node has these devices and this address.
async fn wait_for(
    states: &mut Receiver<NodeState>,
    what: &str,
    devices: &[&str],
    address: Option<&str>,
) {
    let reached = states.wait_for(|state| {
        let names: Vec<_> = state.devices.iter().map(|d| d.name.as_str()).collect();
        names == devices && address.is_none_or(|a| state.addresses.contains(&a.parse().unwrap()))
    });
    tokio::time::timeout(Duration::from_secs(10), reached)
        .await
        .unwrap_or_else(|_| panic!("{what}: {devices:?} not seen"))
        .unwrap();
}

#[test]
fn node_05_devices_and_addresses_are_followed_as_they_come_and_go() {
    in_new_netns(|| {
        ip("link set lo up");
        let elsewhere = Elsewhere::new();
        elsewhere.veth("eth0");
        ip("address add 192.0.2.1/24 dev eth0");
        ip("link add br0 type bridge");
        ip("link set br0 up");
        block_on(async {
            let mut states =
                watch::follow(watch::Names::default(), Served::default()).await.unwrap();
            let state = states.borrow_and_update().clone();
            assert_eq!(state.devices, [], "eth0 is down");
            assert!(state.addresses.contains(&"127.0.0.1".parse().unwrap()));
            ip("link set eth0 up");
            wait_for(&mut states, "up", &["eth0"], Some("192.0.2.1")).await;
            ip("address add 2001:db8::1/64 dev eth0 nodad");
            wait_for(&mut states, "address", &["eth0"], Some("2001:db8::1")).await;
            ip("link add vxlan1 type vxlan id 1 dstport 4789 dev eth0");
            ip("address add 10.244.1.0/32 dev vxlan1");
            ip("link set vxlan1 up");
            wait_for(&mut states, "overlay", &["eth0", "vxlan1"], Some("10.244.1.0")).await;
            ip("link delete vxlan1");
            wait_for(&mut states, "gone", &["eth0"], None).await;
            let index = states.borrow().devices[0].index;
            ip("link set eth0 down");
            ip("link set eth0 name wan0");
            wait_for(&mut states, "renamed, and still what it was", &["wan0"], None).await;
            assert_eq!(states.borrow().devices[0].index, index);
        });
    });
}

#[test]
fn the_role_of_a_device_follows_its_peer_its_ports_and_its_routes() {
    in_new_netns(|| {
        ip("link add here type veth peer name here1");
        ip("address add 192.0.2.1/24 dev here");
        ip("link set here up");
        ip("link set here1 up");
        ip("link add br0 type bridge");
        ip("address add 198.51.100.1/24 dev br0");
        ip("link set br0 up");
        ip("tuntap add tap0 mode tap");
        ip("link set tap0 master br0 up");
        let elsewhere = Elsewhere::new();
        elsewhere.veth("eth0");
        ip("address add 203.0.113.1/24 dev eth0");
        ip("link set eth0 up");
        block_on(async {
            let mut states =
                watch::follow(watch::Names::default(), Served::default()).await.unwrap();
            wait_for(&mut states, "at first", &["eth0"], Some("198.51.100.1")).await;
            // Nothing but a route changes here: it is heard of by itself.
            ip("route add default via 192.0.2.2 dev here");
            wait_for(&mut states, "default route", &["eth0", "here"], None).await;
            ip("route add 10.0.0.0/8 via 192.0.2.2 dev here");
            // The kernel takes the route away in silence.
            ip("link set here down");
            wait_for(&mut states, "down", &["eth0", "here"], None).await;
            ip("link set here up");
            wait_for(&mut states, "up, and no way out", &["eth0"], None).await;
            ip("link add vxlan1 type vxlan id 1 dstport 4789 dev eth0");
            ip("link set vxlan1 master br0 up");
            wait_for(&mut states, "a port that leads out", &["br0", "eth0"], None).await;
        });
    });
}

#[test]
fn an_ipv6_address_is_the_nodes_once_it_is_known_to_be_unique() {
    in_new_netns(|| {
        let elsewhere = Elsewhere::new();
        elsewhere.veth("eth0");
        ip("address add 2001:db8::1/64 dev eth0 nodad");
        // Detection cannot end while the other end of the wire is down.
        ip("link set eth0 up");
        ip("address add 2001:db8::2/64 dev eth0");
        block_on(async {
            let mut states =
                watch::follow(watch::Names::default(), Served::default()).await.unwrap();
            wait_for(&mut states, "without detection", &["eth0"], Some("2001:db8::1")).await;
            let tentative = "2001:db8::2".parse().unwrap();
            assert!(!states.borrow().addresses.contains(&tentative));
            let pid = elsewhere.0.id();
            let up = Command::new("nsenter")
                .args(["--net", "-t", &pid.to_string(), "ip", "link", "set", "peer", "up"])
                .status();
            assert!(up.unwrap().success());
            wait_for(&mut states, "detection done", &["eth0"], Some("2001:db8::2")).await;
        });
    });
}

#[test]
fn the_nftables_table_is_written_found_and_removed() {
    in_new_netns(|| {
        assert!(!nft::is_present().unwrap());
        nft::ensure().unwrap();
        nft::ensure().unwrap();
        assert!(nft::is_present().unwrap());
        nft::remove().unwrap();
        nft::remove().unwrap();
        assert!(!nft::is_present().unwrap());
    });
}

#[test]
fn a_changed_nftables_table_is_written_again() {
    in_new_netns(|| {
        let Repair::Written(written) = nft::repair(None).unwrap() else {
            panic!("it was not there")
        };
        assert!(written.contains("masquerade"), "{written}");
        assert_eq!(nft::repair(Some(&written)).unwrap(), Repair::Intact);
        let nft = |arguments: &str| {
            let status = Command::new("nft").args(arguments.split(' ')).status().unwrap();
            assert!(status.success(), "nft {arguments}");
        };
        for harm in [
            "flush ruleset",
            "flush chain inet kproxy postrouting",
            "insert rule inet kproxy postrouting accept",
        ] {
            nft(harm);
            let repair = nft::repair(Some(&written)).unwrap();
            assert_eq!(repair, Repair::Written(written.clone()), "{harm}");
            assert_eq!(nft::repair(Some(&written)).unwrap(), Repair::Intact);
        }
    });
}
