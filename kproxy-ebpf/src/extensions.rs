//! IPv6 extension headers (RFC 8200 section 4).

use aya_ebpf::programs::TcContext;
use kproxy_common::net::proto;

use crate::{
    maps::scratch,
    packet::{IPV6_LEN, at, ensure, part},
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Headers that are walked over. More than one of each kind is unheard of.
const MOST: u32 = 5;

/// Where the headers lead: number of the protocol, its offset, [`part`] and identification, packed
/// because the kernel refuses the type information of a function that returns more. 0: to nothing
/// that is ours.
pub(crate) type Found = u64;

const fn found(proto: u8, l4: usize, part: u8, id: u32) -> Found {
    (id as u64) << 32 | (part as u64) << 24 | (proto as u64) << 16 | l4 as u64
}

pub(crate) const fn proto_of(found: Found) -> u8 {
    (found >> 16) as u8
}

pub(crate) const fn l4_of(found: Found) -> usize {
    // The mask tells the verifier what it has forgotten.
    (found & 0x3fff) as usize
}

pub(crate) const fn part_of(found: Found) -> u8 {
    (found >> 24) as u8
}

pub(crate) const fn id_of(found: Found) -> u32 {
    (found >> 32) as u32
}

/// Walks over the headers that follow the IPv6 header at `l3`, the first of which is `next`.
#[inline(always)]
pub(crate) fn walk(ctx: &TcContext, l3: usize, next: u8) -> Option<Found> {
    // By way of a map: what comes out of one the verifier takes for any number, once, instead of all
    // that the walk may lead to, one by one.
    // SAFETY: a field of a live element.
    let found = scratch(|scratch| unsafe { &raw mut (*scratch).found })?;
    walk_into(ctx, l3, next, found);
    Some(*found)
}

#[inline(never)]
fn walk_into(ctx: &TcContext, l3: usize, next: u8, result: &mut Found) {
    *result = try_walk(ctx, l3, next).unwrap_or(0);
}

#[inline(always)]
fn try_walk(ctx: &TcContext, l3: usize, mut next: u8) -> Option<Found> {
    let mut offset = (l3 & 0xf) + IPV6_LEN;
    let (mut part, mut id) = (part::WHOLE, 0);
    let mut headers = 0;
    while headers < MOST {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                ensure(ctx, offset + 8)?;
                let [after, len] = *at::<[u8; 2]>(ctx, offset)?;
                next = after;
                offset += (usize::from(len) + 1) * 8;
            }
            FRAGMENT => {
                ensure(ctx, offset + 8)?;
                let [head, identification] = *at::<[u32; 2]>(ctx, offset)?;
                let [after, _, high, low] = head.to_ne_bytes();
                let bits = u16::from_be_bytes([high, low]);
                (next, id) = (after, identification);
                offset += 8;
                part = part::of(u32::from(bits & 1), u32::from(bits & 0xfff8));
                if bits & 0xfff8 != 0 {
                    return Some(found(next, offset, part, id));
                }
            }
            proto::TCP | proto::UDP | proto::SCTP => return Some(found(next, offset, part, id)),
            _ => return None,
        }
        headers += 1;
    }
    None
}
