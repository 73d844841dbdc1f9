//! The maps that programs and user space share: who writes each, who reads it. Names and layouts:
//! kproxy-common. What only one file of the programs uses stands there.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use kproxy_common::{
    abi,
    affinity::{AffinityKey, AffinityValue},
    config::{Config, Uplink},
    counters::{DropKey, ServiceCounters},
    filter,
    flow::{FlowKey, FlowValue, unassured::Unassured},
    fragment::{First, INJECTED_REST, RING_BYTES},
    load::LoadKey,
    ranges::RangeData,
    service::{FrontendKey, FrontendValue, Name, Service, Slot},
    socket::{Dialled, SocketState},
    trace::Trace,
};

/// Frontends and address entries. Written by user space, read by every program.
#[map(name = "KP_FRONTENDS")]
pub(crate) static FRONTENDS: HashMap<FrontendKey, FrontendValue> =
    HashMap::with_max_entries(abi::FIRST_FRONTENDS, BPF_F_NO_PREALLOC);

/// Backend sets. User space stores the word through mmap; read by every program.
#[map(name = "KP_SERVICES")]
pub(crate) static SERVICES: Array<Service> =
    Array::with_max_entries(abi::FIRST_SERVICES, BPF_F_MMAPABLE);

/// Backends. User space fills free runs through mmap before it stores the word.
#[map(name = "KP_SLOTS")]
pub(crate) static SLOTS: Array<Slot> = Array::with_max_entries(abi::FIRST_SLOTS, BPF_F_MMAPABLE);

/// Address filter. User space sets and clears bits through mmap.
#[map(name = "KP_FILTER")]
pub(crate) static FILTER: Array<u64> = Array::with_max_entries(filter::WORDS, BPF_F_MMAPABLE);

/// Settings, one entry. Written by user space through mmap.
#[map(name = "KP_CONFIG")]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Source addresses by uplink. Written by user space, read when a flow is opened.
#[map(name = "KP_UPLINKS")]
pub(crate) static UPLINKS: HashMap<u32, Uplink> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Names of service ports. No program reads it: it is here to be made and pinned with the rest.
#[map(name = "KP_NAMES")]
static NAMES: HashMap<u32, Name> =
    HashMap::with_max_entries(abi::FIRST_SERVICES / 2, BPF_F_NO_PREALLOC);

/// What the maps mean. No program reads it: it is here to be made and pinned with the rest.
#[map(name = "KP_LAYOUT")]
static LAYOUT: Array<u64> = Array::with_max_entries(abi::LAYOUT_BYTES / 8, BPF_F_MMAPABLE);

/// Flows, two entries a connection. Written by the tc programs alone. An ordinary hash: an LRU would
/// evict live connections, and one entry of two.
#[map(name = "KP_FLOWS")]
pub(crate) static FLOWS: HashMap<FlowKey, FlowValue> =
    HashMap::with_max_entries(abi::DEFAULT_FLOWS, BPF_F_NO_PREALLOC);

/// Flows that give way when others are opened. Written by the tc programs.
#[map(name = "KP_UNASSURED")]
pub(crate) static UNASSURED: Array<Unassured> = Array::with_max_entries(abi::DEFAULT_UNASSURED, 0);

/// How many flows are assured. Counted by the tc programs; user space counts again and corrects through
/// mmap.
#[map(name = "KP_ASSURED")]
pub(crate) static ASSURED: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The flow filter. The tc programs set bytes; user space clears them through mmap.
#[map(name = "KP_FLOW_FILTER")]
pub(crate) static FLOW_FILTER: Array<[u8; 8]> =
    Array::with_max_entries(filter::POD_FLOWS + 1, BPF_F_MMAPABLE);

/// What the first fragments of packets said, by addresses and identification.
#[map(name = "KP_FRAGMENTS")]
pub(crate) static FRAGMENTS: LruHashMap<FlowKey, First> = LruHashMap::with_max_entries(8192, 0);

/// Connections that the socket path leaves to the packets, where another port tells them from the socket's
/// others. Written by connect and sendmsg, read when a flow is opened.
#[map(name = "KP_APART")]
pub(crate) static APART: LruHashMap<FlowKey, u32> = LruHashMap::with_max_entries(16_384, 0);

/// What sockets that are bound to a port have dialled. Written and read by connect.
#[map(name = "KP_BOUND")]
pub(crate) static BOUND: LruHashMap<FlowKey, Dialled> = LruHashMap::with_max_entries(16_384, 0);

/// Copies of fragments that came before their first one, and word of it. Read by user space; while
/// nobody does, it is full and nothing is copied.
#[map(name = "KP_EARLY")]
pub(crate) static EARLY: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// The end of a large fragment. Written by user space before it runs the program that injects it.
#[map(name = "KP_INJECTED")]
pub(crate) static INJECTED: Array<[u8; INJECTED_REST]> = Array::with_max_entries(1, 0);

/// What `kproxy trace` listens to, one entry. Written by it through mmap, read where connections are decided; a
/// program puts an end to what is over.
#[map(name = "KP_TRACE")]
pub(crate) static TRACE: Array<Trace> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What it is told. Read by user space.
#[map(name = "KP_EVENTS")]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(abi::EVENT_BYTES, 0);

/// Events that it was not told: too many, or it does not keep up.
#[map(name = "KP_UNTOLD")]
pub(crate) static UNTOLD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counters of each service. Written by the programs, read by user space.
#[map(name = "KP_COUNTERS")]
pub(crate) static COUNTERS: PerCpuArray<ServiceCounters> =
    PerCpuArray::with_max_entries(abi::FIRST_SERVICES, 0);

/// Drops and refusals by service and reason. Written by the programs, read by user space.
#[map(name = "KP_DROPS")]
pub(crate) static DROPS: PerCpuHashMap<DropKey, u64> =
    PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// What each socket was told. Freed with the socket.
#[btf_map(name = "KP_SOCKETS")]
pub(crate) static SOCKETS: SkStorage<SocketState> = SkStorage::new();

/// The backend that each client of a service port with session affinity was given last. Written by
/// connect, sendmsg and ingress. An LRU: an entry that is lost costs a client its backend at its next
/// connection, never a connection; and a table full of strangers' entries must not keep new clients
/// out for as long as the timeout, which may be a day.
#[map(name = "KP_AFFINITY")]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityValue> =
    LruHashMap::with_max_entries(abi::DEFAULT_AFFINITY, 0);

/// Source ranges of service ports. Written by user space, read by connect, sendmsg and ingress.
#[map(name = "KP_RANGES")]
pub(crate) static RANGES: LpmTrie<RangeData, u32> =
    LpmTrie::with_max_entries(abi::DEFAULT_RANGES, BPF_F_NO_PREALLOC);

/// Open connections of the backends of services that pick by least connections. Written by the tc
/// programs, connect and release; user space corrects flows and forgets what is zero. A full map
/// counts no further backends.
#[map(name = "KP_LOAD")]
pub(crate) static LOAD: HashMap<LoadKey, i64> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Network namespaces that the socket path serves, and those of pods that are opted out. Written by user
/// space, read by connect and sendmsg. More namespaces than a node has pods: when it is full, the sockets
/// of the others are left alone.
#[map(name = "KP_NETNS")]
pub(crate) static NETNS: HashMap<u64, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
