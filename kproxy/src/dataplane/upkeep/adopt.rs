//! Connections that kube-proxy has opened: the programs leave them to netfilter.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use kproxy_common::flow::{
    FlowKey,
    adopt::{ADOPTED, AdoptQuery, Adopted},
};

use crate::{dataplane::kernel::bpf, node::ctnetlink::Tracked};

/// Has the programs know these connections. `program` is [`kproxy_common::abi::program::ADOPT`]. How many of them
/// lead to frontends and are left to netfilter.
///
/// # Errors
/// The program could not be run.
pub(in crate::dataplane) fn leave(program: &OwnedFd, tracked: &[Tracked]) -> io::Result<usize> {
    let mut left = 0;
    for some in tracked.chunks(ADOPTED) {
        let mut query = AdoptQuery {
            ethernet: [0; 16],
            count: some.len() as u32,
            adopted: 0,
            connections: [Adopted::default(); ADOPTED],
        };
        for (place, connection) in query.connections.iter_mut().zip(some) {
            *place = adopted(connection);
        }
        bpf::run_on(program.as_fd(), &mut query)?;
        left += query.adopted as usize;
    }
    Ok(left)
}

fn adopted(connection: &Tracked) -> Adopted {
    let Tracked { protocol, client, frontend, backend, source, state, left } = *connection;
    Adopted {
        key: FlowKey::between(client, frontend, protocol),
        answer: FlowKey::between(backend, source, protocol),
        left,
        state: state.number(),
        pad: [0; 3],
    }
}
