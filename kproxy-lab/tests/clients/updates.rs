//! Rolling updates: every pod is replaced by a new one, and no connection is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use kproxy_lab::Family::{V4, V6};
use kproxy_lab::{Held, Hold, POD_PORT, Source, Transport};
use serde_json::json;

use crate::load::{Client, Clients, while_asked};
use crate::rollout::{Life, Rollout};

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// The new pod gets ready, then the old one terminates: a Deployment with `maxSurge`.
    NewFirst,
    /// The old pod terminates, then the new one gets ready: a node that is drained, `maxUnavailable`.
    OldFirst,
}

/// How kproxy fares meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Daemon {
    Runs,
    /// The one of `n1` is killed at every step, just before and just after the change.
    IsKilled,
}

/// Long-lived connections of every TCP client.
fn hold(clients: &[Client]) -> Vec<Held> {
    clients
        .iter()
        .filter(|client| client.transport() == Transport::Tcp)
        .flat_map(|client| {
            (0..2).map(|_| client.from().hold(Hold::tcp(client.to())).unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

impl Rollout {
    /// One change, and what follows from it, under load.
    fn step(&mut self, daemon: Daemon, asked: &Clients<'_>, pod: &str, life: Life) {
        let killed = (daemon == Daemon::IsKilled).then(|| Arc::clone(&self.proxies[0]));
        match &killed {
            // The change is found at the start, among the pinned maps of before.
            Some(proxy) if life == Life::Ready || life == Life::Ended => {
                proxy.kill().unwrap();
                self.set(pod, life);
            }
            // It is made, or half made, or not made.
            Some(proxy) => {
                self.set(pod, life);
                proxy.kill().unwrap();
            }
            None => self.set(pod, life),
        }
        if let Some(proxy) = killed {
            asked.go_on();
            proxy.start().unwrap();
        }
    }

    /// Replaces a pod of a node by a new one of that node.
    fn replace(
        &mut self,
        (node, old, new): (&str, &str, &str),
        order: Order,
        daemon: Daemon,
        (clients, asked): (&[Client], &Clients<'_>),
    ) {
        let (was, is) = (format!("{node}/{old}"), format!("{node}/{new}"));
        let leaving = self.lab.pod(node, old);
        let mut held = hold(clients);

        if order == Order::OldFirst {
            self.step(daemon, asked, &was, Life::Terminating);
            asked.go_on();
        }
        let coming = self.lab.add_pod(node, new).unwrap();
        coming.stop_serving(POD_PORT).unwrap();
        self.step(daemon, asked, &is, Life::Starting);
        asked.go_on();
        coming.serve(POD_PORT).unwrap();
        self.step(daemon, asked, &is, Life::Ready);
        self.wait_used(&is);
        asked.go_on();
        if order == Order::NewFirst {
            self.step(daemon, asked, &was, Life::Terminating);
        }
        self.wait_unused(&was);
        asked.go_on();

        // VER-10: established connections stay, also when the endpoint is not served any more.
        self.step(daemon, asked, &was, Life::Ended);
        self.wait_left(&was);
        asked.go_on();
        let on = |held: &Held, pod: &str| held.report().unwrap().servers.contains_key(pod);
        assert!(held.iter().any(|held| on(held, &was)), "no long-lived connection to {was}");
        let all = held.len();
        held.retain(|held| {
            let report = held.report().unwrap();
            assert!(report.is_flawless(), "{report:?}");
            !on(held, &was)
        });
        // Those of the old pod are closed by their clients before its server ends.
        assert!(held.len() < all);
        leaving.stop_serving(POD_PORT).unwrap();
        self.remove(&was);
        self.lab.remove_pod(node, old).unwrap();
        asked.go_on();
        for held in held {
            let report = held.stop().unwrap();
            assert!(report.is_flawless(), "{report:?}");
        }
    }

    /// Replaces every pod, one after the other.
    fn update(&mut self, order: Order, daemon: Daemon, clients: &[Client]) {
        while_asked(clients, |asked| {
            for pods in [("n1", "a", "c"), ("n2", "a", "c")] {
                self.replace(pods, order, daemon, (clients, asked));
            }
        });
    }
}

/// Everybody, for policies `Cluster`.
fn everybody(rollout: &Rollout) -> Vec<Client> {
    let lab = &rollout.lab;
    let (near, far, outside) = (lab.pod("n1", "b"), lab.pod("n2", "b"), lab.client());
    vec![
        Client::tcp(Arc::clone(&near), rollout.vip(V4)),
        Client::udp(near, rollout.vip(V6)),
        Client::tcp(far, rollout.vip(V6)),
        Client::tcp(lab.node("n1"), rollout.vip(V4)),
        Client::tcp(lab.node("n2"), rollout.node_port("n2", V6)),
        Client::tcp(Arc::clone(&outside), rollout.node_port("n1", V4)),
        Client::tcp(Arc::clone(&outside), rollout.node_port("n2", V6)),
        Client::udp(outside, rollout.node_port("n1", V4)),
    ]
}

/// Everybody was served by all of these pods, and by no other.
fn assert_served_by(clients: &[Client], pods: impl Fn(&Client) -> Vec<String>) {
    for client in clients {
        let seen = client.seen();
        let servers: BTreeSet<_> = seen.servers.keys().cloned().collect();
        let wanted: BTreeSet<_> = pods(client).into_iter().collect();
        assert_eq!(servers, wanted, "{} {}", client.from().name(), client.to());
    }
}

fn all_pods(_client: &Client) -> Vec<String> {
    ["n1/a", "n1/c", "n2/a", "n2/c"].map(str::to_owned).into()
}

/// The pods of a client's own node.
fn near_pods(client: &Client) -> Vec<String> {
    let node = client.from().name().split('/').next().unwrap_or_default().to_owned();
    ["a", "c"].map(|pod| format!("{node}/{pod}")).into()
}

/// The pods of the node that a client dials.
fn dialled_pods(rollout: &Rollout, client: &Client) -> Vec<String> {
    let dialled =
        |node: &String| rollout.lab.node(node).addresses().both().contains(&client.to().ip());
    let node = rollout.lab.nodes().into_iter().find(dialled).unwrap();
    ["a", "c"].map(|pod| format!("{node}/{pod}")).into()
}

#[test]
fn a_rolling_update_with_policies_cluster() {
    for order in [Order::NewFirst, Order::OldFirst] {
        let mut rollout = Rollout::new(Source::Manifests, POD_PORT, json!({}));
        let clients = everybody(&rollout);
        rollout.update(order, Daemon::Runs, &clients);
        assert_served_by(&clients, all_pods);
    }
}

#[test]
fn a_rolling_update_with_internal_policy_local() {
    for order in [Order::NewFirst, Order::OldFirst] {
        let spec = json!({"internalTrafficPolicy": "Local"});
        let mut rollout = Rollout::new(Source::Manifests, POD_PORT, spec);
        let lab = &rollout.lab;
        let clients = [
            Client::tcp(lab.pod("n1", "b"), rollout.vip(V4)),
            Client::tcp(lab.pod("n2", "b"), rollout.vip(V6)),
            Client::tcp(lab.node("n1"), rollout.vip(V6)),
            Client::udp(lab.node("n2"), rollout.vip(V4)),
        ];
        rollout.update(order, Daemon::Runs, &clients);
        assert_served_by(&clients, near_pods);
    }
}

#[test]
fn a_rolling_update_with_external_policy_local() {
    for order in [Order::NewFirst, Order::OldFirst] {
        let spec = json!({"externalTrafficPolicy": "Local"});
        let mut rollout = Rollout::new(Source::Manifests, POD_PORT, spec);
        let outside = rollout.lab.client();
        let clients = [
            Client::tcp(Arc::clone(&outside), rollout.node_port("n1", V4)),
            Client::tcp(Arc::clone(&outside), rollout.node_port("n1", V6)),
            Client::tcp(Arc::clone(&outside), rollout.node_port("n2", V6)),
            Client::udp(Arc::clone(&outside), rollout.node_port("n2", V4)),
        ];
        rollout.update(order, Daemon::Runs, &clients);
        assert_served_by(&clients, |client| dialled_pods(&rollout, client));
        for client in &clients {
            let own = outside.ip(kproxy_lab::Family::of(client.to().ip()));
            assert_eq!(client.seen().clients, [own].into(), "{}", client.to());
        }
    }
}

#[test]
fn a_rolling_update_while_kproxy_is_killed_at_every_step() {
    for order in [Order::NewFirst, Order::OldFirst] {
        let mut rollout = Rollout::new(Source::Manifests, POD_PORT, json!({}));
        let clients = everybody(&rollout);
        rollout.update(order, Daemon::IsKilled, &clients);
        assert_served_by(&clients, all_pods);
    }
}

#[test]
fn a_rolling_update_on_the_real_api_server() {
    let mut rollout = Rollout::new(Source::Api, POD_PORT, json!({}));
    let clients = everybody(&rollout);
    rollout.update(Order::NewFirst, Daemon::Runs, &clients);
    assert_served_by(&clients, all_pods);
}
