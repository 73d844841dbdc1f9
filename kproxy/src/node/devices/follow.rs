//! Asks the kernel for links, addresses and default routes (rtnetlink), and again after changes.

use std::{io, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_connection_with_strict_check, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
        link::{
            InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        },
        route::{RouteAttribute, RouteMessage, RouteType},
    },
};
use thiserror::Error;
use tokio::{sync::watch, time};

use super::{Header, Link, NodeState, Role, Selection, Snapshot};

/// Changes come in bursts (a device, its addresses, its routes): wait until one is over.
const QUIET: Duration = Duration::from_millis(100);
/// Longest wait in a burst that does not end.
const AT_MOST: Duration = Duration::from_secs(1);
/// Everything is read anew this often, should a message have been lost.
const RESYNC: Duration = Duration::from_secs(60);
/// Pause before a broken connection is made anew.
const BACKOFF: Duration = Duration::from_secs(1);

/// The kernel did not tell.
#[derive(Debug, Error)]
pub enum Error {
    /// No netlink socket could be made.
    #[error("could not open a netlink socket to watch devices and addresses: {0}")]
    Socket(#[from] io::Error),
    /// A request failed.
    #[error("could not list {what} through netlink: {error}")]
    List {
        /// Links, addresses or routes.
        what: &'static str,
        /// The error.
        error: rtnetlink::Error,
    },
}

/// Reads the state once. Must be called in a tokio runtime.
///
/// # Errors
/// The kernel did not answer.
pub async fn read(selection: &Selection) -> Result<NodeState, Error> {
    let (connection, handle, _) = new_connection_with_strict_check()?;
    let task = tokio::spawn(connection);
    let snapshot = snapshot(&handle).await;
    task.abort();
    snapshot.map(|snapshot| snapshot.state(selection))
}

/// Reads the state and follows its changes until the receiver is dropped. The receiver holds the
/// first state at once; later ones only when they differ.
///
/// # Errors
/// The first state could not be read. Later errors are logged, and tried again.
pub async fn follow(selection: Selection) -> Result<watch::Receiver<NodeState>, Error> {
    // Subscribed before the first read: a change in between is not missed.
    let mut events = Events::subscribe()?;
    let (sender, receiver) = watch::channel(read(&selection).await?);
    tokio::spawn(async move {
        loop {
            let ended = tokio::select! {
                ended = events.burst() => ended,
                () = time::sleep(RESYNC) => false,
                () = sender.closed() => return,
            };
            if ended {
                tracing::warn!("the netlink connection that tells of device changes has ended");
                time::sleep(BACKOFF).await;
                match Events::subscribe() {
                    Ok(anew) => events = anew,
                    Err(error) => tracing::warn!(%error, "device changes are not seen; retrying"),
                }
            }
            match read(&selection).await {
                Ok(state) => {
                    sender.send_if_modified(|current| {
                        let changed = *current != state;
                        if changed {
                            *current = state;
                        }
                        changed
                    });
                }
                Err(error) => tracing::warn!(%error, "keeping the devices known so far"),
            }
        }
    });
    Ok(receiver)
}

/// Messages of changes.
struct Events {
    messages:
        Box<dyn futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>,
    task: tokio::task::JoinHandle<()>,
}

impl Events {
    fn subscribe() -> io::Result<Self> {
        let (connection, _, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        let messages = Box::new(messages.map(|(message, _)| message));
        Ok(Self { messages, task: tokio::spawn(connection) })
    }

    /// Waits for a change that matters and for the end of its burst. Whether the connection ended.
    async fn burst(&mut self) -> bool {
        loop {
            match self.messages.next().await {
                None => return true,
                Some(message) if matters(&message) => break,
                Some(_) => {}
            }
        }
        let end = time::Instant::now() + AT_MOST;
        while time::Instant::now() < end {
            match time::timeout(QUIET, self.messages.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_quiet) => break,
            }
        }
        false
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Routes come and go by thousands on some nodes; only default routes matter.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => is_default(route),
        // Overruns too: something was lost.
        _ => true,
    }
}

async fn snapshot(handle: &Handle) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot::default();
    let failed = |what| move |error| Error::List { what, error };

    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await.map_err(failed("links"))? {
        if let Some(link) = link(&message) {
            snapshot.links.insert(message.header.index, link);
        }
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(failed("addresses"))? {
        if let Some(addr) = address(&message) {
            snapshot.addresses.push((message.header.index, addr, message.header.prefix_len));
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        // The main table: default routes of others belong to policies, whose devices hold
        // addresses as well.
        filter.header.table = libc::RT_TABLE_MAIN;
        let mut routes = handle.route().get(filter).execute();
        loop {
            match routes.try_next().await {
                Ok(Some(route)) if is_default(&route) => {
                    snapshot.default_routes.extend(devices_of(&route));
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                // A table that no route was ever in does not exist, and a kernel without IPv6 has
                // no such routes.
                Err(rtnetlink::Error::NetlinkError(error))
                    if matches!(error.raw_code().abs(), libc::ENOENT | libc::EOPNOTSUPP) =>
                {
                    break;
                }
                Err(error) => return Err(failed("routes")(error)),
            }
        }
    }
    Ok(snapshot)
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn devices_of(route: &RouteMessage) -> Vec<u32> {
    let mut devices = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => devices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    devices
}

fn address(message: &AddressMessage) -> Option<IpAddr> {
    let (mut address, mut local) = (None, None);
    let mut unusable = message
        .header
        .flags
        .intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(addr) => address = Some(*addr),
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Flags(flags) => {
                unusable |= flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    // On a point-to-point link the address is the peer's and the local one is ours.
    local.or(address).filter(|_| !unusable)
}

fn link(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut controller, mut away) = (None, None, false);
    let (mut kind, mut port_kind) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(index) => controller = Some(*index),
            LinkAttribute::LinkNetNsId(_) => away = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(found) => kind = Some(found),
                        LinkInfo::PortKind(found) => port_kind = Some(found),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // Packets of a VRF's ports are seen on the ports themselves.
    let port_of = controller.filter(|_| !matches!(port_kind, Some(InfoPortKind::Vrf)));
    let flags = message.header.flags;
    let role = if flags.contains(LinkFlags::Loopback) { Role::Loopback } else { role(kind, away) };
    Some(Link {
        name: name?,
        up: flags.contains(LinkFlags::Up),
        role,
        header: header(message.header.link_layer_type),
        port_of,
    })
}

fn role(kind: Option<&InfoKind>, away: bool) -> Role {
    match kind {
        Some(InfoKind::Veth | InfoKind::Netkit | InfoKind::Vxcan) => Role::Pair { away },
        Some(InfoKind::Tun) => Role::Tun,
        Some(InfoKind::Bridge) => Role::Bridge,
        Some(
            InfoKind::Dummy
            | InfoKind::Ifb
            | InfoKind::Nlmon
            | InfoKind::Vrf
            | InfoKind::Vcan
            | InfoKind::Can,
        ) => Role::Inside,
        _ => Role::Ordinary,
    }
}

/// The kernel's own list of devices without a link-layer header: dev_is_mac_header_xmit,
/// include/linux/if_arp.h.
fn header(kind: LinkLayerType) -> Header {
    /// ARPHRD_IP6GRE and ARPHRD_RAWIP.
    const MORE: [u16; 2] = [823, 519];
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => Header::Ethernet,
        LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Void
        | LinkLayerType::None
        | LinkLayerType::Ppp => Header::Ip,
        other if MORE.contains(&u16::from(other)) => Header::Ip,
        _ => Header::Other,
    }
}
