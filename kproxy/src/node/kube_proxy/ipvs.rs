//! What kube-proxy's mode ipvs keeps outside of netfilter's tables: virtual servers, a device that holds their
//! addresses, and sets of addresses and ports (pkg/proxy/ipvs).

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use kproxy_common::net::proto;
use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex, sys::socket::SockaddrStorage};
use rtnetlink::{
    packet_core::{DefaultNla, NlasIterator},
    sys::{
        Socket,
        protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
    },
};

use super::{
    failure::Failure,
    tool::{self, IPSET},
};
use crate::node::netlink;

/// The device, which is never up.
pub(crate) const DEVICE: &str = "kube-ipvs0";
/// Virtual servers of this network namespace, as text.
const SERVERS: &str = "/proc/self/net/ip_vs";
/// The range of NodePorts that a cluster has unless told otherwise, where the sets do not say.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Names of the sets (pkg/proxy/ipvs/ipset.go), without `KUBE-` for IPv4 and `KUBE-6-` for IPv6.
const SETS: [&str; 17] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];
/// Longest name that a set may have; kube-proxy cuts the rest off.
const SET_NAME_LEN: usize = 31;

/// A virtual server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Server {
    pub(crate) protocol: u8,
    pub(crate) at: SocketAddr,
}

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ipvs {
    /// Virtual servers of kube-proxy's.
    pub(crate) servers: Vec<Server>,
    /// How many others there are.
    pub(crate) foreign: usize,
    /// The device is there.
    pub(crate) device: bool,
    /// Sets of kube-proxy's.
    pub(crate) sets: Vec<String>,
}

impl Ipvs {
    /// Looks. `uses_sets`: rules of kube-proxy's look addresses up in sets.
    pub(super) fn find(uses_sets: bool) -> (Self, Option<Failure>) {
        let device = if_nametoindex(DEVICE).is_ok();
        let all = servers(&fs::read_to_string(SERVERS).unwrap_or_default());
        let (sets, failure) = match saved_sets() {
            Ok(saved) => (saved, None),
            // Without any of the mode's things there is nothing to look for.
            Err(_) if !device && !uses_sets => (String::new(), None),
            Err(source) => {
                (String::new(), Some(Failure::new("look for sets of kube-proxy", source)))
            }
        };
        let (addresses, of_device) = addresses();
        let node_ports = node_ports(&sets);
        let is_owned = |server: &Server| {
            let (ip, port) = (server.at.ip(), server.at.port());
            let is_node_port = match node_ports.is_empty() {
                true => NODE_PORTS.contains(&port),
                false => node_ports.contains(&port),
            };
            device && (of_device.contains(&ip) || addresses.contains(&ip) && is_node_port)
        };
        let (servers, foreign): (Vec<_>, Vec<_>) = all.into_iter().partition(is_owned);
        (Self { servers, foreign: foreign.len(), device, sets: owned_sets(&sets) }, failure)
    }

    /// What it is, in lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let count = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{count} {what}s")),
        };
        let device = self.device.then(|| format!("device {DEVICE}"));
        let servers = count(self.servers.len(), "IPVS virtual server");
        servers.into_iter().chain(device).chain(count(self.sets.len(), "ipset KUBE-*")).collect()
    }

    /// What stays, and why.
    pub(crate) fn kept(&self) -> Option<String> {
        (self.foreign > 0)
            .then(|| format!("{} IPVS virtual servers that are not kube-proxy's", self.foreign))
    }

    /// Takes it away; the lines of what is gone. Rules that use the sets must be gone.
    pub(super) fn remove(&self) -> (Vec<String>, Vec<Failure>) {
        let mut failures = Vec::new();
        let mut gone = self.clone();
        if !self.servers.is_empty()
            && let Err(error) = delete_servers(&self.servers)
        {
            gone.servers.clear();
            failures.push(Failure::new("remove IPVS virtual servers", error));
        }
        if self.device
            && let Err(error) = delete_device()
        {
            gone.device = false;
            failures.push(Failure::new(format!("remove device {DEVICE}"), error));
        }
        gone.sets.retain(|set| match tool::run("ipset", &["destroy", set], "") {
            Ok(_) => true,
            Err(error) => {
                failures.push(Failure::new(format!("remove ipset {set}"), error));
                false
            }
        });
        (gone.lines(), failures)
    }
}

/// The addresses of the node, and those of the device.
fn addresses() -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let (mut node, mut device) = (BTreeSet::new(), BTreeSet::new());
    for entry in getifaddrs().into_iter().flatten() {
        let of = if entry.interface_name == DEVICE { &mut device } else { &mut node };
        of.extend(entry.address.and_then(ip));
    }
    (node, device)
}

/// The virtual servers of /proc/net/ip_vs (ip_vs_info_seq_show(), net/netfilter/ipvs/ip_vs_ctl.c); those for marks
/// left out: kube-proxy makes none.
fn servers(text: &str) -> Vec<Server> {
    text.lines().filter_map(server).collect()
}

fn server(line: &str) -> Option<Server> {
    let mut words = line.split_ascii_whitespace();
    let protocol = match words.next()? {
        "TCP" => proto::TCP,
        "UDP" => proto::UDP,
        "SCTP" => proto::SCTP,
        _ => return None,
    };
    let (ip, port) = words.next()?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().ok()?.into(),
        None => Ipv4Addr::from_bits(u32::from_str_radix(ip, 16).ok()?).into(),
    };
    Some(Server { protocol, at: SocketAddr::new(ip, port) })
}

/// Every set with its members, as `ipset` saves them.
fn saved_sets() -> Result<String, tool::Error> {
    if !tool::is_there("ipset") {
        return Err(tool::Error::Missing { program: "ipset".to_owned(), package: IPSET });
    }
    tool::run("ipset", &["save"], "")
}

/// Its sets among those that are saved.
fn owned_sets(saved: &str) -> Vec<String> {
    let is_owned = |set: &&str| {
        let name = |prefix: &str, name: &str| {
            let whole = format!("{prefix}{name}");
            whole[..whole.len().min(SET_NAME_LEN)] == **set
        };
        SETS.iter().any(|known| name("KUBE-", known) || name("KUBE-6-", known))
    };
    let created = saved.lines().filter_map(|line| line.strip_prefix("create ")?.split(' ').next());
    created.filter(is_owned).map(str::to_owned).collect()
}

/// The members of the sets of NodePorts: `30080`, or `192.0.2.1,sctp:30080`.
fn node_ports(saved: &str) -> BTreeSet<u16> {
    let member = |line: &str| {
        let (set, member) = line.strip_prefix("add ")?.split_once(' ')?;
        let member = member.split(' ').next()?;
        let port = member.rsplit_once(':').map_or(member, |(_, port)| port);
        set.contains("NODE-PORT-").then(|| port.parse().ok()).flatten()
    };
    saved.lines().filter_map(member).collect()
}

/// Numbers of generic netlink and of IPVS (uapi/linux/genetlink.h, ip_vs.h).
mod number {
    pub(super) const CONTROL: u16 = 16;
    pub(super) const GET_FAMILY: u8 = 3;
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const DELETE_SERVER: u8 = 3;
    pub(super) const SERVER: u16 = 1;
    pub(super) const SERVER_FAMILY: u16 = 1;
    pub(super) const SERVER_PROTOCOL: u16 = 2;
    pub(super) const SERVER_ADDRESS: u16 = 3;
    pub(super) const SERVER_PORT: u16 = 4;
}
/// Length of `struct genlmsghdr`.
const GENERIC_LEN: usize = 4;

fn delete_servers(servers: &[Server]) -> io::Result<()> {
    let socket = Socket::new(NETLINK_GENERIC)?;
    let family = generic_family(&socket, "IPVS")?;
    servers.iter().try_for_each(|server| {
        match ask(&socket, family, &delete(server)) {
            // It went by itself.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.map(drop),
        }
    })
}

fn delete(server: &Server) -> Vec<u8> {
    let (family, mut address) = match server.at.ip() {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    address.resize(16, 0);
    let of_server = [
        DefaultNla::new(number::SERVER_FAMILY, (family as u16).to_ne_bytes().to_vec()),
        DefaultNla::new(number::SERVER_PROTOCOL, u16::from(server.protocol).to_ne_bytes().to_vec()),
        DefaultNla::new(number::SERVER_ADDRESS, address),
        DefaultNla::new(number::SERVER_PORT, server.at.port().to_be_bytes().to_vec()),
    ];
    const NESTED: u16 = libc::NLA_F_NESTED as u16;
    let nested = DefaultNla::new(number::SERVER | NESTED, netlink::emitted(&of_server[..]));
    generic(number::DELETE_SERVER, &[nested])
}

/// The number of a family of generic netlink.
fn generic_family(socket: &Socket, name: &str) -> io::Result<u16> {
    let name = DefaultNla::new(number::FAMILY_NAME, [name.as_bytes(), b"\0"].concat());
    let answer = ask(socket, number::CONTROL, &generic(number::GET_FAMILY, &[name]))?;
    let attributes = NlasIterator::new(answer.get(GENERIC_LEN..).unwrap_or_default());
    let id = attributes.flatten().find(|attribute| attribute.kind() == number::FAMILY_ID);
    let id = id.and_then(|id| id.value().first_chunk().map(|id| u16::from_ne_bytes(*id)));
    id.ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
}

fn generic(command: u8, attributes: &[DefaultNla]) -> Vec<u8> {
    let mut body = vec![command, 1, 0, 0];
    body.extend(netlink::emitted(attributes));
    body
}

/// Asks the kernel and gives its one answer, empty where it only does what was asked.
fn ask(socket: &Socket, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    socket.send(&netlink::message(kind, flags, body), 0)?;
    let mut answer = Vec::new();
    netlink::receive(socket, |message| answer = message.payload().to_vec())?;
    Ok(answer)
}

/// Removes the device. That it is not there is success.
fn delete_device() -> io::Result<()> {
    let Ok(index) = if_nametoindex(DEVICE) else { return Ok(()) };
    // struct ifinfomsg: the index is its third word but one.
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let socket = Socket::new(NETLINK_ROUTE)?;
    ask(&socket, libc::RTM_DELLINK, &body).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_servers_are_read_and_those_for_marks_left_out() {
        let text = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr persistent 10800 FFFFFFFF
  -> 0AF40102:1F90      Masq    1      0          0
UDP  [fd00:0010:0096:0000:0000:0000:0000:000a]:0035 rr
  -> [fd00:0010:0244:0000:0000:0000:0000:0002]:0035      Masq    1      0          0
SCTP C0000201:7530 wrr
FWM  00000001 rr
";
        let read: Vec<_> = servers(text).iter().map(|s| (s.protocol, s.at.to_string())).collect();
        let wanted = [
            (proto::TCP, "10.96.0.10:80"),
            (proto::UDP, "[fd00:10:96::a]:53"),
            (proto::SCTP, "192.0.2.1:30000"),
        ];
        assert_eq!(read, wanted.map(|(protocol, at)| (protocol, at.to_owned())));
    }

    #[test]
    fn sets_of_others_stay_and_node_ports_are_read() {
        let saved = "\
create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
create KUBE-6-NODE-PORT-LOCAL-SCTP-HAS hash:ip,port family inet6 hashsize 1024 maxelem 65536
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
create KUBE-NODE-PORT-SCTP-HASH hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-NODE-PORT-SCTP-HASH 192.0.2.1,sctp:31000
create KUBE-POD-FW-ABC hash:ip family inet hashsize 1024 maxelem 65536
create kube-router-svip hash:ip family inet hashsize 1024 maxelem 65536
";
        let wanted = [
            "KUBE-CLUSTER-IP",
            "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS",
            "KUBE-NODE-PORT-TCP",
            "KUBE-NODE-PORT-SCTP-HASH",
        ];
        assert_eq!(owned_sets(saved), wanted);
        assert_eq!(node_ports(saved), [30_080, 31_000].into());
    }

    #[test]
    fn families_of_generic_netlink_are_asked_for_by_name() {
        let socket = Socket::new(NETLINK_GENERIC).unwrap();
        assert_eq!(generic_family(&socket, "nlctrl").unwrap(), number::CONTROL);
        let none = generic_family(&socket, "kproxy-none").unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_server_is_named_by_family_protocol_address_and_port() {
        let server = Server { protocol: proto::TCP, at: "10.96.0.10:80".parse().unwrap() };
        let bytes = delete(&server);
        assert_eq!(bytes[..4], [3, 1, 0, 0]);
        // The nested attribute: 4 + (8 + 8 + 20 + 8) bytes, their flag set.
        assert_eq!(bytes[4..8], [48, 0, 1, 0x80]);
        assert_eq!(bytes[8..16], [6, 0, 1, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[24..32], [20, 0, 3, 0, 10, 96, 0, 10]);
        assert_eq!(bytes[44..50], [6, 0, 4, 0, 0, 80]);
    }
}
