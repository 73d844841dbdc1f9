//! XDP programs of devices, which see packets before any other hook.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp},
    },
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use super::netlink;

/// Kernel id of the XDP program of a device; `None`: it has none.
///
/// # Errors
/// The kernel does not tell; `ENODEV`: there is no such device.
pub(crate) fn program_of(device: u32) -> io::Result<Option<u32>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut link = LinkMessage::default();
    link.header.index = device;
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
    // With an acknowledgement, which ends the answer.
    message.header.flags = NLM_F_REQUEST | libc::NLM_F_ACK as u16;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = None;
    netlink::receive(&socket, |message: NetlinkBuffer<&[u8]>| {
        found = found.or(NetlinkMessage::deserialize(message.into_inner()).ok().and_then(program));
    })?;
    Ok(found)
}

fn program(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<u32> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else {
        return None;
    };
    let mut attributes = link.attributes.into_iter();
    let xdp = attributes.find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    xdp.into_iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(id),
        _ => None,
    })
}
