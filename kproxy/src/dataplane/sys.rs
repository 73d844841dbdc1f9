//! The few `bpf()` calls that aya does not offer: batch lookups, links updated in place, link
//! details, pins opened for reading only. The only raw system calls of the data path.

use std::{
    ffi::CString,
    io,
    mem::size_of_val,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::maps::{HashMap, IterableMap, LpmTrie, MapData};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_prog_info};
use ipnet::IpNet;
use kproxy_common::{fragment::Injection, ranges::RangeData};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::codec;

/// Open flag of `BPF_OBJ_GET`: the map is read only (`BPF_F_RDONLY`, uapi/linux/bpf.h).
const BPF_F_RDONLY: u32 = 1 << 3;

/// How a pin is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Reading only. Maps know the difference; links must be opened for reading and writing.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Opens a pinned map, program or link.
///
/// # Errors
/// Those of `BPF_OBJ_GET`: not found, not permitted, no pin of a BPF object.
pub(crate) fn open_pin(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = empty_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.file_flags = match access {
        Access::Read => BPF_F_RDONLY,
        Access::ReadWrite => 0,
    };
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link in one step (`BPF_LINK_UPDATE`): there is no moment without one.
///
/// # Errors
/// `ENOLINK`: the link's cgroup or device is gone.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// What the kernel tells of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkInfo {
    /// Id of the link.
    pub id: u32,
    /// Id of the attached program.
    pub program_id: u32,
    /// Where the link leads.
    pub place: LinkPlace,
}

/// Where a link leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkPlace {
    /// A cgroup, by id (inode number of its folder). 0: the cgroup is gone.
    Cgroup(u64),
    /// A device, by interface index. 0: the device is gone.
    Device(u32),
    /// A kind of link that kproxy does not make.
    Other(u32),
}

/// Asks the kernel about a link.
///
/// # Errors
/// Those of `BPF_OBJ_GET_INFO_BY_FD`, which every kernel with links has.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: all-zero is a valid value of this struct of plain integers.
    let mut info = unsafe { std::mem::zeroed::<bpf_link_info>() };
    let mut attr = empty_attr();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = size_of_val(&info) as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let place = if info.type_ == bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        // SAFETY: plain integers, and the type says that the kernel filled this variant.
        LinkPlace::Cgroup(unsafe { info.__bindgen_anon_1.cgroup.cgroup_id })
    } else if info.type_ == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        // SAFETY: as above.
        LinkPlace::Device(unsafe { info.__bindgen_anon_1.tcx.ifindex })
    } else {
        LinkPlace::Other(info.type_)
    };
    Ok(LinkInfo { id: info.id, program_id: info.prog_id, place })
}

/// Kernel id of a loaded program.
///
/// # Errors
/// Those of `BPF_OBJ_GET_INFO_BY_FD`.
pub(crate) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all-zero is a valid value of this struct of plain integers.
    let mut info = unsafe { std::mem::zeroed::<bpf_prog_info>() };
    let mut attr = empty_attr();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of_val(&info) as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.id)
}

/// Runs a program once on `data`, which it may change (`BPF_PROG_TEST_RUN`).
///
/// # Errors
/// Those of the call.
pub(crate) fn run_on<T: MapBytes>(program: BorrowedFd<'_>, data: &mut T) -> io::Result<()> {
    let input = *data;
    let mut attr = empty_attr();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.data_in = &raw const input as u64;
    attr.test.data_size_in = size_of::<T>() as u32;
    attr.test.data_out = &raw mut *data as u64;
    attr.test.data_size_out = size_of::<T>() as u32;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map(drop)
}

/// What a program finds in its context (`struct __sk_buff`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    /// Index of the packet's device; 0: the loopback device.
    pub device: u32,
    /// Mark of the packet.
    pub mark: u32,
    /// First words of `cb`.
    pub order: Injection,
}

/// Runs a program `times` times on a packet; what it returned last.
///
/// # Errors
/// Those of the call; `ENODEV`: the device is gone.
pub(crate) fn run_with(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &Context,
    times: u32,
) -> io::Result<i32> {
    // Places in words (include/uapi/linux/bpf.h).
    const MARK: usize = 2;
    const DEVICE: usize = 10;
    const CB: usize = 12;
    let Injection { ingress, more, lost } = context.order;
    let mut words = [0u32; CB + 5];
    (words[MARK], words[DEVICE]) = (context.mark, context.device);
    words[CB..CB + 3].copy_from_slice(&[ingress, more, lost]);
    let mut attr = empty_attr();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.data_in = packet.as_ptr() as u64;
    attr.test.data_size_in = packet.len() as u32;
    attr.test.ctx_in = words.as_ptr() as u64;
    attr.test.ctx_size_in = size_of_val(&words) as u32;
    attr.test.repeat = times;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: plain integers; the variant is the one passed in.
    Ok(unsafe { attr.test.retval } as i32)
}

/// Types whose bytes may come from and go to a map.
pub(crate) trait MapBytes: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> MapBytes for T {}

/// Walks a hash map in batches (`BPF_MAP_LOOKUP_BATCH`, kernel 5.6): hundreds of elements a call
/// instead of two calls an element.
pub(crate) struct Batches<'fd, K, V> {
    map: BorrowedFd<'fd>,
    keys: Vec<K>,
    values: Vec<V>,
    /// Bucket that the next call starts at; `None` before the first call.
    cursor: Option<u32>,
    done: bool,
}

impl<'fd, K: MapBytes + aya::Pod, V: MapBytes + aya::Pod> Batches<'fd, K, V> {
    /// A walk over `map`; aya has checked that its keys and values have the sizes of `K` and `V`.
    pub(crate) fn new(map: &'fd HashMap<MapData, K, V>) -> Self {
        const ELEMENTS: usize = 4096;
        let map = IterableMap::map(map).fd().as_fd();
        let mut batches =
            Self { map, keys: Vec::new(), values: Vec::new(), cursor: None, done: false };
        batches.resize(ELEMENTS);
        batches
    }

    fn resize(&mut self, elements: usize) {
        self.keys.resize(elements, K::new_zeroed());
        self.values.resize(elements, V::new_zeroed());
    }

    /// The next elements, `None` after the last. Elements added or removed meanwhile may or may
    /// not be seen; the others are seen once.
    ///
    /// # Errors
    /// Those of the call; `EINVAL` or `ENOTSUPP` (524) where the kernel has none for this map.
    pub(crate) fn next(&mut self) -> io::Result<Option<(&[K], &[V])>> {
        while !self.done {
            let mut attr = empty_attr();
            let mut next = 0u32;
            let cursor = self.cursor.unwrap_or(0);
            attr.batch.in_batch = if self.cursor.is_some() { &raw const cursor as u64 } else { 0 };
            attr.batch.out_batch = &raw mut next as u64;
            attr.batch.keys = self.keys.as_mut_ptr() as u64;
            attr.batch.values = self.values.as_mut_ptr() as u64;
            attr.batch.count = self.keys.len() as u32;
            attr.batch.map_fd = self.map.as_raw_fd() as u32;
            let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
            // SAFETY: plain integers; the variant is the one passed in.
            let found = unsafe { attr.batch.count } as usize;
            match result {
                Ok(_) => self.cursor = Some(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.done = true,
                // One bucket holds more elements than fit: take more at a time.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    self.resize(self.keys.len() * 2);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if found > 0 {
                let found = found.min(self.keys.len());
                return Ok(Some((&self.keys[..found], &self.values[..found])));
            }
        }
        Ok(None)
    }
}

fn empty_attr() -> bpf_attr {
    // SAFETY: all-zero is a valid value of this union of plain integers.
    unsafe { std::mem::zeroed() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is valid for its whole size, and every pointer in it leads to memory that the
    // caller in this module keeps alive and large enough for what the command writes.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as i32, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// All elements of a hash map, in no order.
///
/// # Errors
/// Those of the lookups.
pub(crate) fn read_hash<K, V>(map: &HashMap<MapData, K, V>) -> io::Result<Vec<(K, V)>>
where
    K: MapBytes + aya::Pod,
    V: MapBytes + aya::Pod,
{
    let mut all = Vec::new();
    let mut batches = Batches::new(map);
    loop {
        match batches.next() {
            Ok(Some((keys, values))) => {
                all.extend(keys.iter().copied().zip(values.iter().copied()));
            }
            Ok(None) => return Ok(all),
            Err(error) if has_no_batches(&error) => break,
            Err(error) => return Err(error),
        }
    }
    all.clear();
    for element in map.iter() {
        all.push(element.map_err(io::Error::other)?);
    }
    Ok(all)
}

/// Every source range with its service port. Tries know no batches before 5.13; there are few ranges.
///
/// # Errors
/// Those of `BPF_MAP_GET_NEXT_KEY`.
pub(crate) fn read_ranges(
    trie: &LpmTrie<MapData, RangeData, u32>,
) -> io::Result<Vec<(u32, IpNet)>> {
    let mut all = Vec::new();
    for key in trie.keys() {
        let key = key.map_err(io::Error::other)?;
        all.extend(codec::decode_range(key.prefix_len(), &key.data()));
    }
    Ok(all)
}

fn has_no_batches(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP))
}
