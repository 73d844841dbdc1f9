//! Sends floods.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::TcpHeader;
use nix::errno::Errno;

use crate::agent::cpu::pin;
use crate::agent::raw;
use crate::traffic::{Flood, FloodReport, Packets};

/// Packets between two looks at the clock.
const BATCH: u64 = 32;
/// Pause when the flood is ahead of its rate.
const PAUSE: Duration = Duration::from_micros(200);
/// What a datagram holds; no server of a lab knows it.
const DATA: &[u8] = b"flood";

/// Sends a flood to its end.
///
/// # Errors
/// When a packet cannot be sent.
pub(crate) fn run(flood: &Flood) -> Result<FloodReport> {
    pin(flood.cpu)?;
    let what = || format!("flood {}", flood.to);
    let socket = raw::sender(flood.to.ip()).with_context(what)?;
    let mut dice = Dice(flood.seed);
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        if sent >= flood.count || elapsed >= flood.duration {
            let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            return Ok(FloodReport { sent, nanoseconds });
        }
        // A machine that cannot keep the rate sends one batch after the other.
        let due = (elapsed.as_secs_f64() * flood.rate as f64) as u64;
        let batch = (due + 1).saturating_sub(sent).min(flood.count - sent).min(BATCH);
        if batch == 0 {
            sleep(PAUSE);
        }
        for _packet in 0..batch {
            match socket.send(&packet(flood, &mut dice).with_context(what)?) {
                Ok(_) => sent += 1,
                // A full queue: the machine sends what it can.
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(e) => return Err(e).with_context(what),
            }
        }
    }
}

fn packet(flood: &Flood, dice: &mut Dice) -> io::Result<Vec<u8>> {
    let from = flood.source.unwrap_or_else(|| dice.source(flood.to));
    match flood.packets {
        Packets::Syn => {
            let mut header = TcpHeader::new(0, 0, dice.throw() as u32, u16::MAX);
            header.syn = true;
            raw::tcp(from, flood.to, header)
        }
        Packets::Datagram => raw::udp(from, flood.to, DATA),
    }
}

/// Numbers that look random (SplitMix64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// An address in the range of [`crate::traffic::SPOOFED`] of a family, and a port of clients.
    fn source(&mut self, like: SocketAddr) -> SocketAddr {
        let (host, port) = (self.throw(), 1024 + (self.throw() % (65536 - 1024)) as u16);
        if like.is_ipv4() {
            let range = u32::from(Ipv4Addr::new(198, 18, 0, 0));
            (Ipv4Addr::from(range | host as u32 & 0x1_ffff), port).into()
        } else {
            let range = u128::from(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0));
            (Ipv6Addr::from(range | u128::from(host)), port).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    /// Source, and whether all checksums are right.
    fn read(packet: &[u8]) -> (SocketAddr, bool) {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        assert!(header.syn && !header.ack);
        match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header().to_header();
                let right = header.calc_checksum_ipv4(&ip, &[]).unwrap() == header.checksum
                    && ip.calc_header_checksum() == ip.header_checksum;
                ((Ipv4Addr::from(ip.source), header.source_port).into(), right)
            }
            NetSlice::Ipv6(ip) => {
                let ip = ip.header().to_header();
                let right = header.calc_checksum_ipv6(&ip, &[]).unwrap() == header.checksum;
                ((Ipv6Addr::from(ip.source), header.source_port).into(), right)
            }
            NetSlice::Arp(_) => panic!("no IP"),
        }
    }

    #[test]
    fn a_source_that_is_given_is_taken() {
        for (from, to) in [("192.0.2.9:7", "192.0.2.1:80"), ("[2001:db8::9]:7", "[2001:db8::1]:80")]
        {
            let (from, to) = (from.parse().unwrap(), to.parse::<SocketAddr>().unwrap());
            let flood = Flood::new(Packets::Syn, to, 1).source(from);
            assert_eq!(read(&packet(&flood, &mut Dice(7)).unwrap()), (from, true));
        }
        let to = "192.0.2.1:80".parse::<SocketAddr>().unwrap();
        let other_family = Flood::new(Packets::Syn, to, 1).source("[::1]:7".parse().unwrap());
        assert!(packet(&other_family, &mut Dice(7)).is_err());
    }

    #[test]
    fn packets_are_right_and_come_from_many_sources_of_the_ranges() {
        for (to, range) in [("192.0.2.1:80", "198.1"), ("[2001:db8::1]:80", "[2001:2::")] {
            let flood = Flood::new(Packets::Syn, to.parse::<SocketAddr>().unwrap(), 1);
            let mut dice = Dice(7);
            let sources: HashSet<SocketAddr> = (0..1000)
                .map(|_| {
                    let (source, is_right) = read(&packet(&flood, &mut dice).unwrap());
                    assert!(is_right && source.to_string().starts_with(range), "{source}");
                    source
                })
                .collect();
            assert_eq!(sources.len(), 1000);
        }
    }
}
