//! ICMP errors about packets of a flow: they name addresses and ports that their receiver has never
//! seen, unless the packet inside is translated back (RFC 5508 section 4.2).

use aya_ebpf::programs::TcContext;
use kproxy_common::{
    checksum,
    flow::{FlowKey, FlowValue, flow_flags},
    net::{Addr, Port, proto},
};

use crate::{
    flow,
    maps::scratch,
    packet::{
        ETH_P_IP, ETH_P_IPV6, FRAGMENT, IPV4_LEN, IPV6_LEN, Packet, TCP_LEN, UDP_LEN, at, at_mut,
        ensure, write,
    },
    rewrite::{TCP_CHECKSUM, UDP_CHECKSUM, address_delta, store},
};

const ICMP_LEN: usize = 8;

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
        // SAFETY: plain reads of a live context.
        let (protocol, vlan) =
            unsafe { ((*ctx.skb.skb).protocol as u16, (*ctx.skb.skb).vlan_present) };
        if vlan != 0 {
            return None;
        }
        // SAFETY: a field of a live element.
        let error = scratch(|scratch| unsafe { &raw mut (*scratch).error })?;
        match protocol {
            ETH_P_IP => error.parse_v4::<L3>(ctx)?,
            ETH_P_IPV6 => error.parse_v6::<L3>(ctx)?,
            _ => return None,
        }
        Some(error)
    }

    #[inline(always)]
    fn parse_v4<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + IPV4_LEN)?;
        // Errors are sent without IP options.
        if *at::<u8>(ctx, L3)? != 0x45 || *at::<u8>(ctx, L3 + 9)? != proto::ICMP {
            return None;
        }
        let l4 = L3 + IPV4_LEN;
        ensure(ctx, l4 + ICMP_LEN + IPV4_LEN + UDP_LEN)?;
        // Unreachable, source quench, time exceeded, parameter problem.
        if *at::<u16>(ctx, L3 + 6)? & FRAGMENT != 0
            || !matches!(*at::<u8>(ctx, l4)?, 3 | 4 | 11 | 12)
        {
            return None;
        }
        let l3 = l4 + ICMP_LEN;
        let header = usize::from(*at::<u8>(ctx, l3)? & 0x0f) * 4;
        if header < IPV4_LEN || *at::<u16>(ctx, l3 + 6)? & FRAGMENT & !0x2000u16.to_be() != 0 {
            return None;
        }
        let inner_proto = *at::<u8>(ctx, l3 + 9)?;
        let ends = |key: &mut FlowKey, l3| -> Option<()> {
            let [src, dst] = *at::<[u32; 2]>(ctx, l3 + 12)?;
            (key.src, key.dst) = (Addr::from_v4_word(src), Addr::from_v4_word(dst));
            Some(())
        };
        ends(&mut self.outer.key, L3)?;
        ends(&mut self.inner.key, l3)?;
        self.outer.life = *at::<u8>(ctx, L3 + 8)?;
        self.fill(ctx, [L3, l4, l3, l3 + header], inner_proto, false)
    }

    #[inline(always)]
    fn parse_v6<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + IPV6_LEN)?;
        if *at::<u8>(ctx, L3 + 6)? != proto::ICMPV6 {
            return None;
        }
        let l4 = L3 + IPV6_LEN;
        ensure(ctx, l4 + ICMP_LEN + IPV6_LEN + UDP_LEN)?;
        // Types below 128 are errors (RFC 4443 section 2.1).
        if *at::<u8>(ctx, l4)? >= 128 {
            return None;
        }
        let l3 = l4 + ICMP_LEN;
        let inner_proto = *at::<u8>(ctx, l3 + 6)?;
        let ends = |key: &mut FlowKey, l3| -> Option<()> {
            key.src = Addr(*at(ctx, l3 + 8)?);
            key.dst = Addr(*at(ctx, l3 + 24)?);
            Some(())
        };
        ends(&mut self.outer.key, L3)?;
        ends(&mut self.inner.key, l3)?;
        self.outer.life = *at::<u8>(ctx, L3 + 7)?;
        self.fill(ctx, [L3, l4, l3, l3 + IPV6_LEN], inner_proto, true)
    }

    /// Fills in what is left; the addresses are there.
    #[inline(always)]
    fn fill(
        &mut self,
        ctx: &TcContext,
        [l3, l4, inner_l3, inner_l4]: [usize; 4],
        inner_proto: u8,
        v6: bool,
    ) -> Option<()> {
        if !matches!(inner_proto, proto::TCP | proto::UDP | proto::SCTP) {
            return None;
        }
        ensure(ctx, inner_l4 + UDP_LEN)?;
        let [src_port, dst_port] = *at::<[u16; 2]>(ctx, inner_l4)?;
        let icmp = if v6 { proto::ICMPV6 } else { proto::ICMP };
        self.outer.place(l3, l4, v6);
        self.outer.key.set_rest(Port(0), Port(0), icmp);
        self.inner.place(inner_l3, inner_l4, v6);
        self.inner.key.set_rest(Port(src_port), Port(dst_port), inner_proto);
        Some(())
    }

    /// The entry of the flow that the packet inside belongs to, for the direction in which the
    /// error travels; what the error becomes is then known.
    ///
    /// Its own addresses become those of any packet of its direction; but where only the destination
    /// changes, the sender stays who it is.
    #[inline(always)]
    pub(crate) fn flow(&mut self) -> Option<&'static mut FlowValue> {
        self.to = self.inner.key.reversed();
        let value = flow::find(&self.to)?;
        self.inner_to = value.to.reversed();
        self.to = self.outer.key;
        self.to.dst = self.inner_to.src;
        if value.flags & flow_flags::KINDS != 0 {
            self.to.src = self.inner_to.dst;
        }
        Some(value)
    }

    /// Rewrites the error and the packet inside. `hops`: see [`crate::rewrite::rewrite`].
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
        let icmp = if outer.v6 {
            let l3 = L3 + IPV6_LEN + ICMP_LEN;
            change = checksum::add(change, checksum::add(inner_delta, outer_delta));
            write(ctx, l3 + 8, [inner_to.src.0, inner_to.dst.0])?;
            write(ctx, L3 + 8, [to.src.0, to.dst.0])?;
            if hops != 0 {
                let word = at::<u32>(ctx, L3 + 4)?.to_be() - u32::from(hops);
                store(ctx, L3 + 4, &[word.to_be()])?;
            }
            L3 + IPV6_LEN
        } else {
            write_v4(ctx, L3 + IPV4_LEN + ICMP_LEN, inner_to, inner_delta, 0)?;
            write_v4(ctx, L3, to, outer_delta, hops)?;
            L3 + IPV4_LEN
        };
        let sum = at_mut::<u16>(ctx, icmp + 2)?;
        *sum = checksum::apply(*sum, change);
        Some(())
    }

    /// Ports and checksum of the TCP or UDP header inside, as far as it is there. By how much its
    /// sum changes.
    #[inline(always)]
    fn rewrite_inside(&self, ctx: &TcContext, address_delta: u32) -> Option<u32> {
        let Self { inner, inner_to, .. } = self;
        // It has been in a map: the verifier does not know any more that it is small.
        let l4 = inner.l4 & 0xff;
        let old = [inner.key.src_port.0, inner.key.dst_port.0];
        let new = [inner_to.src_port.0, inner_to.dst_port.0];
        let less = checksum::add(u32::from(!old[0]), u32::from(!old[1]));
        let delta = checksum::add(less, u32::from(new[0]) + u32::from(new[1]));
        let all = checksum::add(address_delta, delta);
        if inner.is_udp() {
            let header = at_mut::<[u16; UDP_LEN / 2]>(ctx, l4)?;
            (header[0], header[1]) = (new[0], new[1]);
            return Some(change_of(&mut header[UDP_CHECKSUM / 2], all, true, delta));
        }
        // SCTP's checksum is over the whole packet, which is not here: nobody can check it.
        if inner.is_sctp() || ensure(ctx, l4 + TCP_LEN).is_none() {
            write(ctx, l4, new)?;
            return Some(delta);
        }
        let header = at_mut::<[u16; TCP_LEN / 2]>(ctx, l4)?;
        (header[0], header[1]) = (new[0], new[1]);
        Some(change_of(&mut header[TCP_CHECKSUM / 2], all, false, delta))
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
    let header = at_mut::<[u32; IPV4_LEN / 4]>(ctx, l3)?;
    let [life, protocol, lower, upper] = header[2].to_ne_bytes();
    let delta = checksum::add(delta, checksum::less_life(hops));
    let sum = checksum::apply(u16::from_ne_bytes([lower, upper]), delta).to_ne_bytes();
    header[2] = u32::from_ne_bytes([life.wrapping_sub(hops), protocol, sum[0], sum[1]]);
    (header[3], header[4]) = (to.src.v4_word(), to.dst.v4_word());
    Some(())
}
