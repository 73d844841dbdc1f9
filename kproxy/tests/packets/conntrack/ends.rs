//! Ends of a TCP connection that keep to RFC 9293 and RFC 5961, as far as a test needs them: no timers,
//! no window but a wide one.

use kproxy_common::flow::track::segment_flags::{ACK, FIN, RST, SYN};

use crate::harness::Segment;

/// What an end takes that comes too early.
const WINDOW: u32 = 65_535;
/// Bytes of data in a packet.
const MOST: u32 = 1400;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Nobody is there; `true`: but listens.
    Closed(bool),
    SynSent,
    SynReceived,
    /// Both know of each other.
    Open,
}

/// What an end may do of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Connect,
    Data(u32),
    Ack,
    Keepalive,
    Close,
    Reset,
    /// Sends what was not acknowledged once more.
    Again,
    /// Loses its memory.
    Forget,
}

#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) mode: Mode,
    listens: bool,
    /// Initial number of the next connection.
    next_isn: u32,
    isn: u32,
    /// First number that was not acknowledged, and the next one to send.
    una: u32,
    pub(super) next: u32,
    peer_isn: u32,
    /// What the other end is to send next.
    expects: u32,
    pub(super) fin_sent: bool,
    fin_got: bool,
}

impl End {
    pub(super) const fn new(listens: bool, isn: u32) -> Self {
        Self {
            mode: Mode::Closed(listens),
            listens,
            next_isn: isn,
            isn,
            una: isn,
            next: isn,
            peer_isn: 0,
            expects: 0,
            fin_sent: false,
            fin_got: false,
        }
    }

    /// Whether both directions are closed and the other end knows it.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.mode, Mode::Open) && self.fin_sent && self.fin_got && self.una == self.next
    }

    /// Whether these are the two ends of one connection.
    pub(super) fn is_paired_with(&self, other: &Self) -> bool {
        (self.isn, self.peer_isn) == (other.peer_isn, other.isn)
    }

    pub(super) fn act(&mut self, act: Act) -> Option<Segment> {
        let is_open = self.mode == Mode::Open;
        match act {
            Act::Connect => {
                let may = matches!(self.mode, Mode::Closed(false)) || self.is_done();
                if !may || self.listens {
                    return None;
                }
                self.begin();
                self.mode = Mode::SynSent;
                Some(self.say(SYN, self.isn, 0))
            }
            Act::Data(bytes) if is_open && !self.fin_sent => {
                let sent = self.say(ACK, self.next, bytes);
                self.next = sent.end();
                Some(sent)
            }
            Act::Ack if is_open => Some(self.say(ACK, self.next, 0)),
            Act::Keepalive if is_open && self.una == self.next => {
                Some(self.say(ACK, self.next.wrapping_sub(1), 0))
            }
            Act::Close if is_open && !self.fin_sent => {
                self.fin_sent = true;
                let sent = self.say(FIN | ACK, self.next, 0);
                self.next = sent.end();
                Some(sent)
            }
            Act::Reset if is_open => {
                self.mode = Mode::Closed(self.listens);
                Some(self.say(RST | ACK, self.next, 0))
            }
            Act::Again => self.again(),
            Act::Forget => {
                self.mode = Mode::Closed(self.listens);
                None
            }
            _ => None,
        }
    }

    fn again(&self) -> Option<Segment> {
        match self.mode {
            Mode::SynSent => Some(self.say(SYN, self.isn, 0)),
            Mode::SynReceived => Some(self.say(SYN | ACK, self.isn, 0)),
            Mode::Open if self.una != self.next => {
                let outstanding = self.next.wrapping_sub(self.una);
                let is_all = outstanding <= MOST;
                let (flags, data) = match (self.fin_sent, is_all) {
                    (true, true) => (FIN | ACK, outstanding - 1),
                    (_, false) => (ACK, MOST),
                    (false, true) => (ACK, outstanding),
                };
                Some(self.say(flags, self.una, data))
            }
            _ => None,
        }
    }

    fn begin(&mut self) {
        self.isn = self.next_isn;
        self.next_isn = self.next_isn.wrapping_add(1 << 24);
        (self.una, self.next) = (self.isn, self.isn.wrapping_add(1));
        (self.fin_sent, self.fin_got) = (false, false);
    }

    const fn say(&self, flags: u8, seq: u32, data: u32) -> Segment {
        Segment { flags, seq, ack: if flags & ACK != 0 { self.expects } else { 0 }, data }
    }

    /// A packet comes; the answer.
    pub(super) fn receive(&mut self, got: &Segment) -> Option<Segment> {
        match self.mode {
            Mode::Closed(listens) => self.receive_closed(listens, got),
            Mode::SynSent => self.receive_syn_sent(got),
            Mode::SynReceived | Mode::Open => self.receive_open(got),
        }
    }

    fn receive_closed(&mut self, listens: bool, got: &Segment) -> Option<Segment> {
        if got.has(RST) {
            return None;
        }
        if got.has(ACK) {
            return Some(Segment { flags: RST, seq: got.ack, ..Segment::default() });
        }
        if listens && got.has(SYN) {
            return Some(self.accept(got));
        }
        Some(Segment { flags: RST | ACK, ack: got.end(), ..Segment::default() })
    }

    fn accept(&mut self, syn: &Segment) -> Segment {
        self.begin();
        (self.peer_isn, self.expects) = (syn.seq, syn.seq.wrapping_add(1));
        self.mode = Mode::SynReceived;
        self.say(SYN | ACK, self.isn, 0)
    }

    fn receive_syn_sent(&mut self, got: &Segment) -> Option<Segment> {
        if got.has(ACK) && got.ack != self.next {
            let reset = Segment { flags: RST, seq: got.ack, ..Segment::default() };
            return (!got.has(RST)).then_some(reset);
        }
        if got.has(RST) {
            if got.has(ACK) {
                self.mode = Mode::Closed(false);
            }
            return None;
        }
        if !got.has(SYN) {
            return None;
        }
        (self.peer_isn, self.expects) = (got.seq, got.seq.wrapping_add(1));
        if got.has(ACK) {
            (self.una, self.mode) = (got.ack, Mode::Open);
            return Some(self.say(ACK, self.next, 0));
        }
        self.mode = Mode::SynReceived;
        Some(self.say(SYN | ACK, self.isn, 0))
    }

    fn receive_open(&mut self, got: &Segment) -> Option<Segment> {
        let challenge = Some(self.say(ACK, self.next, 0));
        if got.has(RST) {
            let ahead = got.seq.wrapping_sub(self.expects);
            if ahead == 0 {
                self.mode = Mode::Closed(self.listens);
            }
            return if 0 < ahead && ahead < WINDOW { challenge } else { None };
        }
        if got.has(SYN) {
            return self.receive_syn(got, challenge);
        }
        let (first, last) =
            (got.seq.wrapping_sub(self.expects), got.end().wrapping_sub(self.expects));
        let is_acceptable = first < WINDOW || last < WINDOW || last == 0;
        if !is_acceptable {
            return challenge;
        }
        if !got.has(ACK) {
            return None;
        }
        let acknowledged = got.ack.wrapping_sub(self.una);
        let is_valid = acknowledged <= self.next.wrapping_sub(self.una);
        if self.mode == Mode::SynReceived {
            if !is_valid || acknowledged == 0 {
                return Some(Segment { flags: RST, seq: got.ack, ..Segment::default() });
            }
            self.mode = Mode::Open;
        }
        if is_valid {
            self.una = got.ack;
        } else if self.una.wrapping_sub(got.ack) > WINDOW {
            // Not sent yet, or long ago.
            return challenge;
        }
        let is_next = got.seq.wrapping_sub(self.expects) as i32 <= 0 && last as i32 > 0;
        if is_next && !self.fin_got {
            self.expects = got.end();
            self.fin_got = got.has(FIN);
        }
        let is_empty = got.end() == got.seq;
        if is_empty && first == 0 { None } else { Some(self.say(ACK, self.next, 0)) }
    }

    fn receive_syn(&mut self, got: &Segment, challenge: Option<Segment>) -> Option<Segment> {
        if self.mode == Mode::SynReceived {
            let is_same = got.seq == self.peer_isn;
            if got.has(ACK) && is_same && got.ack == self.next {
                (self.una, self.mode) = (got.ack, Mode::Open);
                return Some(self.say(ACK, self.next, 0));
            }
            if is_same && !got.has(ACK) {
                return Some(self.say(SYN | ACK, self.isn, 0));
            }
            return challenge;
        }
        if self.is_done() && self.listens && !got.has(ACK) {
            return Some(self.accept(got));
        }
        challenge
    }
}
