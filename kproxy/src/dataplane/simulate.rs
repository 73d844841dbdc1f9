//! Runs the programs on a made packet (`BPF_PROG_TEST_RUN`), as a check of what [`super::explain`] says.
//!
//! The programs are loaded anew, with maps of their own that get copies of the entries in question: nothing
//! of the live ones changes, no flow is opened there, nothing is counted and no packet leaves. The hooks for
//! sockets have no test run: in their place runs the program that sees the packets of such a sender, which
//! asks the same maps.

use std::net::{IpAddr, SocketAddr};

use aya::{
    Ebpf, TestRun as _,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
    programs::{ProgramError, SchedClassifier, TestRunOptions},
};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use kproxy_common::{
    abi::{map, program},
    affinity::{AffinityKey, AffinityValue, client_kind},
    config::{Config, Uplink, config_flags},
    filter,
    flow::unassured,
    net::proto,
    ranges::RangeData,
    service::{FrontendKey, FrontendValue, Service, Slot, Word, slot_flags},
};
use nix::ifaddrs::getifaddrs;
use serde::Serialize;

use super::{
    OBJECT, codec,
    error::{Error, Missing},
    explain::{Explanation, Found, Hook, Question, Sender, Verdict, View},
    programs::load::{MapSource, load_maps},
};

/// Entries of the private flow table.
const FLOWS: u32 = 1024;
/// Source port of the made packet.
const PORT: u16 = 40_000;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// What the programs return (TC_ACT_SHOT; include/uapi/linux/pkt_cls.h).
const SHOT: u32 = 2;

/// What the program did with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Done {
    /// Left as it was.
    LeftAlone,
    /// Dropped.
    Dropped,
    /// Made into a reset or an ICMP error.
    Refused,
    /// Sent to this backend.
    Sent(SocketAddr),
}

/// A run of a program, and what to think of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Simulated {
    /// The program.
    pub(crate) program: &'static str,
    /// What it did.
    pub(crate) done: Done,
    /// Whether that is what was explained.
    pub(crate) agrees: bool,
}

/// Runs the program that decides on a first packet. `None`: the sender's address is not known, and matters.
///
/// # Errors
/// The programs cannot be loaded or run, or a map not be filled.
pub(crate) fn simulate(
    view: &View,
    question: &Question,
    told: &Explanation,
) -> Result<Option<Simulated>, Error> {
    if told.verdict == Verdict::Depends {
        return Ok(None);
    }
    let Place { program, device, mac, came_in } = Place::of(view, question, told);
    let from = SocketAddr::new(source(view, question, device), PORT);
    let mut object = load(view)?;
    fill(&mut object, view, question, told, from.ip())?;
    let packet = packet(from, question, mac);
    let failed = |error: ProgramError| Error::Program { program, source: error.into() };
    let loaded: &mut SchedClassifier = object
        .program_mut(program)
        .ok_or(Error::Program { program, source: Missing.into() })?
        .try_into()
        .map_err(failed)?;
    loaded.load().map_err(failed)?;
    // Words of `struct __sk_buff` (include/uapi/linux/bpf.h): ingress_ifindex and ifindex.
    let mut context = [0u8; 192];
    context[36..40].copy_from_slice(&u32::from(came_in).to_ne_bytes());
    context[40..44].copy_from_slice(&device.to_ne_bytes());
    let mut out = vec![0; packet.len() + 64];
    let ran = loaded
        .test_run(TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
        .map_err(|error| Error::Program { program, source: error.into() })?;
    out.truncate(ran.data_size_out as usize);
    let done = done(ran.return_value, &packet, &out);
    let agrees = match (told.verdict, done) {
        (Verdict::Answered, Done::Sent(to)) => {
            told.may().any(|of| SocketAddr::new(of.addr, of.port) == to)
        }
        (Verdict::Refused, Done::Refused)
        | (Verdict::Dropped, Done::Dropped)
        | (Verdict::LeftAlone, Done::LeftAlone) => true,
        _ => false,
    };
    Ok(Some(Simulated { program, done, agrees }))
}

/// Where the packet is seen.
struct Place {
    program: &'static str,
    device: u32,
    mac: [u8; 6],
    /// It has come in by some device before.
    came_in: bool,
}

impl Place {
    fn of(view: &View, question: &Question, told: &Explanation) -> Self {
        let (device, mac) = uplink(view, question.to.is_ipv4()).unwrap_or_default();
        // What is dropped where it leaves is no business of the hook that it comes in by.
        let leaves = told.found == Found::FreeServiceAddress || told.hook == Hook::Unseen;
        let sent_here = matches!(question.from, Sender::Node { .. });
        let program = match question.from {
            Sender::Outside { .. } if !leaves => program::INGRESS,
            Sender::Pod { .. } if !leaves => program::POD_INGRESS,
            _ => program::EGRESS,
        };
        let came_in = !sent_here && program == program::EGRESS;
        Self { program, device, mac, came_in }
    }
}

/// An uplink with an address of the family, and its MAC address.
fn uplink(view: &View, v4: bool) -> Option<(u32, [u8; 6])> {
    let has_address = |uplink: &Uplink| {
        let source = if v4 { uplink.v4 } else { uplink.v6 };
        !source.is_unspecified()
    };
    let macs: Vec<_> = getifaddrs()
        .ok()?
        .filter_map(|entry| {
            let address = entry.address?;
            let link = address.as_link_addr()?;
            Some((u32::try_from(link.ifindex()).ok()?, link.addr()?))
        })
        .collect();
    let with_address = view.uplinks.iter().filter(|(_, uplink)| has_address(uplink));
    with_address
        .filter_map(|(index, _)| macs.iter().find(|(of, _)| of == index).copied())
        .find(|(_, mac)| *mac != [0; 6])
}

/// The sender's address; where it does not matter, one for documentation (RFC 5737, RFC 3849).
fn source(view: &View, question: &Question, device: u32) -> IpAddr {
    if let Some(address) = question.from.address() {
        return address;
    }
    let v4 = question.to.is_ipv4();
    let uplink = view.uplinks.get(&device).map(|uplink| if v4 { uplink.v4 } else { uplink.v6 });
    match (question.from, uplink) {
        (Sender::Node { .. }, Some(own)) => own.into(),
        _ if v4 => IpAddr::from([198, 51, 100, 1]),
        _ => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    }
}

/// The object, with small maps of its own.
fn load(view: &View) -> Result<Ebpf, Error> {
    let slots = view.runs.values().map(|run| run.slots.len()).max().unwrap_or(0) as u32 * 2 + 2;
    let capacities = [
        (map::SLOTS, slots),
        (map::SERVICES, 2),
        (map::COUNTERS, 2),
        (map::FLOWS, FLOWS),
        (map::UNASSURED, unassured::elements(FLOWS)),
        (map::AFFINITY, 64),
    ];
    load_maps(OBJECT, capacities.into_iter().map(MapSource::apart), None)
}

/// Copies what concerns the question. The service port gets the number 0.
fn fill(
    object: &mut Ebpf,
    view: &View,
    question: &Question,
    told: &Explanation,
    from: IpAddr,
) -> Result<(), Error> {
    let frontend = told.frontend();
    let id = frontend.map_or(0, |frontend| frontend.id);
    let port = question.to.port();
    let concerns = |key: &FrontendKey| key.is_address() || key.port.get() == port;
    let mut bits = Vec::new();
    let mut frontends = hash::<FrontendKey, FrontendValue>(object, map::FRONTENDS)?;
    for (key, value) in view.frontends.iter().filter(|(key, _)| concerns(key)) {
        let local = |index: u32| index % 2;
        let (internal, external) = (local(value.internal), local(value.external));
        let value = FrontendValue { internal, external, flags: value.flags };
        frontends.insert(key, value, 0).map_err(Error::of_map("fill", map::FRONTENDS))?;
        bits.push(filter::bit(&key.addr));
        if key.addr.is_unspecified() {
            bits.push(filter::bit_of_node_port(key.port, key.proto));
        }
    }
    let mut words = array::<u64>(object, map::FILTER)?;
    for bit in bits {
        let (word, mask) = filter::position(bit);
        let old = words.get(&word, 0).unwrap_or(0);
        words.set(word, old | mask, 0).map_err(Error::of_map("fill", map::FILTER))?;
    }
    let mut first = 0;
    for local in 0..2 {
        let Some(run) = view.runs.get(&(id * 2 + local)) else { continue };
        let word = codec::word_of(&run.service);
        let word = if word.count == 0 { word } else { Word { first, ..word } };
        let service = Service { word: word.pack(), ..run.service };
        array::<Service>(object, map::SERVICES)?
            .set(local, service, 0)
            .map_err(Error::of_map("fill", map::SERVICES))?;
        let mut slots = array::<Slot>(object, map::SLOTS)?;
        for slot in &run.slots {
            // The table of maglev is not copied: any backend of the set will do.
            let slot = Slot { flags: slot.flags & !slot_flags::TABLE, ..*slot };
            slots.set(first, slot, 0).map_err(Error::of_map("fill", map::SLOTS))?;
            first += 1;
        }
    }
    let mut ranges =
        LpmTrie::<&mut MapData, RangeData, u32>::try_from(map_of(object, map::RANGES)?)
            .map_err(Error::of_map("open", map::RANGES))?;
    for net in view.ranges_of(id) {
        let (prefix_len, data) = codec::encode_range(0, &net);
        ranges
            .insert(&Key::new(prefix_len, data), 0, 0)
            .map_err(Error::of_map("fill", map::RANGES))?;
    }
    // Whoever is remembered as what, the program asks for the packet's source.
    if let Some(kept) = told.affinity.and_then(|affinity| affinity.kept) {
        let key = AffinityKey::new(from.into(), client_kind::ADDRESS, 0);
        let value = AffinityValue {
            addr: kept.backend.ip().into(),
            last: view.now,
            port: kproxy_common::net::Port::new(kept.backend.port()),
            pad: [0; 3],
        };
        hash::<AffinityKey, AffinityValue>(object, map::AFFINITY)?
            .insert(key, value, 0)
            .map_err(Error::of_map("fill", map::AFFINITY))?;
    }
    let mut uplinks = hash::<u32, Uplink>(object, map::UPLINKS)?;
    for (device, uplink) in &view.uplinks {
        uplinks.insert(device, uplink, 0).map_err(Error::of_map("fill", map::UPLINKS))?;
    }
    let mut answered = [0; 8];
    answered[filter::POD_FLOWS_ANSWERED] = 1;
    array::<[u8; 8]>(object, map::FLOW_FILTER)?
        .set(filter::POD_FLOWS, answered, 0)
        .map_err(Error::of_map("fill", map::FLOW_FILTER))?;
    let dropped = config_flags::LEAVING | config_flags::ARRIVING;
    let config = Config {
        flags: view.config.flags & !dropped | config_flags::NODE_PACKETS,
        unassured: unassured::elements(FLOWS),
        max_assured: unassured::most_assured(FLOWS),
        ..view.config
    };
    array::<Config>(object, map::CONFIG)?
        .set(0, config, 0)
        .map_err(Error::of_map("fill", map::CONFIG))
}

fn map_of<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut aya::maps::Map, Error> {
    object.map_mut(name).ok_or_else(|| Error::of_map("open", name)(Missing))
}

fn hash<'a, K: aya::Pod, V: aya::Pod>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<HashMap<&'a mut MapData, K, V>, Error> {
    HashMap::try_from(map_of(object, name)?)
        .map_err(|error: MapError| Error::of_map("open", name)(error))
}

fn array<'a, V: aya::Pod>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<Array<&'a mut MapData, V>, Error> {
    Array::try_from(map_of(object, name)?)
        .map_err(|error: MapError| Error::of_map("open", name)(error))
}

/// A first packet: a SYN, an INIT or a datagram.
fn packet(from: SocketAddr, question: &Question, mac: [u8; 6]) -> Vec<u8> {
    let to = question.to;
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], mac);
    let ip: PacketBuilderStep<IpHeaders> = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (from, to) => link.ipv6(v6(from), v6(to), 64),
    };
    let mut out = Vec::new();
    // Into memory: nothing here can fail.
    let written = match question.protocol.number() {
        proto::TCP => ip.tcp(from.port(), to.port(), 1, 64_000).syn().write(&mut out, &[]),
        proto::UDP => ip.udp(from.port(), to.port()).write(&mut out, b"kproxy"),
        other => {
            let mut init = Vec::new();
            init.extend(from.port().to_be_bytes());
            init.extend(to.port().to_be_bytes());
            init.extend([0; 8]);
            // INIT with a tag, a window, streams and a number (RFC 9260 section 3.3.2).
            init.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            ip.write(&mut out, other.into(), &init)
        }
    };
    drop(written);
    out
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What was done with the packet `sent`, which has become `out`.
fn done(action: u32, sent: &[u8], out: &[u8]) -> Done {
    if action == SHOT {
        return Done::Dropped;
    }
    let (Some(before), Some(after)) = (Ends::of(sent), Ends::of(out)) else {
        return Done::LeftAlone;
    };
    if after.protocol != before.protocol || (after.from, after.to) == (before.to, before.from) {
        Done::Refused
    } else if after == before {
        Done::LeftAlone
    } else {
        Done::Sent(after.to)
    }
}

/// Both ends of a packet without options.
#[derive(PartialEq, Eq)]
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
    protocol: u8,
}

impl Ends {
    fn of(packet: &[u8]) -> Option<Self> {
        let ip = packet.get(ETHERNET..)?;
        let v4 = ip.first()? >> 4 == 4;
        let (protocol, from, to, ports) = if v4 { (9, 12, 16, 20) } else { (6, 8, 24, 40) };
        let address = |at: usize| -> Option<IpAddr> {
            Some(if v4 {
                IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?)
            } else {
                IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?)
            })
        };
        let port = |at: usize| Some(u16::from_be_bytes(ip.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            from: SocketAddr::new(address(from)?, port(ports)?),
            to: SocketAddr::new(address(to)?, port(ports + 2)?),
            protocol: *ip.get(protocol)?,
        })
    }
}
