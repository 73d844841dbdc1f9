//! The few bpf(2) calls that aya does not offer: batch lookups, links updated in place, link
//! details, pins opened for reading only and made for any object, programs run once. The only raw
//! system calls of the data path.

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

use aya::maps::{HashMap, IterableMap, MapData};
use aya_obj::generated::{
    BPF_F_QUERY_EFFECTIVE, BPF_NOEXIST, bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info,
    bpf_link_type, bpf_map_info, bpf_map_type, bpf_prog_info,
};
use kproxy_common::fragment::Injection;
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// Pins a map, program or link at a path where nothing is.
///
/// # Errors
/// Those of `BPF_OBJ_PIN`.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = empty_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = object.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
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

/// Takes the program of a link off at once (`BPF_LINK_DETACH`), whoever has the link open.
///
/// # Errors
/// Those of the call.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// What the kernel tells of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkInfo {
    /// Id of the link.
    pub(crate) id: u32,
    /// Id of the attached program.
    pub(crate) program_id: u32,
    /// Where the link leads.
    pub(crate) place: LinkPlace,
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

/// Ids of the programs that the kernel runs for sockets of a cgroup at a hook, in that order: those of its parents,
/// too (`BPF_F_QUERY_EFFECTIVE`).
///
/// # Errors
/// Those of `BPF_PROG_QUERY`; `ENOSPC`: more than 64.
pub(crate) fn cgroup_programs(
    cgroup: BorrowedFd<'_>,
    hook: bpf_attach_type,
) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = empty_attr();
    attr.query.__bindgen_anon_1.target_fd = cgroup.as_raw_fd() as u32;
    attr.query.attach_type = hook as u32;
    attr.query.query_flags = BPF_F_QUERY_EFFECTIVE;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = ids.len() as u32;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: plain integers; the variant is the one passed in.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt } as usize;
    Ok(ids.into_iter().take(count).collect())
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
    pub(crate) device: u32,
    /// Mark of the packet.
    pub(crate) mark: u32,
    /// First words of `cb`.
    pub(crate) order: Injection,
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

/// Reads elements of a hash map (`BPF_MAP_LOOKUP_BATCH`, kernel 5.6), from where an earlier call has
/// stopped. How many there are now in `keys` and `values`, and where the next call goes on; `None`:
/// these are the last.
///
/// # Errors
/// Those of the call: `ENOSPC` when there is no room for all elements of a bucket; `EINVAL` or
/// `ENOTSUPP` (524) where the kernel has none for this map.
pub(crate) fn lookup_batch<K, V>(
    map: &HashMap<MapData, K, V>,
    from: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)>
where
    K: MapBytes + aya::Pod,
    V: MapBytes + aya::Pod,
{
    // aya has checked that keys and values have the sizes of `K` and `V`.
    let room = keys.len().min(values.len());
    let fd = IterableMap::map(map).fd().as_fd();
    look_up_batch(fd, from, keys.as_mut_ptr().cast(), values.as_mut_ptr().cast(), room)
}

/// A key and its values.
pub(crate) type RawElement = (Vec<u8>, Vec<u8>);

/// A map whose elements are bytes: one of another version, of which only the sizes are known.
pub(crate) struct RawMap {
    map: OwnedFd,
    /// Bytes of a key.
    key: usize,
    /// Bytes of a value.
    value: usize,
    /// Bytes of what is read and written with a key: a value, or one of each CPU.
    values: usize,
    entries: u32,
    /// Whether all elements are there always.
    is_array: bool,
}

impl RawMap {
    /// Of a map that has keys and can be read.
    ///
    /// # Errors
    /// Those of `BPF_OBJ_GET_INFO_BY_FD`, and of asking for the number of CPUs.
    pub(crate) fn new(map: OwnedFd) -> io::Result<Self> {
        // SAFETY: all-zero is a valid value of this struct of plain integers.
        let mut info = unsafe { std::mem::zeroed::<bpf_map_info>() };
        let mut attr = empty_attr();
        attr.info.bpf_fd = map.as_raw_fd() as u32;
        attr.info.info_len = size_of_val(&info) as u32;
        attr.info.info = &raw mut info as u64;
        bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
        const OF_EACH_CPU: [bpf_map_type; 3] = [
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
        ];
        let (key, value) = (info.key_size as usize, info.value_size as usize);
        let values = if OF_EACH_CPU.iter().any(|kind| *kind as u32 == info.type_) {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            value.next_multiple_of(8) * cpus
        } else {
            value
        };
        let is_array = [bpf_map_type::BPF_MAP_TYPE_ARRAY, bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY]
            .iter()
            .any(|kind| *kind as u32 == info.type_);
        Ok(Self { map, key, value, values, entries: info.max_entries, is_array })
    }

    /// The map itself.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Bytes of a key and of a value.
    pub(crate) const fn sizes(&self) -> (usize, usize) {
        (self.key, self.value)
    }

    /// Whether all elements are there always, at first with nothing but zeros.
    pub(crate) const fn is_array(&self) -> bool {
        self.is_array
    }

    /// How many elements fit.
    pub(crate) const fn entries(&self) -> u32 {
        self.entries
    }

    /// The values of a key; `None`: there are none.
    ///
    /// # Errors
    /// Those of `BPF_MAP_LOOKUP_ELEM`.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut values = vec![0u8; self.values];
        let mut attr = self.element(key, &values)?;
        attr.__bindgen_anon_2.__bindgen_anon_1.value = values.as_mut_ptr() as u64;
        match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
            Ok(_) => Ok(Some(values)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the values of a key. Whether it did: with `only_new` it does not where there are some.
    ///
    /// # Errors
    /// Those of `BPF_MAP_UPDATE_ELEM`; `EINVAL` for bytes of another size.
    pub(crate) fn set(&self, key: &[u8], values: &[u8], only_new: bool) -> io::Result<bool> {
        let mut attr = self.element(key, values)?;
        attr.__bindgen_anon_2.flags = if only_new { BPF_NOEXIST.into() } else { 0 };
        match bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) {
            Ok(_) => Ok(true),
            Err(error) if only_new && error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A call about one element, checked for its size.
    fn element(&self, key: &[u8], values: &[u8]) -> io::Result<bpf_attr> {
        if key.len() != self.key || values.len() != self.values {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = empty_attr();
        attr.__bindgen_anon_2.map_fd = self.map.as_raw_fd() as u32;
        attr.__bindgen_anon_2.key = key.as_ptr() as u64;
        attr.__bindgen_anon_2.__bindgen_anon_1.value = values.as_ptr() as u64;
        Ok(attr)
    }

    /// The key after this one, the first one after `None`; `None`: there is no other.
    ///
    /// # Errors
    /// Those of `BPF_MAP_GET_NEXT_KEY`.
    pub(crate) fn key_after(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        if key.is_some_and(|key| key.len() != self.key) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut next = vec![0u8; self.key];
        let mut attr = empty_attr();
        attr.__bindgen_anon_2.map_fd = self.map.as_raw_fd() as u32;
        attr.__bindgen_anon_2.key = key.map_or(0, |key| key.as_ptr() as u64);
        attr.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
        match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`lookup_batch`], at most `room` elements: their keys and values, one after the other.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn batch(
        &self,
        from: Option<u32>,
        room: usize,
    ) -> io::Result<(Vec<RawElement>, Option<u32>)> {
        let (mut keys, mut values) = (vec![0u8; room * self.key], vec![0u8; room * self.values]);
        let (found, next) =
            look_up_batch(self.map.as_fd(), from, keys.as_mut_ptr(), values.as_mut_ptr(), room)?;
        let keys = keys.chunks_exact(self.key).map(<[u8]>::to_vec);
        let values = values.chunks_exact(self.values).map(<[u8]>::to_vec);
        Ok((keys.zip(values).take(found).collect(), next))
    }
}

/// Room at `keys` and `values` for so many elements of the map, as the callers in this module have checked.
fn look_up_batch(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    keys: *mut u8,
    values: *mut u8,
    room: usize,
) -> io::Result<(usize, Option<u32>)> {
    let (start, mut next) = (from.unwrap_or(0), 0u32);
    let mut attr = empty_attr();
    attr.batch.in_batch = if from.is_some() { &raw const start as u64 } else { 0 };
    attr.batch.out_batch = &raw mut next as u64;
    attr.batch.keys = keys as u64;
    attr.batch.values = values as u64;
    attr.batch.count = room as u32;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    let next = match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => Some(next),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => return Err(error),
    };
    // SAFETY: plain integers; the variant is the one passed in.
    let found = unsafe { attr.batch.count } as usize;
    Ok((found.min(room), next))
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
