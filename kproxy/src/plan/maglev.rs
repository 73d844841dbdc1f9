//! The lookup table of a maglev set (Eisenbud et al., "Maglev: A Fast and Reliable Software Network
//! Load Balancer", section 3.4), with other orders than theirs.

use kproxy_common::maglev::{mix, table_len};
use kproxy_common::net::Addr;

use super::Backend;

/// The table of a set: for each place the number of a backend. Empty for a set without backends.
///
/// Every backend has an order of its own in which it would like the places, made of its address and
/// port alone. They choose in turns, each the first place of its order that is free. So all get the
/// same share, give or take one place, and the same set gives the same table on every node, while a
/// backend that goes leaves nearly all places of the others as they were.
///
/// `backends` must be sorted, as those of a [`super::BackendSet`] are, and no more than fit into one.
pub fn table(backends: &[Backend]) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    if backends.is_empty() {
        return Vec::new();
    }
    let len = table_len(backends.len() as u32);
    let mut orders: Vec<Order> = backends.iter().map(|backend| Order::of(backend, len)).collect();
    let mut table = vec![FREE; len as usize];
    let mut left = table.len();
    loop {
        for (number, order) in (0..FREE).zip(&mut orders) {
            // An order comes to every place in the end.
            let place = order.find(|place| table[*place] == FREE);
            let Some(place) = place else { return table };
            table[place] = number;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// The order in which a backend would like the places: the numbers of a random generator that begins
/// with the backend. Maglev's own order, every n-th place, is that of another backend too now and
/// then, nearly: then one of the two moves far more clients than it has when a third one goes.
struct Order {
    state: u64,
    len: u64,
}

impl Order {
    fn of(backend: &Backend, len: u32) -> Self {
        let (high, low) = Addr::from(backend.addr).number();
        let parts = [high, low, backend.port.into()];
        let state = parts.into_iter().fold(0, |state, part| mix(state ^ part));
        Self { state, len: len.into() }
    }
}

/// Without end.
impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Some((mix(self.state) % self.len) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use kproxy_common::maglev::{SMALL_SET, hash, position};
    use kproxy_common::net::Port;
    use proptest::prelude::*;

    use super::*;

    fn backend(addr: impl Into<IpAddr>, port: u16) -> Backend {
        Backend { addr: addr.into(), port, local: false }
    }

    /// Pods of one range, in the order of a plan.
    fn pods(count: u32) -> Vec<Backend> {
        (0..count).map(|i| backend(Ipv4Addr::from(0x0af4_0105 + i), 8080)).collect()
    }

    /// The backend of each of many clients.
    fn picks(backends: &[Backend], clients: u32) -> Vec<Backend> {
        let table = table(backends);
        let client = |i: u32| {
            let addr = Addr::from(IpAddr::from(Ipv4Addr::from(0xcb00_7100 + i % 250)));
            let hash = hash(&addr, Port::new((20_000 + i / 250) as u16), 6);
            backends[usize::from(table[position(hash, backends.len() as u32) as usize])]
        };
        (0..clients).map(client).collect()
    }

    fn without(backends: &[Backend], gone: usize) -> Vec<Backend> {
        let mut rest = backends.to_vec();
        rest.remove(gone);
        rest
    }

    /// Part of the places of `before` that lead elsewhere in `after`.
    fn moved(before: &[Backend], after: &[Backend]) -> f64 {
        let (old, new) = (table(before), table(after));
        assert_eq!(old.len(), new.len());
        let moved = old
            .iter()
            .zip(&new)
            .filter(|(a, b)| before[usize::from(**a)] != after[usize::from(**b)]);
        moved.count() as f64 / old.len() as f64
    }

    fn any_backends() -> impl Strategy<Value = Vec<Backend>> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits)));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits)));
        let one = (prop_oneof![v4, v6], 1..=u16::MAX);
        prop::collection::btree_set(one, 1..100)
            .prop_map(|all| all.into_iter().map(|(addr, port)| backend(addr, port)).collect())
    }

    #[test]
    fn every_backend_has_the_same_share() {
        for count in [1, 2, 3, 7, 100, 1000, SMALL_SET, SMALL_SET + 1] {
            let mut shares = vec![0u32; count as usize];
            for number in table(&pods(count)) {
                shares[usize::from(number)] += 1;
            }
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1 && *least >= 3, "{count}: {least} to {most}");
        }
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn clients_are_spread_evenly() {
        for count in [2, 3, 10] {
            let mut shares: HashMap<Backend, u32> = HashMap::new();
            for pick in picks(&pods(count), 30_000) {
                *shares.entry(pick).or_default() += 1;
            }
            let fair = 30_000 / count;
            for (backend, share) in shares {
                assert!(share.abs_diff(fair) < fair / 10, "{backend:?} of {count}: {share}");
            }
        }
    }

    #[test]
    fn less_than_two_percent_more_move_than_the_clients_of_a_backend_that_goes() {
        for count in [2, 3, 5, 10, 50, 100, 200, 500, 1000] {
            let backends = pods(count);
            for gone in [0, count as usize / 2, count as usize - 1] {
                let limit = 1.0 / f64::from(count) + 0.02;
                let places = moved(&backends, &without(&backends, gone));
                assert!(places < limit, "{gone} of {count}: {places}");
            }
        }
        // The same asked of clients.
        let backends = pods(10);
        let before = picks(&backends, 30_000);
        let after = picks(&without(&backends, 4), 30_000);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(moved < 30_000 * 12 / 100, "{moved} of 30000");
    }

    #[test]
    fn another_port_is_another_backend() {
        let ports = |ports: [u16; 2]| ports.map(|port| backend([10, 244, 1, 5], port));
        assert_ne!(table(&ports([80, 81])), table(&ports([80, 82])));
    }

    /// Nodes of different versions must agree: these numbers never change.
    #[test]
    fn the_table_is_the_same_in_every_version() {
        let places = [0usize, 1, 2, 5000, 16_383];
        let of = |backends: &[Backend]| {
            let table = table(backends);
            places.map(|place| table[place])
        };
        assert_eq!(of(&pods(5)), [3, 4, 4, 3, 2]);
        let v6 = ["fd00::5", "fd00::6", "fd00::7"];
        let v6 = v6.map(|ip| backend(ip.parse::<IpAddr>().unwrap(), 443));
        assert_eq!(of(&v6), [0, 2, 0, 2, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_backend_that_goes_moves_few_others(backends in any_backends(), gone: usize) {
            prop_assume!(backends.len() > 1);
            let rest = without(&backends, gone % backends.len());
            let limit = 1.0 / backends.len() as f64 + 0.02;
            let there = moved(&backends, &rest);
            prop_assert!(there < limit, "{there} of {} backends", backends.len());
            prop_assert!(moved(&rest, &backends) < limit, "and when it comes back");
        }

        #[test]
        fn nodes_agree_whatever_they_learnt_first(
            backends in any_backends(),
            order in any::<prop::sample::Index>(),
            local in any::<u64>(),
        ) {
            // Another node learns them in another order, and other ones run on it.
            let turn = order.index(backends.len());
            let learnt = backends[turn..].iter().chain(&backends[..turn]).enumerate();
            let sorted: BTreeSet<Backend> =
                learnt.map(|(i, b)| Backend { local: local >> (i % 64) & 1 == 1, ..*b }).collect();
            let there: Vec<Backend> = sorted.into_iter().collect();
            prop_assert_eq!(table(&backends), table(&there));
        }
    }
}
