//! Address entries and the address filter, kept exact by counting who needs them.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kproxy_common::{
    filter,
    net::Addr,
    service::{FrontendKey, FrontendValue, frontend_flags},
};

use super::maps::{Maps, Refusal};

/// Everything known of the addresses that the programs look up.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: HashMap<Addr, Usage>,
    /// NodePort frontends by family (IPv4, IPv6). Without any, connections to the node's own
    /// addresses stop at the filter.
    node_ports: [u32; 2],
    /// How many addresses and NodePorts need a bit of the filter.
    bits: HashMap<u32, u32>,
    /// By how much those of NodePorts have changed since the filter was.
    due: HashMap<u32, i32>,
    /// Addresses whose entry or bit may be out of step.
    touched: BTreeSet<Addr>,
}

/// What an address is used for, and what the maps say of it.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Frontends on the address.
    frontends: u32,
    /// Those of them that are ClusterIPs.
    cluster_ips: u32,
    /// It is an address of this node.
    node: bool,
    /// Flags of the address entry in the map; 0: there is none.
    entry: u32,
    /// It is counted in `bits`.
    counted: bool,
}

impl Usage {
    const fn wanted_entry(&self) -> u32 {
        let node = if self.node { frontend_flags::NODE_ADDRESS } else { 0 };
        let service = if self.cluster_ips > 0 { frontend_flags::SERVICE_ADDRESS } else { 0 };
        node | service
    }

    const fn is_idle(&self) -> bool {
        self.frontends == 0 && !self.node && self.entry == 0 && !self.counted
    }
}

/// An address entry that the map refused.
pub(crate) struct Refused {
    pub(crate) addr: Addr,
    /// The address belongs to this node.
    pub(crate) node: bool,
    pub(crate) refusal: Refusal,
}

impl Addresses {
    /// Takes over an address entry that the map holds.
    pub(crate) fn found_entry(&mut self, addr: Addr, flags: u32) {
        let usage = self.known.entry(addr).or_default();
        // An entry without any flag is there all the same: keep it apart from "none".
        usage.entry = if flags == 0 { u32::MAX } else { flags };
        usage.node = flags & frontend_flags::NODE_ADDRESS != 0;
        self.touched.insert(addr);
    }

    /// Counts everything found so far in the filter, whose bits are taken as they are until
    /// [`Self::repair_filter`].
    pub(crate) fn count_found(&mut self) {
        let node_ports = self.node_ports;
        for (addr, usage) in &mut self.known {
            if wants_bit(addr, usage, node_ports) {
                usage.counted = true;
                count(&mut self.bits, filter::bit(addr), 1);
            }
        }
        for (bit, by) in std::mem::take(&mut self.due) {
            count(&mut self.bits, bit, by);
        }
    }

    /// A frontend has come into the map.
    pub(crate) fn add(&mut self, key: &FrontendKey, flags: u32) {
        self.change(key, flags, 1);
    }

    /// A frontend leaves the map.
    pub(crate) fn remove(&mut self, key: &FrontendKey, flags: u32) {
        self.change(key, flags, -1);
    }

    fn change(&mut self, key: &FrontendKey, flags: u32, by: i32) {
        if flags & frontend_flags::NODE_PORT != 0 {
            let count = &mut self.node_ports[family(&key.addr)];
            let before = *count;
            *count = count.saturating_add_signed(by);
            if (before == 0) != (*count == 0) {
                let nodes = self.known.iter().filter(|(_, usage)| usage.node);
                let nodes = nodes.map(|(addr, _)| *addr);
                self.touched.extend(nodes.filter(|addr| addr.is_v4() == key.addr.is_v4()));
            }
        }
        if key.addr == key.addr.unspecified_of_family() {
            // Nobody dials that: the port is in the filter alone.
            *self.due.entry(filter::bit_of_node_port(key.port, key.proto)).or_default() += by;
            return;
        }
        let usage = self.known.entry(key.addr).or_default();
        usage.frontends = usage.frontends.saturating_add_signed(by);
        if flags & frontend_flags::CLUSTER_IP != 0 {
            usage.cluster_ips = usage.cluster_ips.saturating_add_signed(by);
        }
        self.touched.insert(key.addr);
    }

    /// Whether NodePorts answer on a loopback address.
    pub(crate) fn serves_loopback(&self) -> bool {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(Addr::from).iter().any(
            |addr| {
                self.node_ports[family(addr)] > 0
                    && self.known.get(addr).is_some_and(|usage| usage.node)
            },
        )
    }

    /// The node has these addresses and no others.
    pub(crate) fn set_node(&mut self, node: &BTreeSet<IpAddr>) {
        let node: BTreeSet<Addr> = node
            .iter()
            .filter(|addr| !addr.is_unspecified())
            .map(|addr| Addr::from(*addr))
            .collect();
        for (addr, usage) in &mut self.known {
            if usage.node && !node.contains(addr) {
                usage.node = false;
                self.touched.insert(*addr);
            }
        }
        for addr in node {
            let usage = self.known.entry(addr).or_default();
            if !usage.node {
                usage.node = true;
                self.touched.insert(addr);
            }
        }
    }

    /// Address entries in the map.
    pub(crate) fn entries(&self) -> usize {
        self.known.values().filter(|usage| usage.entry != 0).count()
    }

    /// Brings entries and filter bits in step with what was counted. What the map refuses stays
    /// on the list for the next call and is returned.
    pub(crate) fn settle(&mut self, maps: &mut impl Maps) -> Vec<Refused> {
        let mut refused = Vec::new();
        for (bit, by) in std::mem::take(&mut self.due) {
            self.need_bit(bit, by, maps);
        }
        for addr in std::mem::take(&mut self.touched) {
            let Some(mut usage) = self.known.get(&addr).copied() else { continue };
            let wants_bit = wants_bit(&addr, &usage, self.node_ports);
            // The bit comes last and goes first: whoever gets past the filter finds everything.
            if !wants_bit && usage.counted {
                usage.counted = false;
                self.need_bit(filter::bit(&addr), -1, maps);
            }
            if let Err(refusal) = settle_entry(&addr, &mut usage, maps) {
                refused.push(Refused { addr, node: usage.node, refusal });
                self.touched.insert(addr);
            }
            if wants_bit && !usage.counted {
                usage.counted = true;
                self.need_bit(filter::bit(&addr), 1, maps);
            }
            if usage.is_idle() {
                self.known.remove(&addr);
            } else {
                self.known.insert(addr, usage);
            }
        }
        refused
    }

    /// Brings every word of the filter in step: a crash may have left bits too many or too few.
    pub(crate) fn repair_filter(&self, maps: &impl Maps) {
        let mut wanted = vec![0u64; filter::WORDS as usize];
        for bit in self.bits.keys() {
            let (word, mask) = filter::position(*bit);
            wanted[word as usize] |= mask;
        }
        for (index, want) in (0..).zip(wanted) {
            let have = maps.address_filter().get(index).unwrap_or(want);
            if have != want {
                maps.address_filter().change_bits(index, have & !want, want & !have);
            }
        }
    }

    /// So many more, or fewer, need the bit.
    fn need_bit(&mut self, bit: u32, by: i32, maps: &impl Maps) {
        let (before, after) = count(&mut self.bits, bit, by);
        let (word, mask) = filter::position(bit);
        match (before, after) {
            (0, 1..) => maps.address_filter().change_bits(word, 0, mask),
            (1.., 0) => maps.address_filter().change_bits(word, mask, 0),
            _ => {}
        }
    }
}

/// Counts who needs the bit: how many did, and do.
fn count(bits: &mut HashMap<u32, u32>, bit: u32, by: i32) -> (u32, u32) {
    let before = bits.get(&bit).copied().unwrap_or_default();
    let after = before.saturating_add_signed(by);
    if after == 0 {
        bits.remove(&bit);
    } else {
        bits.insert(bit, after);
    }
    (before, after)
}

const fn family(addr: &Addr) -> usize {
    if addr.is_v4() { 0 } else { 1 }
}

const fn wants_bit(addr: &Addr, usage: &Usage, node_ports: [u32; 2]) -> bool {
    usage.frontends > 0 || usage.node && node_ports[family(addr)] > 0
}

fn settle_entry(addr: &Addr, usage: &mut Usage, maps: &mut impl Maps) -> Result<(), Refusal> {
    let wanted = usage.wanted_entry();
    if wanted == usage.entry {
        return Ok(());
    }
    let key = FrontendKey::address(*addr);
    if wanted == 0 {
        maps.remove_frontend(&key)?;
    } else {
        maps.set_frontend(&key, &FrontendValue { flags: wanted, ..FrontendValue::default() })?;
    }
    usage.entry = wanted;
    Ok(())
}
