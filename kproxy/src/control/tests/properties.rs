//! Laws of the planner, on random histories of a few objects that get in each other's way.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::control::planner::Planner;
use crate::model::{Node, ServiceName, SliceName, TrafficPolicy};
use crate::plan::tests::{NODE, endpoint, ip, number, service, slice};

/// One version of one object.
#[derive(Clone, Debug)]
enum Step {
    Service(u8, Option<Service>),
    Slice(u8, Option<Slice>),
    Node(Option<Node>),
    Addresses(BTreeSet<IpAddr>),
}

/// Which object a step is about: steps of one object keep their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    Service(u8),
    Slice(u8),
    Node,
    Addresses,
}

impl Step {
    fn subject(&self) -> Subject {
        match self {
            Self::Service(i, _) => Subject::Service(*i),
            Self::Slice(i, _) => Subject::Slice(*i),
            Self::Node(_) => Subject::Node,
            Self::Addresses(_) => Subject::Addresses,
        }
    }

    fn feed(self, planner: &mut Planner) {
        let name = |i| ["a", "b", "c"][usize::from(i)];
        planner.handle(match self {
            Self::Service(_, Some(service)) => apply_service(service),
            Self::Service(i, None) => {
                Event::Services(Update::Delete(ServiceName::new("default", name(i))))
            }
            Self::Slice(_, Some(slice)) => apply_slice(slice),
            Self::Slice(i, None) => {
                Event::Slices(Update::Delete(SliceName::new("default", name(i))))
            }
            Self::Node(node) => Event::Node(node),
            Self::Addresses(addresses) => return planner.set_local_addresses(addresses),
        });
    }
}

/// Cluster IPs, externalIPs and NodePorts from small pools, so that they clash.
fn any_service(i: u8) -> impl Strategy<Value = Service> {
    let outside =
        btree_set(prop_oneof![Just("192.0.2.1"), Just("192.0.2.2"), Just("10.96.0.1")], 0..3);
    (0..3u8, outside, prop::option::of(30000..30002u16), any::<[bool; 4]>()).prop_map(
        move |(cluster_ip, outside, node_port, [internal, external, second, ranges])| {
            let name = ["a", "b", "c"][usize::from(i)];
            let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            let mut service = service(name, &[&format!("10.96.0.{cluster_ip}"), "fd00:10:96::1"]);
            service.external_ips = outside.iter().map(|text| ip(text)).collect();
            service.ports[0].node_port = node_port.map(number);
            service.internal_policy = policy(internal);
            service.external_policy_written = policy(external);
            if ranges {
                service.load_balancer_ips = vec![ip("192.0.2.2")];
                service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
            }
            if second {
                let mut port = service.ports[0].clone();
                port.name = "second".to_owned();
                service.ports.push(port);
            }
            service
        },
    )
}

fn any_slice(i: u8) -> impl Strategy<Value = Slice> {
    let state = prop_oneof![Just("RL"), Just("RM"), Just("TL"), Just("TM"), Just("XM"), Just("NM")];
    let one = (0..4u8, state, prop::option::of(prop_oneof![Just("a"), Just("b")]));
    (0..3usize, vec(one, 1..4)).prop_map(move |(of, endpoints)| {
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|(addr, state, zone)| {
                let mut endpoint = endpoint(&format!("10.244.0.{addr}"), state);
                endpoint.zone_hints = zone.map(Box::from).into_iter().collect();
                endpoint
            })
            .collect();
        slice(["a", "b", "c"][usize::from(i)], ["a", "b", "c"][of], 8080, &endpoints)
    })
}

/// Zone and addresses change each for itself; one address is in the source ranges, one is not.
fn any_node() -> impl Strategy<Value = Node> {
    let address = prop_oneof![Just(ip("192.0.2.1")), Just(ip("198.51.100.1"))];
    (prop::option::of(Just("a".to_owned())), btree_set(address, 0..2)).prop_map(
        |(zone, addresses)| Node {
            zone,
            addresses: addresses.into_iter().collect(),
            leaving: false,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let service = (0..3u8).prop_flat_map(|i| {
        prop::option::weighted(0.8, any_service(i)).prop_map(move |s| Step::Service(i, s))
    });
    let slice = (0..3u8).prop_flat_map(|i| {
        prop::option::weighted(0.8, any_slice(i)).prop_map(move |s| Step::Slice(i, s))
    });
    let bound = btree_set(prop_oneof![Just(ip("10.96.0.0")), Just(ip("10.96.0.1"))], 0..3);
    prop_oneof![
        5 => service,
        5 => slice,
        2 => prop::option::weighted(0.8, any_node()).prop_map(Step::Node),
        1 => bound.prop_map(Step::Addresses),
    ]
}

/// The same steps in another order that keeps the order of each object's own.
fn reorder(steps: &[Step], keys: &[Index]) -> Vec<Step> {
    let mut queues: BTreeMap<Subject, VecDeque<Step>> = BTreeMap::new();
    for step in steps {
        queues.entry(step.subject()).or_default().push_back(step.clone());
    }
    let mut order: Vec<Subject> = Vec::new();
    for (step, key) in steps.iter().zip(keys) {
        order.insert(key.index(order.len() + 1), step.subject());
    }
    order
        .into_iter()
        .map(|subject| queues.get_mut(&subject).unwrap().pop_front().unwrap())
        .collect()
}

/// A planner that took all steps at once.
fn anew(steps: &[Step]) -> Planner {
    let mut planner = Planner::new(NODE);
    for step in steps {
        step.clone().feed(&mut planner);
    }
    planner.take_changes();
    planner
}

proptest! {
    #[test]
    fn any_order_of_events_gives_the_same_plans(
        steps in vec(any_step(), 1..25),
        keys in vec(any::<Index>(), 25),
        flushes in vec(any::<bool>(), 25),
    ) {
        let mut one = anew(&steps);
        let mut other = Planner::new(NODE);
        for (step, flush) in reorder(&steps, &keys).into_iter().zip(flushes) {
            step.feed(&mut other);
            if flush {
                other.take_changes();
            }
        }
        other.take_changes();
        prop_assert_eq!(one.plans(), other.plans());
        prop_assert_eq!(one.problems().current(), other.problems().current());
    }

    #[test]
    fn planning_what_changed_equals_planning_anew(
        steps in vec((any_step(), any::<bool>()), 1..25),
    ) {
        let mut planner = Planner::new(NODE);
        let mut held = Held::default();
        let mut taken = Vec::new();
        for (step, flush) in steps {
            taken.push(step.clone());
            step.feed(&mut planner);
            if flush {
                let changes = planner.take_changes();
                held.apply(changes);
                let mut fresh = anew(&taken);
                prop_assert_eq!(planner.plans(), fresh.plans());
                prop_assert_eq!(planner.problems().current(), fresh.problems().current());
                prop_assert_eq!(held.plans.values().cloned().collect::<Vec<_>>(), planner.plans());
            }
        }
        // No frontend is served twice.
        planner.take_changes();
        let mut seen = BTreeSet::new();
        for plan in planner.plans() {
            for frontend in plan.frontends {
                prop_assert!(seen.insert((frontend.addr, frontend.port, plan.id.protocol)));
            }
        }
    }
}
