//! Reads devices, addresses and routes through rtnetlink, and tells which of its announcements
//! matter.

use std::{collections::BTreeSet, net::IpAddr};

use futures::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        route::{RouteAttribute, RouteMessage, RouteType},
    },
};

use super::{
    device::Device,
    roles::{Kind, Link},
};

/// Device of kube-proxy's IPVS mode, which holds all ClusterIPs. They are not the node's own, also
/// while kproxy takes over from it (kube-proxy leaves them out itself: pkg/proxy/ipvs/proxier.go).
const KUBE_IPVS: &str = "kube-ipvs0";

/// What went wrong with rtnetlink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be opened.
    #[error("open a netlink socket to follow devices and addresses: {0}")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("read {0} through netlink: {1}")]
    Dump(&'static str, #[source] rtnetlink::Error),
    /// The connection is gone.
    #[error("the netlink connection has ended")]
    Ended,
}

/// What an announcement makes worth reading again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum News {
    /// Nothing: a route to some network, a neighbour. A router daemon makes thousands of them.
    Nothing,
    /// Devices and addresses.
    Devices,
    /// Default routes too.
    Routes,
}

/// What a message tells. `defaults` are the devices with a default route: the kernel takes their
/// routes away in silence when they go down or lose an address, never gives them new ones.
pub(super) fn news(
    message: &NetlinkMessage<RouteNetlinkMessage>,
    defaults: &BTreeSet<u32>,
) -> News {
    let of_device =
        |index: u32| if defaults.contains(&index) { News::Routes } else { News::Devices };
    let message = match &message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        // Messages have been lost, whatever they told.
        NetlinkPayload::Overrun(_) => return News::Routes,
        _ => return News::Nothing,
    };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            of_device(link.header.index)
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            of_device(address.header.index)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
            if is_default(route) =>
        {
            News::Routes
        }
        _ => News::Nothing,
    }
}

/// All devices, with their addresses, and all addresses of the node.
pub(super) async fn devices(
    handle: &Handle,
    defaults: &BTreeSet<u32>,
) -> Result<(Vec<Link>, BTreeSet<IpAddr>), Error> {
    let mut links = Vec::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) =
        messages.try_next().await.map_err(|error| Error::Dump("devices", error))?
    {
        links.extend(link(&message, defaults));
    }
    let mut addresses = BTreeSet::new();
    // Last: the first address is what backends elsewhere see as their client.
    let mut fleeting = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) =
        messages.try_next().await.map_err(|error| Error::Dump("addresses", error))?
    {
        let Some((ip, lasting)) = usable_address(&message) else { continue };
        let index = message.header.index;
        let link = links.iter_mut().find(|link| link.device.index == index);
        if link.as_ref().is_some_and(|link| link.device.name == KUBE_IPVS) {
            continue;
        }
        if let Some(link) = link {
            let address = (ip, message.header.prefix_len);
            if lasting { link.addresses.push(address) } else { fleeting.push((index, address)) }
        }
        addresses.insert(ip);
    }
    for (index, address) in fleeting {
        let link = links.iter_mut().find(|link| link.device.index == index);
        link.into_iter().for_each(|link| link.addresses.push(address));
    }
    Ok((links, addresses))
}

/// Devices that a default route of either family leads out of.
pub(super) async fn default_route_devices(handle: &Handle) -> Result<BTreeSet<u32>, Error> {
    let mut devices = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query: RouteMessage = RouteMessageBuilder::<IpAddr>::new().build();
        query.header.address_family = family;
        let mut messages = handle.route().get(query).execute();
        while let Some(message) =
            messages.try_next().await.map_err(|error| Error::Dump("routes", error))?
        {
            if !is_default(&message) {
                continue;
            }
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => {
                        devices.insert(*index);
                    }
                    RouteAttribute::MultiPath(hops) => {
                        devices.extend(hops.iter().map(|hop| hop.interface_index));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(devices)
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

/// The address, if packets to it reach this node: duplicate address detection (IPv6) may be at
/// work on it still, or have found another owner. And whether it is one to begin connections with:
/// a deprecated address only answers, a temporary one (RFC 8981) is replaced every day.
fn usable_address(message: &AddressMessage) -> Option<(IpAddr, bool)> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links IFA_ADDRESS is the other end and IFA_LOCAL our own
            // (include/uapi/linux/if_addr.h); IPv6 has only IFA_ADDRESS otherwise.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let pending =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if pending || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    // IFA_F_TEMPORARY is the number of IFA_F_SECONDARY, which IPv4 means by it.
    let is_fleeting = flags.intersects(AddressFlags::Deprecated | AddressFlags::Secondary);
    Some((local.or(address)?, !is_fleeting))
}

fn link(message: &LinkMessage, defaults: &BTreeSet<u32>) -> Option<Link> {
    let header = &message.header;
    let (ethernet, other_header) = packets_begin_with(header.link_layer_type);
    let mut name = None;
    let mut kind = Kind::Wire;
    let mut master = None;
    let (mut peer, mut peer_elsewhere) = (false, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(index) => master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Link(index) => peer = *index != 0,
            LinkAttribute::LinkNetNsId(_) => peer_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(info) = info {
                        kind = kind_of(info, ethernet);
                    }
                }
            }
            _ => {}
        }
    }
    Some(Link {
        device: Device { name: name?, index: header.index, ethernet },
        kind,
        other_header,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        master,
        peer_here: kind == Kind::Veth && peer && !peer_elsewhere,
        addresses: Vec::new(),
        default_route: defaults.contains(&header.index),
    })
}

/// Whether packets begin with an Ethernet header, and what with if it is neither that nor IP. IP is
/// what the kernel itself takes for it (dev_is_mac_header_xmit, include/linux/if_arp.h).
fn packets_begin_with(layer: LinkLayerType) -> (bool, Option<String>) {
    match layer {
        LinkLayerType::Ether | LinkLayerType::Loopback => (true, None),
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre
        | LinkLayerType::Ppp => (false, None),
        // IP over InfiniBand has a header of 4 bytes (RFC 4391, section 6).
        other => (false, Some(other.to_string())),
    }
}

fn kind_of(info: &InfoKind, ethernet: bool) -> Kind {
    match info {
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Veth | InfoKind::Netkit | InfoKind::Vxcan => Kind::Veth,
        InfoKind::Vrf => Kind::Vrf,
        InfoKind::Dummy | InfoKind::Ifb | InfoKind::Nlmon | InfoKind::Can => Kind::Nowhere,
        InfoKind::Tun if ethernet => Kind::Tap,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::Wireguard
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::Xfrm
        | InfoKind::Tun => Kind::Overlay,
        _ => Kind::Wire,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressHeaderFlags;

    use super::*;

    fn message(inner: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::from(inner)
    }

    fn route(prefix: u8, kind: RouteType) -> RouteMessage {
        let mut route = RouteMessage::default();
        (route.header.destination_prefix_length, route.header.kind) = (prefix, kind);
        route
    }

    #[test]
    fn only_default_routes_are_news_among_routes() {
        let none = BTreeSet::new();
        for (prefix, kind, wanted) in [
            (0, RouteType::Unicast, News::Routes),
            (24, RouteType::Unicast, News::Nothing),
            (32, RouteType::Local, News::Nothing),
            (0, RouteType::BlackHole, News::Nothing),
        ] {
            for event in [RouteNetlinkMessage::NewRoute, RouteNetlinkMessage::DelRoute] {
                assert_eq!(news(&message(event(route(prefix, kind))), &none), wanted);
            }
        }
        let lost = NetlinkMessage::new(Default::default(), NetlinkPayload::Overrun(Vec::new()));
        assert_eq!(news(&lost, &none), News::Routes, "messages were lost");
    }

    #[test]
    fn devices_with_a_default_route_may_lose_it_in_silence() {
        let mut link = LinkMessage::default();
        link.header.index = 2;
        let mut address = AddressMessage::default();
        address.header.index = 2;
        for event in [
            RouteNetlinkMessage::NewLink(link.clone()),
            RouteNetlinkMessage::DelLink(link),
            RouteNetlinkMessage::NewAddress(address.clone()),
            RouteNetlinkMessage::DelAddress(address),
        ] {
            let event = message(event);
            assert_eq!(news(&event, &[3].into()), News::Devices);
            assert_eq!(news(&event, &[2, 3].into()), News::Routes);
        }
    }

    #[test]
    fn addresses_count_once_they_are_usable() {
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        for (flags, usable) in [
            (AddressFlags::Permanent, Some(true)),
            (AddressFlags::Tentative, None),
            (AddressFlags::Tentative | AddressFlags::Optimistic, Some(true)),
            (AddressFlags::Dadfailed | AddressFlags::Tentative, None),
            (AddressFlags::Dadfailed, None),
            (AddressFlags::Deprecated, Some(false)),
            (AddressFlags::Secondary, Some(false)),
        ] {
            let wanted = usable.map(|lasting| (ip, lasting));
            let mut message = AddressMessage::default();
            message.attributes.push(AddressAttribute::Address(ip));
            message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
            assert_eq!(usable_address(&message), wanted, "header {flags:?}");
            message.header.flags = AddressHeaderFlags::empty();
            message.attributes.push(AddressAttribute::Flags(flags));
            assert_eq!(usable_address(&message), wanted, "attribute {flags:?}");
        }
    }

    #[test]
    fn a_point_to_point_address_is_the_near_end() {
        let [near, far] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let mut message = AddressMessage::default();
        message.attributes = vec![AddressAttribute::Local(near), AddressAttribute::Address(far)];
        assert_eq!(usable_address(&message), Some((near, true)));
    }

    #[test]
    fn the_header_follows_from_the_link_layer() {
        for (layer, ethernet, known) in [
            (LinkLayerType::Ether, true, true),
            (LinkLayerType::None, false, true),
            (LinkLayerType::Tunnel6, false, true),
            (LinkLayerType::Ppp, false, true),
            (LinkLayerType::Infiniband, false, false),
            (LinkLayerType::Ieee1394, false, false),
        ] {
            let (is_ethernet, other) = packets_begin_with(layer);
            assert_eq!((is_ethernet, other.is_none()), (ethernet, known), "{layer}");
        }
    }

    #[test]
    fn a_pair_is_here_when_its_peer_has_no_namespace_of_its_own() {
        let veth = |attributes: &[LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName("veth0".into()),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
            ];
            message.attributes.extend_from_slice(attributes);
            link(&message, &BTreeSet::new()).unwrap().peer_here
        };
        assert!(veth(&[LinkAttribute::Link(7)]));
        assert!(!veth(&[LinkAttribute::Link(7), LinkAttribute::LinkNetNsId(0)]));
        assert!(!veth(&[]));
    }
}
