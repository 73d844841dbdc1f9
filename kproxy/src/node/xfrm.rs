//! IPsec policies of this network namespace (ip-xfrm(8)).

use std::io;

use rtnetlink::packet_core::NlasIterator;
use rtnetlink::sys::{Socket, protocols::NETLINK_XFRM};

use super::netlink;
use crate::model::Problem;

/// Message and attributes: uapi/linux/xfrm.h.
const GET_POLICY: u16 = 0x15;
const TEMPLATE: u16 = 5;
const INTERFACE_ID: u16 = 31;
/// Length of `struct xfrm_userpolicy_id`.
const ID_LEN: usize = 64;
/// Length of `struct xfrm_userpolicy_info`, and where its direction and action are.
const INFO_LEN: usize = 168;
const DIRECTION: usize = 160;
const ACTION: usize = 161;
const OUT: u8 = 1;
const ALLOW: u8 = 0;

/// How many policies encrypt what leaves this node by its usual devices: those of XFRM interfaces are
/// left out. None where the kernel has no IPsec.
///
/// # Errors
/// The kernel does not tell (it takes `CAP_NET_ADMIN`).
pub(crate) fn encrypting_policies() -> io::Result<usize> {
    let socket = match Socket::new(NETLINK_XFRM) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        socket => socket?,
    };
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    socket.send(&netlink::message(GET_POLICY, flags, &[0; ID_LEN]), 0)?;
    let mut count = 0;
    netlink::receive(&socket, |message| count += usize::from(encrypts(message.payload())))?;
    Ok(count)
}

/// What is wrong with so many of them.
pub(crate) fn problem(count: usize) -> Option<Problem> {
    (count > 0).then(|| {
        Problem::new(
            "IPsec",
            format!(
                "{count} policies without an XFRM interface encrypt what leaves this node: where they \
                 match, answers to clients outside keep the backend's address, and what goes to a \
                 backend on another node by an uplink leaves unencrypted"
            ),
            "give the policies an XFRM interface (if_id), or keep clients of Services and other nodes \
             out of them; see docs/networks.md",
        )
    })
}

fn encrypts(policy: &[u8]) -> bool {
    let is = |at: usize, value: u8| policy.get(at) == Some(&value);
    let attributes = policy.get(INFO_LEN..).unwrap_or_default();
    let attributes: Vec<_> = NlasIterator::new(attributes).flatten().collect();
    let has = |kind: u16| attributes.iter().any(|attribute| attribute.kind() == kind);
    is(DIRECTION, OUT) && is(ACTION, ALLOW) && has(TEMPLATE) && !has(INTERFACE_ID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::namespaces;

    #[test]
    fn policies_without_templates_or_with_an_interface_encrypt_nothing_here() {
        let policy = |direction, attributes: &[u16]| {
            let mut bytes = vec![0; INFO_LEN];
            bytes[DIRECTION] = direction;
            for kind in attributes {
                bytes.extend(8u16.to_ne_bytes());
                bytes.extend(kind.to_ne_bytes());
                bytes.extend([1, 0, 0, 0]);
            }
            bytes
        };
        assert!(encrypts(&policy(OUT, &[TEMPLATE])));
        for other in
            [policy(0, &[TEMPLATE]), policy(OUT, &[]), policy(OUT, &[TEMPLATE, INTERFACE_ID])]
        {
            assert!(!encrypts(&other));
        }
        assert!(!encrypts(&[]));
    }

    #[tokio::test]
    async fn the_kernel_tells_its_policies() {
        let counts = namespaces::on_own_thread("kproxy-test", || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let add = |more: &[&str]| {
                let policy = ["xfrm", "policy", "add", "src", "198.51.100.0/24", "dst"];
                let template = ["tmpl", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp"];
                let mut ip = std::process::Command::new("ip");
                let done =
                    ip.args(policy).args(more).args(template).args(["mode", "tunnel"]).status();
                done.unwrap().success()
            };
            let before = encrypting_policies().unwrap();
            // A kernel without IPsec has none.
            let usual = add(&["203.0.113.0/24", "dir", "out"]);
            add(&["192.0.2.128/25", "dir", "out", "if_id", "7"]);
            add(&["192.0.2.0/25", "dir", "in"]);
            (before, usual, encrypting_policies().unwrap())
        });
        let (before, usual, after) = counts.await.unwrap();
        assert_eq!((before, after), (0, usize::from(usual)));
    }
}
