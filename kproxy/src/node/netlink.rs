//! Netlink messages of the families that `rtnetlink` has no types for.

use std::io;

use rtnetlink::packet_core::{DefaultNla, Emitable as _, NetlinkBuffer};
use rtnetlink::sys::Socket;

/// Length of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// A message: a header and what follows it.
pub(crate) fn message(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes.extend(body);
    let length = bytes.len() as u32;
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(flags as u16);
    header.set_sequence_number(1);
    bytes
}

/// Attributes, as bytes.
pub(crate) fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// Hands each message of the kernel's answer on, until it ends: as a dump does, or with an acknowledgement.
///
/// # Errors
/// The one that the kernel answers with, and those of the socket.
pub(crate) fn receive(
    socket: &Socket,
    mut each: impl FnMut(NetlinkBuffer<&[u8]>),
) -> io::Result<()> {
    loop {
        let (bytes, _kernel) = socket.recv_from_full()?;
        for message in messages(&bytes) {
            match i32::from(message.message_type()) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let error = error(message.payload());
                    return if error.raw_os_error() == Some(0) { Ok(()) } else { Err(error) };
                }
                _ => each(message),
            }
        }
    }
}

/// The messages of one datagram.
fn messages(bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// The error of a `struct nlmsgerr`, 0 for none.
fn error(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(-code)
}
