//! Programs that are attached to devices as filters of the clsact qdisc (tc-bpf(8)).

use std::io;

use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHeader, TcMessage, TcOption};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

use super::netlink;

/// Where its filters for both directions hang (uapi/linux/pkt_sched.h: TC_H_CLSACT with TC_H_MIN_INGRESS and
/// TC_H_MIN_EGRESS).
const PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];

/// A program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Filter {
    /// Its name.
    pub program: String,
    /// Its kernel id.
    pub program_id: u32,
    /// The kernel runs filters of lower ones first.
    pub priority: u16,
    /// Whether it sees what comes in by the device; what goes out otherwise.
    pub ingress: bool,
}

/// The programs that are filters on a device, those of what comes in first, each direction in the order in which the
/// kernel runs them. None where the kernel has no filters.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn of(device: u32) -> io::Result<Vec<Filter>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut filters = Vec::new();
    for parent in PARENTS {
        socket.send(&question(device, parent), 0)?;
        // What cannot be read is a filter of another kind.
        let each = |message: NetlinkBuffer<&[u8]>| {
            let message = NetlinkMessage::deserialize(message.into_inner()).ok();
            filters.extend(message.and_then(|message| filter(message, parent == PARENTS[0])));
        };
        match netlink::receive(&socket, each) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            result => result?,
        }
    }
    Ok(filters)
}

fn question(device: u32, parent: u32) -> Vec<u8> {
    let header = TcHeader { index: device as i32, parent: parent.into(), ..TcHeader::default() };
    let message = TcMessage::from_parts(header, Vec::new());
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetTrafficFilter(message));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn filter(message: NetlinkMessage<RouteNetlinkMessage>, ingress: bool) -> Option<Filter> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(message)) =
        message.payload
    else {
        return None;
    };
    // The upper half (uapi/linux/pkt_sched.h, TC_H_MAJ).
    let priority = (message.header.info >> 16) as u16;
    let options = message.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut name, mut id) = (None, None);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(program)) => name = Some(program),
            TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => id = Some(program),
            _ => {}
        }
    }
    Some(Filter { program: name?, program_id: id?, priority, ingress })
}
