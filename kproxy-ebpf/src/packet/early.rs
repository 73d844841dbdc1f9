//! What is seen of a packet at a glance, with as little code as can be: most packets at most devices are
//! none of kproxy's business.

use aya_ebpf::programs::TcContext;
use kproxy_common::net::{Addr, join, proto};

use super::headers::{ipv4, ipv6, tcp};
use crate::skb::{self, ETH_P_IP, ETH_P_IPV6, at};

/// Words of 16 bits of an IP header without options and of the TCP header behind it, up to its flags.
type TcpOverIpv4 = [u16; (ipv4::LEN + tcp::FLAGS).div_ceil(2)];
type TcpOverIpv6 = [u16; (ipv6::LEN + tcp::FLAGS).div_ceil(2)];

/// The destination of a TCP packet that opens nothing, which is most of all packets.
#[inline(always)]
pub(crate) fn destination_if_opens_nothing<const L3: usize>(ctx: &TcContext) -> Option<Addr> {
    let (dst, flags) = match skb::protocol(ctx) {
        ETH_P_IP => {
            let words = at::<TcpOverIpv4>(ctx, L3)?;
            let [version, _] = words[ipv4::VERSION_IHL / 2].to_ne_bytes();
            let [_, proto] = words[ipv4::TTL / 2].to_ne_bytes();
            if version != ipv4::NO_OPTIONS
                || words[ipv4::FRAGMENT / 2] & ipv4::IS_FRAGMENT != 0
                || proto != proto::TCP
            {
                return None;
            }
            let [_, flags] = words[(ipv4::LEN + tcp::DATA_OFFSET) / 2].to_ne_bytes();
            (Addr::from_v4_word(word_at::<{ ipv4::DST }, _>(words)), flags)
        }
        ETH_P_IPV6 => {
            let words = at::<TcpOverIpv6>(ctx, L3)?;
            let [next, _] = words[ipv6::NEXT_HEADER / 2].to_ne_bytes();
            if next != proto::TCP {
                return None;
            }
            let [_, flags] = words[(ipv6::LEN + tcp::DATA_OFFSET) / 2].to_ne_bytes();
            let dst = [
                word_at::<{ ipv6::DST }, _>(words),
                word_at::<{ ipv6::DST + 4 }, _>(words),
                word_at::<{ ipv6::DST + 8 }, _>(words),
                word_at::<{ ipv6::DST + 12 }, _>(words),
            ];
            (Addr(dst), flags)
        }
        _ => return None,
    };
    (flags & (tcp::SYN | tcp::ACK) != tcp::SYN).then_some(dst)
}

/// The four bytes at this offset, as they lie there.
#[inline(always)]
fn word_at<const OFFSET: usize, const N: usize>(words: &[u16; N]) -> u32 {
    join(words[OFFSET / 2], words[OFFSET / 2 + 1])
}

/// The destination of an IP packet whose header is in the linear part.
#[inline(always)]
pub(crate) fn destination<const L3: usize>(ctx: &TcContext) -> Option<Addr> {
    match skb::protocol(ctx) {
        ETH_P_IP => Some(Addr::from_v4_word(*at::<u32>(ctx, L3 + ipv4::DST)?)),
        ETH_P_IPV6 => Some(Addr(*at::<[u32; 4]>(ctx, L3 + ipv6::DST)?)),
        _ => None,
    }
}
