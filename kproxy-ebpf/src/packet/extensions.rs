//! IPv6 extension headers (RFC 8200 section 4).

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::TcContext};
use kproxy_common::net::proto;

use super::{headers::ipv6, part};
use crate::{
    kernel::scratch,
    skb::{at, ensure},
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Bytes of the shortest header; lengths are told beyond it, in units of it.
const UNIT: usize = 8;
/// In a fragment header: the offset, and whether more follow.
const OFFSET: u16 = 0xfff8;
const MORE: u16 = 1;
/// Headers that are walked over. More than one of each kind is unheard of.
const MOST: u32 = 5;

/// Where the headers lead: number of the protocol, its offset, [`part`] and identification. One word, as
/// it is the value of a map that the verifier knows nothing about ([`walk`]).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Found(u64);

impl Found {
    /// Nothing that is ours.
    const NOTHING: Self = Self(0);

    #[inline(always)]
    const fn new(proto: u8, l4: usize, part: u8, id: u32) -> Self {
        Self((id as u64) << 32 | (part as u64) << 24 | (proto as u64) << 16 | l4 as u64)
    }

    #[inline(always)]
    pub(crate) const fn proto(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    pub(crate) const fn l4(self) -> usize {
        // The mask tells the verifier what it has forgotten.
        (self.0 & 0x3fff) as usize
    }

    #[inline(always)]
    pub(crate) const fn part(self) -> u8 {
        (self.0 >> 24) as u8
    }

    #[inline(always)]
    pub(crate) const fn id(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Room for [`walk`].
#[map(name = "KP_EXTENSIONS")]
static FOUND: PerCpuArray<Found> = PerCpuArray::with_max_entries(1, 0);

/// Walks over the headers that follow the IPv6 header at `l3`, the first of which is `next`.
#[inline(always)]
pub(crate) fn walk(ctx: &TcContext, l3: usize, next: u8) -> Option<Found> {
    // By way of a map: what comes out of one the verifier takes for any number, once, instead of all
    // that the walk may lead to, one by one.
    let found = scratch(&FOUND)?;
    walk_into(ctx, l3, next, found);
    Some(*found)
}

#[inline(never)]
fn walk_into(ctx: &TcContext, l3: usize, next: u8, result: &mut Found) {
    *result = try_walk(ctx, l3, next).unwrap_or(Found::NOTHING);
}

#[inline(always)]
fn try_walk(ctx: &TcContext, l3: usize, mut next: u8) -> Option<Found> {
    let mut offset = (l3 & 0xf) + ipv6::LEN;
    let (mut part, mut id) = (part::WHOLE, 0);
    let mut headers = 0;
    while headers < MOST {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                ensure(ctx, offset + UNIT)?;
                let [after, len] = *at::<[u8; 2]>(ctx, offset)?;
                next = after;
                offset += (usize::from(len) + 1) * UNIT;
            }
            FRAGMENT => {
                ensure(ctx, offset + UNIT)?;
                let [head, identification] = *at::<[u32; 2]>(ctx, offset)?;
                let [after, _, high, low] = head.to_ne_bytes();
                let bits = u16::from_be_bytes([high, low]);
                (next, id) = (after, identification);
                offset += UNIT;
                part = part::of(u32::from(bits & MORE), u32::from(bits & OFFSET));
                if bits & OFFSET != 0 {
                    return Some(Found::new(next, offset, part, id));
                }
            }
            proto::TCP | proto::UDP | proto::SCTP => {
                return Some(Found::new(next, offset, part, id));
            }
            _ => return None,
        }
        headers += 1;
    }
    None
}
