//! Follows links, addresses and default routes through rtnetlink.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        route::{RouteAttribute, RouteMessage, RouteType},
    },
};
use tokio::sync::watch;
use wildmatch::WildMatch;

use super::{
    Device, NodeState,
    roles::{self, Kind, Link},
};

/// How long to wait for further messages before looking: one `ip link add` makes several.
const SETTLE: Duration = Duration::from_millis(50);
/// Time between two looks when nothing is heard: a lost message must not be lost for ever.
const RECHECK: Duration = Duration::from_secs(60);

/// What went wrong with rtnetlink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be opened.
    #[error("open a netlink socket to follow devices and addresses: {0}")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("read {0} through netlink: {1}")]
    Dump(&'static str, #[source] rtnetlink::Error),
}

/// Starts following. The first state is complete when this returns; later ones arrive on the
/// channel, only when something has changed. The task ends when the receiver is dropped.
pub async fn follow(names: Vec<WildMatch>) -> Result<watch::Receiver<NodeState>, Error> {
    let (connection, handle, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])
    .map_err(Error::Open)?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(look(&handle, &names).await?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                heard = messages.next() => if heard.is_none() {
                    tracing::error!("the netlink connection has ended; restart kproxy to follow devices again");
                    return;
                },
                () = tokio::time::sleep(RECHECK) => {}
                () = sender.closed() => return,
            }
            tokio::time::sleep(SETTLE).await;
            // Whatever has been announced by now is part of the look that follows.
            while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, messages.next()).await {}
            match look(&handle, &names).await {
                Ok(state) => {
                    sender.send_if_modified(|old| {
                        let changed = *old != state;
                        *old = state;
                        changed
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot look at devices; keeping what is known")
                }
            }
        }
    });
    Ok(receiver)
}

/// Reads devices, addresses and routes once.
async fn look(handle: &Handle, names: &[WildMatch]) -> Result<NodeState, Error> {
    let defaults = default_route_devices(handle).await?;
    let mut links = Vec::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) =
        messages.try_next().await.map_err(|error| Error::Dump("devices", error))?
    {
        links.extend(link(&message, &defaults));
    }
    let mut addresses = BTreeSet::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) =
        messages.try_next().await.map_err(|error| Error::Dump("addresses", error))?
    {
        let Some(ip) = own_address(&message.attributes) else { continue };
        let index = message.header.index;
        if let Some(link) = links.iter_mut().find(|link| link.device.index == index) {
            link.addresses.push((ip, message.header.prefix_len));
        }
        if ip.is_loopback() || roles::is_global(&ip) {
            addresses.insert(ip);
        }
    }
    Ok(NodeState { devices: roles::uplinks(&links, names), addresses })
}

/// On point-to-point links IFA_ADDRESS is the other end and IFA_LOCAL our own
/// (include/uapi/linux/if_addr.h); IPv6 has only IFA_ADDRESS otherwise.
fn own_address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let mut address = None;
    for attribute in attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    address
}

fn link(message: &LinkMessage, defaults: &BTreeSet<u32>) -> Option<Link> {
    let index = message.header.index;
    let mut name = None;
    let mut kind = Kind::Wire;
    let mut master = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(index) => master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(info) = info {
                        kind = kind_of(info);
                    }
                }
            }
            _ => {}
        }
    }
    let flags = message.header.flags;
    Some(Link {
        device: Device {
            name: name?,
            index,
            ethernet: matches!(
                message.header.link_layer_type,
                LinkLayerType::Ether | LinkLayerType::Loopback
            ),
        },
        kind,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        master,
        addresses: Vec::new(),
        default_route: defaults.contains(&index),
    })
}

fn kind_of(info: &InfoKind) -> Kind {
    match info {
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Veth | InfoKind::Netkit | InfoKind::Vxcan => Kind::Veth,
        InfoKind::Dummy | InfoKind::Ifb | InfoKind::Nlmon | InfoKind::Vrf | InfoKind::Can => {
            Kind::Nowhere
        }
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

/// Devices that a default route of either family leads out of.
async fn default_route_devices(handle: &Handle) -> Result<BTreeSet<u32>, Error> {
    let mut devices = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query: RouteMessage = RouteMessageBuilder::<IpAddr>::new().build();
        query.header.address_family = family;
        let mut messages = handle.route().get(query).execute();
        while let Some(message) =
            messages.try_next().await.map_err(|error| Error::Dump("routes", error))?
        {
            let header = &message.header;
            if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast {
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
