//! Holds fragments back that came before the first one of their packet, and injects them where they
//! came from once it is there.
//!
//! ```text
//! kp_ingress, …  ─▶ KP_EARLY: copies, "the first one has come" ─▶ Hold ─▶ kp_inject ─▶ the device
//! ```
//!
//! The programs translate what is injected as they would have done in order: nothing goes past them.

mod hold;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use kproxy_common::{
    abi::program::INJECT,
    drop_reason::DropReason,
    fragment::{INJECTED_HEAD, INJECTED_REST, Injection, Note, note_flags},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::FromBytes as _;

use self::hold::{Held, Hold};
use crate::dataplane::{
    kernel::{bpf, clock},
    maps::{EarlyNotes, InjectedRest},
};

/// Notes that are read before the clock is looked at again.
const AT_ONCE: usize = 256;

/// Reads what the programs tell and injects what may go; made once.
pub(crate) struct FragmentHolder {
    ring: EarlyNotes,
    rest: InjectedRest,
    program: OwnedFd,
    hold: Hold,
}

impl FragmentHolder {
    /// `program` is [`INJECT`], the maps are [`map::EARLY`] and [`map::INJECTED`].
    ///
    /// [`map::EARLY`]: kproxy_common::abi::map::EARLY
    /// [`map::INJECTED`]: kproxy_common::abi::map::INJECTED
    pub(crate) fn new(program: OwnedFd, early: EarlyNotes, rest: InjectedRest) -> Self {
        Self { ring: early, rest, program, hold: Hold::default() }
    }

    /// Works for ever, in the network namespace of the node; asleep while nothing waits.
    ///
    /// # Errors
    /// Those of poll(2).
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            self.sleep()?;
            self.work();
        }
    }

    /// Sleeps until there is something to read or something has waited long enough.
    fn sleep(&self) -> io::Result<()> {
        let left = self.hold.next_end().map(|end| end.saturating_sub(clock::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut ring = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ring, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn work(&mut self) {
        let now = clock::now();
        let mut free = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(record) = self.ring.next() else {
                self.hold.expire(now);
                break;
            };
            let Some((note, packet)) = split(&record) else { continue };
            self.hold.take(&note, packet, now, &mut free);
        }
        for mut held in free {
            if let Err(error) = self.inject(&mut held) {
                // The device may have gone meanwhile.
                tracing::debug!(device = held.note.device, %error, "could not inject a fragment");
            }
        }
        let lost = self.hold.take_lost();
        for (reason, count) in
            [(DropReason::FragmentLimit, lost.pushed_out), (DropReason::FragmentAlone, lost.alone)]
        {
            if let Err(error) = self.count(reason, count) {
                tracing::debug!(%error, "could not count lost fragments");
            }
        }
    }

    /// Puts a fragment back where it came from.
    fn inject(&mut self, held: &mut Held) -> io::Result<()> {
        let Held { note, packet } = held;
        if note.flags & note_flags::NO_ETHERNET != 0 {
            add_header(packet);
        }
        let (head, rest) = packet.split_at(packet.len().min(INJECTED_HEAD));
        if !rest.is_empty() {
            let mut element = [0; INJECTED_REST];
            let room = element.get_mut(..rest.len()).ok_or(io::ErrorKind::InvalidData)?;
            room.copy_from_slice(rest);
            self.rest.set(0, element, 0).map_err(io::Error::other)?;
        }
        let order = Injection {
            ingress: u32::from(note.flags & note_flags::EGRESS == 0),
            more: rest.len() as u32,
            lost: 0,
        };
        let context = bpf::Context { device: note.device, mark: note.mark, order };
        match bpf::run_with(self.program.as_fd(), head, &context, 1)? {
            0 => Ok(()),
            code => Err(io::Error::other(format!("{INJECT} returned {code}"))),
        }
    }

    /// Counts fragments that are given up.
    fn count(&self, reason: DropReason, count: u32) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let order = Injection { lost: reason as u32, ..Injection::default() };
        let context = bpf::Context { device: 0, mark: 0, order };
        // The program looks at no byte of it.
        bpf::run_with(self.program.as_fd(), &[0; 64], &context, count).map(drop)
    }
}

/// A record is longer than what it holds.
fn split(record: &[u8]) -> Option<(Note, &[u8])> {
    let (note, rest) = Note::read_from_prefix(record).ok()?;
    Some((note, rest.get(..note.len as usize)?))
}

/// BPF_PROG_TEST_RUN takes Ethernet frames; the kernel takes the header off again for a device that has
/// none.
fn add_header(packet: &mut Vec<u8>) {
    let kind: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 6) { 0x86dd } else { 0x0800 };
    let mut header = [0; 14];
    header[12..].copy_from_slice(&kind.to_be_bytes());
    packet.splice(..0, header);
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes as _;

    #[test]
    fn records_are_cut_to_what_they_hold_and_nonsense_is_none() {
        let note = Note { device: 7, len: 3, ..Note::default() };
        let mut record = note.as_bytes().to_vec();
        record.extend([1, 2, 3, 0, 0]);
        assert_eq!(split(&record), Some((note, &[1, 2, 3][..])));
        assert_eq!(split(&record[..66]), None, "shorter than it says");
        assert_eq!(split(&record[..63]), None, "no whole note");
    }

    #[test]
    fn packets_without_a_link_layer_get_one() {
        for (first, kind) in [(0x45, [8, 0]), (0x60, [0x86, 0xdd])] {
            let mut packet = vec![first, 1];
            add_header(&mut packet);
            assert_eq!(packet[12..], [kind[0], kind[1], first, 1]);
        }
    }
}
