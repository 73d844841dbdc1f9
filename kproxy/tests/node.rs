//! Node facts in a network namespace of the test's own. Needs root.

use std::{process::Command, time::Duration};

use kproxy::node::{nft, watch};
use nix::sched::{CloneFlags, unshare};

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

#[test]
fn node_05_devices_and_addresses_are_followed_as_they_come_and_go() {
    in_new_netns(|| {
        ip("link set lo up");
        ip("link add eth0 type veth peer name peer0");
        ip("address add 192.0.2.1/24 dev eth0");
        ip("link add br0 type bridge");
        ip("link set br0 up");
        block_on(async {
            let mut states = watch::follow(Vec::new()).await.unwrap();
            let state = states.borrow_and_update().clone();
            assert_eq!(state.devices, [], "eth0 is down");
            assert!(state.addresses.contains(&"127.0.0.1".parse().unwrap()));
            let mut wait_for = async |what: &str, devices: &[&str], address: Option<&str>| {
                let reached = states.wait_for(|state| {
                    let names: Vec<_> = state.devices.iter().map(|d| d.name.as_str()).collect();
                    names == devices
                        && address.is_none_or(|a| state.addresses.contains(&a.parse().unwrap()))
                });
                tokio::time::timeout(Duration::from_secs(10), reached)
                    .await
                    .unwrap_or_else(|_| panic!("{what}: {devices:?} not seen"))
                    .unwrap();
            };
            ip("link set eth0 up");
            wait_for("up", &["eth0"], Some("192.0.2.1")).await;
            ip("address add 2001:db8::1/64 dev eth0 nodad");
            wait_for("address", &["eth0"], Some("2001:db8::1")).await;
            ip("link add vxlan1 type vxlan id 1 dstport 4789 dev eth0");
            ip("address add 10.244.1.0/32 dev vxlan1");
            ip("link set vxlan1 up");
            wait_for("overlay", &["eth0", "vxlan1"], Some("10.244.1.0")).await;
            ip("link delete vxlan1");
            wait_for("gone", &["eth0"], None).await;
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
