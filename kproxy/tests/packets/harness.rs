//! Runs the tc programs on single packets with BPF_PROG_TEST_RUN.
//!
//! The maps are private to each [`Programs`] and filled directly: what is tested here is the
//! programs, not the writer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuHashMap, RingBuf, lpm_trie::Key},
    programs::{Program, SchedClassifier, TestRunOptions},
    util::KernelVersion,
};
use kproxy::{
    dataplane::kernel_features,
    plan::{Backend, maglev_table},
};
use kproxy_common::{
    abi::{GLOBAL_KERNEL_FEATURES, map},
    affinity::{AffinityKey, AffinityValue},
    config::{Config, Range, Uplink, config_flags},
    counters::{DropKey, ServiceCounters},
    drop_reason::DropReason,
    filter,
    flow::{FlowKey, FlowValue, unassured},
    fragment::{Injection, Note},
    load::LoadKey,
    maglev::{PER_SLOT, pack},
    net::Port,
    ranges::{self, RangeData},
    service::{
        FrontendKey, FrontendValue, Service, Slot, Word, service_flags, service_port_id, slot_flags,
    },
    trace::{Event, Trace},
};
use zerocopy::FromBytes as _;

#[path = "craft.rs"]
mod craft;
pub(crate) use craft::{
    PAYLOAD, Segment, Tcp, ends, icmp_about, tcp, tcp_of, tcp_with, ttl_of, udp, udp_of,
    with_header, with_ttl,
};

#[path = "reset.rs"]
mod reset;
use reset::Lent;

pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kproxy-ebpf"));

/// Capacity of the service map.
const SERVICES: u32 = 1024;

/// TCX_NEXT, TC_ACT_SHOT and TC_ACT_REDIRECT.
pub(crate) const NEXT: i32 = -1;
pub(crate) const SHOT: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;

/// MAC address of the device of [`Programs::on_device`]; the loopback device has none.
pub(crate) const DEVICE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What a program did with a packet.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) action: i32,
    pub(crate) packet: Vec<u8>,
    pub(crate) mark: u32,
    /// What it has left in the packet's control block for programs after it.
    pub(crate) said: u32,
}

impl Ran {
    /// Source and destination, after checking every checksum.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        ends(&self.packet)
    }

    pub(crate) fn source(&self) -> SocketAddr {
        self.ends().0
    }

    pub(crate) fn destination(&self) -> SocketAddr {
        self.ends().1
    }
}

/// Whether a test run can say where a packet that leaves has come in: before 6.0 it cannot.
pub(crate) fn knows_where_packets_come_from() -> bool {
    KernelVersion::current().unwrap() >= KernelVersion::new(6, 0, 0)
}

/// All programs, with maps of their own.
pub(crate) struct Programs {
    pub(crate) ebpf: Lent,
    /// Index of the device that packets come in or leave by, 0: the loopback device.
    device: u32,
    /// Index of the device that packets that leave have come in by, 0: they are made here.
    from: u32,
    /// Mark of packets.
    mark: u32,
    /// What programs before have left in their control block.
    said: u32,
}

impl Programs {
    pub(crate) fn load() -> Self {
        // So much that the flows of a test do not have to give way.
        Self::with_flows(65_536)
    }

    /// With room for `flows` flow entries.
    pub(crate) fn with_flows(flows: u32) -> Self {
        let ebpf = Lent::with_flows(flows, || load(flows));
        let mut programs = Self { ebpf, device: 0, from: 0, mark: 0, said: 0 };
        // Backends elsewhere are marked for netfilter, unless a test says otherwise.
        let config = Config {
            flags: config_flags::NETFILTER,
            unassured: unassured::elements(flows),
            max_assured: unassured::most_assured(flows),
            ..Config::default()
        };
        programs.configure(|_| config);
        programs.forget_test(SERVICES);
        programs
    }

    /// No port has opened a flow; whether their answers would be translated.
    pub(crate) fn pod_flows(&mut self, answered: bool) {
        let mut bytes = [0; 8];
        bytes[filter::POD_FLOWS_ANSWERED] = u8::from(answered);
        self.array::<[u8; 8]>(map::FLOW_FILTER).set(filter::POD_FLOWS, bytes, 0).unwrap();
    }

    /// Loads every program. Instructions that the verifier walked, by program; `None`: the kernel does
    /// not tell (before 5.16).
    pub(crate) fn verified(&mut self) -> BTreeMap<String, Option<u32>> {
        let count = |(name, program): (&str, &mut Program)| {
            let loaded = match program {
                ref program if program.fd().is_ok() => Ok(()),
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSock(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                _ => panic!("{name}: a kind that is not known here"),
            };
            loaded.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            (name.to_owned(), program.info().unwrap().verified_instruction_count())
        };
        self.ebpf.programs_mut().map(count).collect()
    }

    /// A program, loaded once it is needed: the verifier takes most of the time of a test.
    pub(crate) fn program(&mut self, name: &str) -> &mut SchedClassifier {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        program
    }

    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    pub(crate) fn array<V: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    fn allow(&mut self, bit: u32) {
        let (word, mask) = filter::position(bit);
        let mut words = self.array::<u64>(map::FILTER);
        let old = words.get(&word, 0).unwrap();
        words.set(word, old | mask, 0).unwrap();
    }

    /// An entry of FRONTENDS. `internal` and `external` are service indices.
    pub(crate) fn frontend(
        &mut self,
        at: &str,
        proto: u8,
        flags: u32,
        internal: u32,
        external: u32,
    ) {
        let at: SocketAddr = at.parse().unwrap();
        let key = FrontendKey::new(at.ip().into(), Port::new(at.port()), proto);
        let value = FrontendValue { internal, external, flags };
        self.hash(map::FRONTENDS).insert(key, value, 0).unwrap();
        self.allow(filter::bit(&key.addr));
        if at.ip().is_unspecified() {
            self.allow(filter::bit_of_node_port(key.port, proto));
        }
    }

    /// An address entry.
    pub(crate) fn address(&mut self, ip: &str, flags: u32) {
        let key = FrontendKey::address(ip.parse::<IpAddr>().unwrap().into());
        let value = FrontendValue { flags, ..FrontendValue::default() };
        self.hash(map::FRONTENDS).insert(key, value, 0).unwrap();
        self.allow(filter::bit(&key.addr));
    }

    pub(crate) fn remove_frontend(&mut self, at: &str, proto: u8) {
        let at: SocketAddr = at.parse().unwrap();
        let key = FrontendKey::new(at.ip().into(), Port::new(at.port()), proto);
        self.hash::<FrontendKey, FrontendValue>(map::FRONTENDS).remove(&key).unwrap();
    }

    /// Publishes a backend set. `L` before an address: the endpoint is on this node.
    /// Runs start at 16 * index, so a test's set holds at most 16 backends.
    pub(crate) fn service(&mut self, index: u32, backends: &[&str]) {
        assert!(backends.len() <= 16);
        self.service_at(index, 16 * index, backends);
    }

    /// As [`Self::service`], with the run's first slot.
    pub(crate) fn service_at(&mut self, index: u32, first: u32, backends: &[&str]) {
        let mut slots: Vec<Slot> = backends.iter().map(|text| slot(text)).collect();
        slots.sort_by_key(Slot::order);
        let mut array = self.array::<Slot>(map::SLOTS);
        for (i, slot) in (first..).zip(&slots) {
            array.set(i, *slot, 0).unwrap();
        }
        self.publish(index, first, slots.len());
    }

    /// As [`Self::service`], with an endpoint behind the run that only keeps what it has.
    pub(crate) fn service_and_extra(&mut self, index: u32, backends: &[&str], extra: &str) {
        self.service(index, backends);
        let (first, count) = (16 * index, backends.len() as u32);
        let mut slots = self.array::<Slot>(map::SLOTS);
        let head = Slot { extra: 1, ..slots.get(&first, 0).unwrap() };
        slots.set(first, head, 0).unwrap();
        slots.set(first + count, slot(extra), 0).unwrap();
    }

    /// Sets the session affinity timeout of a set; 0 switches affinity off.
    pub(crate) fn affinity(&mut self, index: u32, seconds: u32) {
        let mut array = self.array::<Service>(map::SERVICES);
        let entry = Service { affinity_seconds: seconds, ..array.get(&index, 0).unwrap() };
        array.set(index, entry, 0).unwrap();
    }

    /// Sets how a set picks: a bit of `service_flags`, or 0 for round-robin.
    pub(crate) fn algorithm(&mut self, index: u32, flag: u32) {
        let mut array = self.array::<Service>(map::SERVICES);
        let entry =
            Service { flags: service_flags::IN_USE | flag, ..array.get(&index, 0).unwrap() };
        array.set(index, entry, 0).unwrap();
    }

    /// As [`Self::service_at`], with a lookup table behind the run.
    pub(crate) fn service_with_table(&mut self, index: u32, first: u32, backends: &[&str]) {
        self.service_at(index, first, backends);
        let mut array = self.array::<Slot>(map::SLOTS);
        let run: Vec<Slot> =
            (first..).take(backends.len()).map(|i| array.get(&i, 0).unwrap()).collect();
        let backend =
            |slot: &Slot| Backend { addr: slot.addr.into(), port: slot.port.get(), local: false };
        let table = maglev_table(&run.iter().map(backend).collect::<Vec<_>>());
        for (i, entries) in (first + run.len() as u32..).zip(table.chunks(PER_SLOT as usize)) {
            array.set(i, pack(entries), 0).unwrap();
        }
        array.set(first, Slot { flags: run[0].flags | slot_flags::TABLE, ..run[0] }, 0).unwrap();
    }

    /// Open connections of a backend on a path (`counted`); `None`: none were ever counted.
    pub(crate) fn connections(&mut self, backend: &str, path: u16) -> Option<i64> {
        self.hash(map::LOAD).get(&load_key(backend, path), 0).ok()
    }

    pub(crate) fn set_connections(&mut self, backend: &str, path: u16, connections: i64) {
        self.hash(map::LOAD).insert(load_key(backend, path), connections, 0).unwrap();
    }

    /// Makes every remembered client older.
    pub(crate) fn age_clients(&mut self, seconds: u64) {
        let mut clients = self.hash::<AffinityKey, AffinityValue>(map::AFFINITY);
        let all: Vec<_> = clients.iter().map(Result::unwrap).collect();
        for (key, mut value) in all {
            value.last = value.last.saturating_sub(seconds * 1_000_000_000);
            clients.insert(key, value, 0).unwrap();
        }
    }

    /// Number of remembered clients.
    pub(crate) fn clients(&mut self) -> usize {
        self.hash::<AffinityKey, AffinityValue>(map::AFFINITY).iter().count()
    }

    /// Adds a source range of a service port, by one of its service indices.
    pub(crate) fn range(&mut self, index: u32, base: &str, len: u8) {
        let key = range_key(index, base, len);
        self.ranges().insert(&key, 0, 0).unwrap();
    }

    pub(crate) fn remove_range(&mut self, index: u32, base: &str, len: u8) {
        let key = range_key(index, base, len);
        self.ranges().remove(&key).unwrap();
    }

    pub(crate) fn ranges(&mut self) -> LpmTrie<&mut MapData, RangeData, u32> {
        LpmTrie::try_from(self.ebpf.map_mut(map::RANGES).unwrap()).unwrap()
    }

    /// Publishes an empty set.
    pub(crate) fn empty(&mut self, index: u32, verdict: u32) {
        self.publish(index, verdict, 0);
    }

    fn publish(&mut self, index: u32, first: u32, count: usize) {
        let mut array = self.array::<Service>(map::SERVICES);
        let before = Word::unpack(array.get(&index, 0).unwrap().word);
        let word = Word {
            first,
            count: u16::try_from(count).unwrap(),
            generation: before.generation.wrapping_add(1),
        };
        let old = array.get(&index, 0).unwrap();
        let flags = old.flags | service_flags::IN_USE;
        array.set(index, Service { word: word.pack(), flags, ..old }, 0).unwrap();
    }

    /// Packets come in by this device of the current network namespace.
    pub(crate) fn on_device(self, device: u32) -> Self {
        Self { device, ..self }
    }

    /// Packets come in or leave by another device from now on; returns the one before.
    pub(crate) fn move_to(&mut self, device: u32) -> u32 {
        std::mem::replace(&mut self.device, device)
    }

    /// Packets that leave have come in by this device from now on, where
    /// [`knows_where_packets_come_from`].
    pub(crate) fn comes_from(&mut self, device: u32) {
        self.from = device;
    }

    /// Packets carry this mark from now on.
    pub(crate) fn marked(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// Programs before have left this in packets' control blocks, from now on.
    pub(crate) fn after(&mut self, said: u32) {
        self.said = said;
    }

    /// As [`Self::on_device`], from here on.
    pub(crate) fn use_device(&mut self, device: u32) {
        self.device = device;
    }

    pub(crate) fn uplink(&mut self, device: u32, uplink: Uplink) {
        self.hash(map::UPLINKS).insert(device, uplink, 0).unwrap();
    }

    pub(crate) fn forget_uplink(&mut self, device: u32) {
        self.hash::<u32, Uplink>(map::UPLINKS).remove(&device).unwrap();
    }

    pub(crate) fn configure(&mut self, change: impl FnOnce(Config) -> Config) {
        let mut array = self.array::<Config>(map::CONFIG);
        let config = array.get(&0, 0).unwrap();
        array.set(0, change(config), 0).unwrap();
    }

    pub(crate) fn cluster_cidr(&mut self, base: &str, len: u8) {
        let range = Range::new(base.parse().unwrap(), len);
        self.configure(|config| Config { cluster: [range, Range::default()], ..config });
    }

    /// Runs one program on one packet.
    pub(crate) fn run(&mut self, program: &str, packet: &[u8]) -> Ran {
        self.run_cut(program, packet, 0)
    }

    /// As [`Self::run`], for a packet that is still to be cut into segments of so many bytes.
    pub(crate) fn run_cut(&mut self, program: &str, packet: &[u8], segment: u32) -> Ran {
        // struct __sk_buff; `mark` is its third word, `ingress_ifindex` its tenth, `ifindex` its
        // eleventh, the last of `cb` its 17th, `gso_size` its 45th (include/uapi/linux/bpf.h).
        let (mut ctx_in, mut ctx_out) = ([0u8; 192], [0u8; 192]);
        ctx_in[8..12].copy_from_slice(&self.mark.to_ne_bytes());
        ctx_in[36..40].copy_from_slice(&self.from.to_ne_bytes());
        ctx_in[40..44].copy_from_slice(&self.device.to_ne_bytes());
        ctx_in[64..68].copy_from_slice(&self.said.to_ne_bytes());
        ctx_in[176..180].copy_from_slice(&segment.to_ne_bytes());
        let mut packet = packet.to_vec();
        if self.device != 0 {
            packet[..6].copy_from_slice(&DEVICE_MAC);
        }
        let mut out = vec![0u8; packet.len() + 64];
        let result = self
            .program(program)
            .test_run(TestRunOptions {
                data_in: Some(&packet),
                data_out: Some(&mut out),
                ctx_in: Some(&ctx_in),
                ctx_out: Some(&mut ctx_out),
                ..TestRunOptions::default()
            })
            .expect("BPF_PROG_TEST_RUN");
        out.truncate(result.data_size_out as usize);
        let word = |at: usize| u32::from_ne_bytes(ctx_out[at..at + 4].try_into().unwrap());
        let (mark, said) = (word(8), word(64));
        Ran { action: result.return_value as i32, packet: out, mark, said }
    }

    pub(crate) fn ingress(&mut self, packet: &[u8]) -> Ran {
        self.run("kp_ingress", packet)
    }

    pub(crate) fn egress(&mut self, packet: &[u8]) -> Ran {
        self.run("kp_egress", packet)
    }

    /// What the programs have told of fragments since the last call, with the copies.
    pub(crate) fn notes(&mut self) -> Vec<(Note, Vec<u8>)> {
        let mut ring = RingBuf::try_from(self.ebpf.map_mut(map::EARLY).unwrap()).unwrap();
        let mut notes = Vec::new();
        while let Some(record) = ring.next() {
            let (note, rest) = Note::read_from_prefix(&record).unwrap();
            notes.push((note, rest[..note.len as usize].to_vec()));
        }
        notes
    }

    /// Somebody listens to this from now on.
    pub(crate) fn listen(&mut self, trace: Trace) {
        self.array(map::TRACE).set(0, trace, 0).unwrap();
    }

    /// What is listened to.
    pub(crate) fn listened(&mut self) -> Trace {
        self.array(map::TRACE).get(&0, 0).unwrap()
    }

    /// What who listens was told since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut ring = RingBuf::try_from(self.ebpf.map_mut(map::EVENTS).unwrap()).unwrap();
        std::iter::from_fn(|| ring.next().map(|record| Event::read_from_bytes(&record).unwrap()))
            .collect()
    }

    /// How many events were not told.
    pub(crate) fn untold(&mut self) -> u64 {
        let untold: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map_mut(map::UNTOLD).unwrap()).unwrap();
        untold.get(&0, 0).unwrap().iter().sum()
    }

    /// Runs `kp_inject`; what it returns.
    pub(crate) fn inject(&mut self, packet: &[u8], mark: u32, order: Injection) -> i32 {
        let mut context = [0u8; 192];
        let Injection { ingress, more, lost } = order;
        for (word, value) in [(2, mark), (10, self.device), (12, ingress), (13, more), (14, lost)] {
            context[word * 4..word * 4 + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        self.program("kp_inject").test_run(options).unwrap().return_value as i32
    }

    /// Counters of a service, all CPUs together: connections, packets, bytes.
    pub(crate) fn counters(&mut self, service: u32) -> (u64, u64, u64) {
        let array: PerCpuArray<_, ServiceCounters> =
            PerCpuArray::try_from(self.ebpf.map_mut(map::COUNTERS).unwrap()).unwrap();
        let values = array.get(&service, 0).unwrap();
        values
            .iter()
            .fold((0, 0, 0), |sum, c| (sum.0 + c.connections, sum.1 + c.packets, sum.2 + c.bytes))
    }

    /// Every drop counter that is not zero.
    pub(crate) fn drops(&mut self) -> Vec<(u32, DropReason, u64)> {
        let hash: PerCpuHashMap<_, DropKey, u64> =
            PerCpuHashMap::try_from(self.ebpf.map_mut(map::DROPS).unwrap()).unwrap();
        let mut rows: Vec<_> = hash
            .iter()
            .map(|row| {
                let (key, values) = row.unwrap();
                let reason = DropReason::from_number(key.reason).unwrap();
                (key.service, reason, values.iter().sum())
            })
            .collect();
        rows.sort_by_key(|row: &(u32, DropReason, u64)| (row.0, row.1 as u32));
        rows
    }

    pub(crate) fn flows(&mut self) -> Vec<(FlowKey, FlowValue)> {
        self.hash(map::FLOWS).iter().map(|row| row.unwrap()).collect()
    }

    /// How many flows count as assured.
    pub(crate) fn assured(&mut self) -> u64 {
        self.array(map::ASSURED).get(&0, 0).unwrap()
    }
}

/// The object, with the programs not yet loaded.
fn load(flows: u32) -> Ebpf {
    EbpfLoader::new()
        .override_global(GLOBAL_KERNEL_FEATURES, &kernel_features(), true)
        .map_max_entries(map::SLOTS, 4096)
        .map_max_entries(map::SERVICES, SERVICES)
        .map_max_entries(map::COUNTERS, SERVICES)
        .map_max_entries(map::FLOWS, flows)
        .map_max_entries(map::UNASSURED, unassured::elements(flows))
        .map_max_entries(map::AFFINITY, 4096)
        .load(OBJECT)
        .expect("load the BPF object (needs root)")
}

fn load_key(backend: &str, path: u16) -> LoadKey {
    let at: SocketAddr = backend.parse().unwrap();
    LoadKey { addr: at.ip().into(), port: Port::new(at.port()), path }
}

fn range_key(index: u32, base: &str, len: u8) -> Key<RangeData> {
    let base: IpAddr = base.parse().unwrap();
    let data = RangeData { service_port: service_port_id(index), addr: base.into() };
    Key::new(ranges::prefix_len(&base, len), data)
}

fn slot(text: &str) -> Slot {
    let (local, at) = match text.strip_prefix('L') {
        Some(rest) => (slot_flags::LOCAL, rest),
        None => (0, text),
    };
    let at: SocketAddr = at.parse().unwrap();
    Slot { addr: at.ip().into(), port: Port::new(at.port()), flags: local, extra: 0 }
}
