//! ICMP errors about packets of a flow: they name addresses and ports that their receiver has never
//! seen, unless the packet inside is translated back (RFC 5508 section 4.2).

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::TcContext};
use kproxy_common::{
    checksum,
    flow::{FlowKey, FlowValue, flow_flags},
    net::{Addr, Port, proto},
};

use super::{
    Packet,
    headers::{icmp, ipv4, ipv6, tcp, udp},
    rewrite::address_delta,
};
use crate::{
    kernel::scratch,
    skb::{self, ETH_P_IP, ETH_P_IPV6, at, at_mut, ensure, store, write},
};

/// Whether this type of IPv4 is an error: unreachable, source quench, time exceeded, parameter problem
/// (RFC 792).
const fn is_v4_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 11 | 12)
}

/// The first type of ICMPv6 that is no error (RFC 4443 section 2.1).
const V6_INFORMATION: u8 = 128;

/// Room for [`IcmpError::parse`].
#[map(name = "KP_ICMP_ERROR")]
static ERROR: PerCpuArray<IcmpError> = PerCpuArray::with_max_entries(1, 0);

/// An ICMP error, as far as it matters: its ends and the packet inside, and what they become.
#[derive(Clone, Copy)]
pub(crate) struct IcmpError {
    /// The error itself, with the protocol ICMP and no ports.
    pub(crate) outer: Packet,
    /// The packet that the error is about.
    inner: Packet,
    /// What the error's addresses become.
    pub(crate) to: FlowKey,
    /// What the ends of the packet inside become.
    inner_to: FlowKey,
}

impl IcmpError {
    /// Reads an ICMP error about a TCP or UDP packet. `L3` is the offset of the IP header.
    #[inline(always)]
    pub(crate) fn parse<const L3: usize>(ctx: &TcContext) -> Option<&'static mut Self> {
        if skb::is_tagged(ctx) {
            return None;
        }
        let error = scratch(&ERROR)?;
        match skb::protocol(ctx) {
            ETH_P_IP => error.parse_v4::<L3>(ctx)?,
            ETH_P_IPV6 => error.parse_v6::<L3>(ctx)?,
            _ => return None,
        }
        Some(error)
    }

    #[inline(always)]
    fn parse_v4<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + ipv4::LEN)?;
        // Errors are sent without IP options.
        if *at::<u8>(ctx, L3 + ipv4::VERSION_IHL)? != ipv4::NO_OPTIONS
            || *at::<u8>(ctx, L3 + ipv4::PROTOCOL)? != proto::ICMP
        {
            return None;
        }
        let l4 = L3 + ipv4::LEN;
        ensure(ctx, l4 + icmp::LEN + ipv4::LEN + udp::LEN)?;
        if *at::<u16>(ctx, L3 + ipv4::FRAGMENT)? & ipv4::IS_FRAGMENT != 0
            || !is_v4_error(*at::<u8>(ctx, l4 + icmp::TYPE)?)
        {
            return None;
        }
        let l3 = l4 + icmp::LEN;
        let header = usize::from(*at::<u8>(ctx, l3 + ipv4::VERSION_IHL)? & 0x0f) * 4;
        // Only a first fragment has ports.
        if header < ipv4::LEN || *at::<u16>(ctx, l3 + ipv4::FRAGMENT)? & ipv4::FRAGMENT_OFFSET != 0
        {
            return None;
        }
        let inner_proto = *at::<u8>(ctx, l3 + ipv4::PROTOCOL)?;
        let ends = |key: &mut FlowKey, l3| -> Option<()> {
            let [src, dst] = *at::<[u32; 2]>(ctx, l3 + ipv4::SRC)?;
            (key.src, key.dst) = (Addr::from_v4_word(src), Addr::from_v4_word(dst));
            Some(())
        };
        ends(&mut self.outer.key, L3)?;
        ends(&mut self.inner.key, l3)?;
        self.outer.ttl = *at::<u8>(ctx, L3 + ipv4::TTL)?;
        self.fill(ctx, [l4, l3 + header], inner_proto, false)
    }

    #[inline(always)]
    fn parse_v6<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + ipv6::LEN)?;
        if *at::<u8>(ctx, L3 + ipv6::NEXT_HEADER)? != proto::ICMPV6 {
            return None;
        }
        let l4 = L3 + ipv6::LEN;
        ensure(ctx, l4 + icmp::LEN + ipv6::LEN + udp::LEN)?;
        if *at::<u8>(ctx, l4 + icmp::TYPE)? >= V6_INFORMATION {
            return None;
        }
        let l3 = l4 + icmp::LEN;
        let inner_proto = *at::<u8>(ctx, l3 + ipv6::NEXT_HEADER)?;
        let ends = |key: &mut FlowKey, l3| -> Option<()> {
            key.src = Addr(*at(ctx, l3 + ipv6::SRC)?);
            key.dst = Addr(*at(ctx, l3 + ipv6::DST)?);
            Some(())
        };
        ends(&mut self.outer.key, L3)?;
        ends(&mut self.inner.key, l3)?;
        self.outer.ttl = *at::<u8>(ctx, L3 + ipv6::HOP_LIMIT)?;
        self.fill(ctx, [l4, l3 + ipv6::LEN], inner_proto, true)
    }

    /// Fills in what is left; the addresses are there.
    #[inline(always)]
    fn fill(
        &mut self,
        ctx: &TcContext,
        [l4, inner_l4]: [usize; 2],
        inner_proto: u8,
        v6: bool,
    ) -> Option<()> {
        if !matches!(inner_proto, proto::TCP | proto::UDP | proto::SCTP) {
            return None;
        }
        ensure(ctx, inner_l4 + udp::LEN)?;
        let [src_port, dst_port] = *at::<[u16; 2]>(ctx, inner_l4)?;
        let outer_proto = if v6 { proto::ICMPV6 } else { proto::ICMP };
        self.outer.place(l4, v6);
        self.outer.key.set_rest(Port(0), Port(0), outer_proto);
        self.inner.place(inner_l4, v6);
        self.inner.key.set_rest(Port(src_port), Port(dst_port), inner_proto);
        Some(())
    }

    /// Key of the flow that the packet inside belongs to, for the direction in which the error
    /// travels.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> &FlowKey {
        self.to = self.inner.key.reversed();
        &self.to
    }

    /// The entry of [`Self::key`] says what the error becomes.
    ///
    /// Its own addresses become those of any packet of its direction; but where only the destination
    /// changes, the sender stays who it is.
    #[inline(always)]
    pub(crate) fn follow(&mut self, value: &FlowValue) {
        self.inner_to = value.to.reversed();
        self.to = self.outer.key;
        self.to.dst = self.inner_to.src;
        if value.flags & flow_flags::KINDS != 0 {
            self.to.src = self.inner_to.dst;
        }
    }

    /// Rewrites the error and the packet inside. `hops`: see [`super::rewrite::rewrite`].
    ///
    /// Every change is balanced by a checksum beside it or by that of ICMP, so skb->csum stays right
    /// without help; the hop limit of IPv6 is the exception.
    #[inline(always)]
    pub(crate) fn rewrite<const L3: usize>(&self, ctx: &TcContext, hops: u8) -> Option<()> {
        let Self { outer, inner, to, inner_to } = self;
        let inner_delta = address_delta(outer.v6, &inner.key, inner_to);
        let outer_delta = address_delta(outer.v6, &outer.key, to);
        // What the bytes behind the ICMP header change by in sum.
        let mut change = self.rewrite_inside(ctx, inner_delta)?;
        let l4 = if outer.v6 {
            let l3 = L3 + ipv6::LEN + icmp::LEN;
            change = checksum::add(change, checksum::add(inner_delta, outer_delta));
            write(ctx, l3 + ipv6::SRC, [inner_to.src.0, inner_to.dst.0])?;
            write(ctx, L3 + ipv6::SRC, [to.src.0, to.dst.0])?;
            if hops != 0 {
                let start = L3 + ipv6::PAYLOAD_LENGTH;
                let word = at::<u32>(ctx, start)?.to_be() - u32::from(hops);
                store(ctx, start, &[word.to_be()])?;
            }
            L3 + ipv6::LEN
        } else {
            write_v4(ctx, L3 + ipv4::LEN + icmp::LEN, inner_to, inner_delta, 0)?;
            write_v4(ctx, L3, to, outer_delta, hops)?;
            L3 + ipv4::LEN
        };
        let sum = at_mut::<u16>(ctx, l4 + icmp::CHECKSUM)?;
        *sum = checksum::apply(*sum, change);
        Some(())
    }

    /// Ports and checksum of the TCP or UDP header inside, as far as it is there. By how much its
    /// sum changes.
    #[inline(always)]
    fn rewrite_inside(&self, ctx: &TcContext, address_delta: u32) -> Option<u32> {
        let Self { inner, inner_to, .. } = self;
        let l4 = inner.l4() & 0xff;
        let old = [inner.key.src_port.0, inner.key.dst_port.0];
        let new = [inner_to.src_port.0, inner_to.dst_port.0];
        let less = checksum::add(u32::from(!old[0]), u32::from(!old[1]));
        let delta = checksum::add(less, u32::from(new[0]) + u32::from(new[1]));
        let all = checksum::add(address_delta, delta);
        if inner.is_udp() {
            let header = at_mut::<[u16; udp::LEN / 2]>(ctx, l4)?;
            (header[0], header[1]) = (new[0], new[1]);
            return Some(change_of(&mut header[udp::CHECKSUM / 2], all, true, delta));
        }
        // SCTP's checksum is over the whole packet, which is not here: nobody can check it.
        if inner.is_sctp() || ensure(ctx, l4 + tcp::LEN).is_none() {
            write(ctx, l4, new)?;
            return Some(delta);
        }
        let header = at_mut::<[u16; tcp::LEN / 2]>(ctx, l4)?;
        (header[0], header[1]) = (new[0], new[1]);
        Some(change_of(&mut header[tcp::CHECKSUM / 2], all, false, delta))
    }
}

/// Brings a checksum inside up to date (zero may mean that there is none). What it and the ports
/// beside it change by.
#[inline(always)]
fn change_of(sum: &mut u16, delta: u32, optional: bool, ports: u32) -> u32 {
    let old = *sum;
    if optional && old == 0 {
        return ports;
    }
    *sum = checksum::apply(old, delta);
    checksum::add(ports, u32::from(!old) + u32::from(*sum))
}

/// Addresses, time to live and checksum of an IPv4 header.
#[inline(always)]
fn write_v4(ctx: &TcContext, l3: usize, to: &FlowKey, delta: u32, hops: u8) -> Option<()> {
    let header = at_mut::<[u32; ipv4::LEN / 4]>(ctx, l3)?;
    let [ttl, protocol, lower, upper] = header[ipv4::TTL / 4].to_ne_bytes();
    let delta = checksum::add(delta, checksum::less_ttl(hops));
    let sum = checksum::apply(u16::from_ne_bytes([lower, upper]), delta).to_ne_bytes();
    header[ipv4::TTL / 4] = u32::from_ne_bytes([ttl.wrapping_sub(hops), protocol, sum[0], sum[1]]);
    (header[ipv4::SRC / 4], header[ipv4::DST / 4]) = (to.src.v4_word(), to.dst.v4_word());
    Some(())
}
