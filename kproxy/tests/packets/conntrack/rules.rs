//! nf_conntrack's rules for TCP (net/netfilter/nf_conntrack_proto_tcp.c), and where kproxy differs: what
//! the programs are measured by. Nothing here is shared with `kproxy_common::flow::track`.

use kproxy_common::flow::flow_state;
use kproxy_common::flow::track::segment_flags::{ACK, FIN, RST, SYN};

use crate::harness::Segment;

/// Who sends: the original direction and the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Client,
    Backend,
}
use Way::{Backend, Client};

impl Way {
    pub(crate) const fn other(self) -> Self {
        match self {
            Client => Backend,
            Backend => Client,
        }
    }
}

/// As in the kernel, in the order of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
}

impl State {
    /// What the entries say, and the seconds that it lasts: the kernel's, but for those that kube-proxy
    /// sets.
    pub(crate) const fn number_and_time(self) -> (u8, u32) {
        match self {
            Self::SynSent => (flow_state::OPENING, 120),
            Self::SynSent2 => (flow_state::CROSSED, 120),
            Self::SynRecv => (flow_state::RECEIVED, 60),
            Self::Established => (flow_state::ESTABLISHED, 24 * 3600),
            Self::FinWait => (flow_state::FIN_WAIT, 120),
            Self::CloseWait => (flow_state::CLOSE_WAIT, 3600),
            Self::LastAck => (flow_state::LAST_ACK, 30),
            Self::TimeWait => (flow_state::TIME_WAIT, 120),
            Self::Close => (flow_state::RESET, 10),
        }
    }
}

/// An element of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// sIV.
    Invalid,
    /// sIG.
    Ignored,
    To(State),
}

const IV: Next = Next::Invalid;
const IG: Next = Next::Ignored;
const SS: Next = Next::To(State::SynSent);
const S2: Next = Next::To(State::SynSent2);
const SR: Next = Next::To(State::SynRecv);
const ES: Next = Next::To(State::Established);
const FW: Next = Next::To(State::FinWait);
const CW: Next = Next::To(State::CloseWait);
const LA: Next = Next::To(State::LastAck);
const TW: Next = Next::To(State::TimeWait);
const CL: Next = Next::To(State::Close);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

/// `get_conntrack_index`. A packet without a flag is no packet of TCP.
fn kind_of(sent: &Segment) -> Option<Kind> {
    match sent.flags {
        flags if flags & RST != 0 => Some(Kind::Rst),
        flags if flags & SYN != 0 => Some(if flags & ACK != 0 { Kind::SynAck } else { Kind::Syn }),
        flags if flags & FIN != 0 => Some(Kind::Fin),
        flags if flags & ACK != 0 => Some(Kind::Ack),
        _ => None,
    }
}

/// `tcp_conntracks`, by way, kind and state, without the column of no connection.
const TABLE: [[[Next; 9]; 5]; 2] = [
    [
        [SS, IG, IG, IG, IG, IG, SS, SS, S2],
        [IV, SR, IV, IV, IV, IV, IV, IV, SR],
        [IV, FW, FW, LA, LA, LA, TW, CL, IV],
        [IV, ES, ES, CW, CW, TW, TW, CL, IV],
        [CL, CL, CL, CL, CL, CL, CL, CL, CL],
    ],
    [
        [S2, IV, IV, IV, IV, IV, SS, IV, S2],
        [SR, IG, IG, IG, IG, IG, IG, IG, SR],
        [IV, FW, FW, LA, LA, LA, TW, CL, IV],
        [IG, SR, ES, CW, CW, TW, TW, CL, IG],
        [CL, CL, CL, CL, CL, CL, CL, CL, CL],
    ],
];

/// What a packet is to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is translated, and its connection's time begins again.
    Counts,
    /// It is translated, and changes nothing.
    Passes,
    /// It is not translated.
    LeftAlone,
    /// A new connection takes the place of this one.
    OpensAnew,
}
use Fate::{Counts, LeftAlone, OpensAnew, Passes};

/// Farthest distance of numbers that belong together.
const WINDOW: u32 = 1 << 20;

fn are_near(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) <= WINDOW || b.wrapping_sub(a) <= WINDOW
}

fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// What one end has said last.
#[derive(Clone, Copy, Default, Debug)]
struct Said {
    end: u32,
    ack: u32,
    fin: bool,
    rst: bool,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) state: State,
    said: [Said; 2],
    /// What acknowledges one of the client's SYNs that are not answered: of the first, and of the last
    /// without and with its data.
    syns: Vec<u32>,
    /// The client has acknowledged the backend's SYN, since there is this connection.
    is_confirmed: bool,
    /// The backend sees a port of this node: another connection with it is one that is no more.
    has_own_port: bool,
    /// The backend has another connection with the same addresses and ports.
    collides: bool,
}

impl Tracked {
    /// The client's SYN.
    pub(crate) fn open(syn: &Segment, has_own_port: bool) -> Self {
        let client = Said { end: syn.end(), ..Said::default() };
        Self {
            state: State::SynSent,
            said: [client, Said::default()],
            syns: vec![syn.seq.wrapping_add(1), syn.end()],
            is_confirmed: false,
            has_own_port,
            collides: false,
        }
    }

    /// Whether it gives way to no other.
    pub(crate) const fn is_assured(&self) -> bool {
        matches!(self.state, State::Established | State::FinWait | State::CloseWait)
    }

    /// Whether these may be the next numbers of the client and of the backend.
    pub(crate) fn is_near(&self, [client, backend]: [u32; 2]) -> bool {
        are_near(self.said[0].end, client) && are_near(self.said[1].end, backend)
    }

    /// Whether the backend has another connection with the same addresses and ports.
    pub(crate) const fn collides(&self) -> bool {
        self.collides
    }

    /// Whether a SYN takes its place.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.state, State::TimeWait | State::Close)
    }

    /// A packet.
    pub(crate) fn take(&mut self, way: Way, sent: &Segment) -> Fate {
        let Some(kind) = kind_of(sent) else { return self.unproved(way) };
        if kind == Kind::Syn && way == Client && (self.is_over() || self.collides_now()) {
            return OpensAnew;
        }
        let was_opening = self.state == State::SynSent;
        let fate = match (self.differs(way, kind, sent), kind) {
            (_, Kind::Rst) if self.is_reset(way, sent) => {
                self.said[way as usize].rst = true;
                self.state = State::Close;
                // The last SYN may be answered yet, without its data.
                self.syns = self.syns.split_off(self.syns.len().saturating_sub(2));
                self.syns.truncate(1);
                Counts
            }
            (_, Kind::Rst) => self.unproved(way),
            (Next::Invalid | Next::Ignored, _) => self.ignore(way, kind, sent),
            (Next::To(next), _) if self.is_believed(way, kind, sent) => {
                self.take_note(way, kind, sent);
                if next != State::Close {
                    let own = &mut self.said[way as usize];
                    own.rst &= self.state != State::Close;
                    own.fin |= kind == Kind::Fin;
                }
                self.state = next;
                Counts
            }
            (Next::To(_), _) => self.unproved(way),
        };
        // A challenge, which nf_conntrack lets pass as well (it ignores it).
        if was_opening && self.has_own_port && (way, kind, fate) == (Backend, Kind::Ack, LeftAlone)
        {
            return Passes;
        }
        let may_collide = was_opening && !self.has_own_port;
        self.collides |= may_collide && fate == LeftAlone && kind != Kind::Rst;
        fate
    }

    fn collides_now(&self) -> bool {
        self.collides && self.state == State::SynSent
    }

    /// The table's element, but where kproxy is deliberately not conntrack (the list with the reasons is
    /// in the head of the module above).
    fn differs(&self, way: Way, kind: Kind, sent: &Segment) -> Next {
        use State::{Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent2, TimeWait};
        let closed = |way: Way| self.said[way as usize].fin;
        match (self.state, way, kind) {
            // What the client says of the backend's SYN confirms it, whatever else it says.
            (SynSent2 | SynRecv, Client, Kind::SynAck | Kind::Ack) => {
                Next::To(if closed(Backend) { CloseWait } else { Established })
            }
            (SynSent2 | SynRecv, Client, Kind::Fin) => {
                Next::To(if closed(Backend) { LastAck } else { FinWait })
            }
            // Until the client has confirmed the backend may say what it likes.
            (SynRecv, Backend, Kind::Fin) => SR,
            // A FIN that is sent again is no second one.
            (FinWait | CloseWait, _, Kind::Fin) if closed(way) => Next::To(self.state),
            // The backend that dials its client is no packet of this connection.
            (TimeWait, Backend, Kind::Syn) => IG,
            // Who sends on has not broken off.
            (Close, _, Kind::Ack | Kind::Fin) if self.takes_back(way, sent) => {
                let (own, other) = (closed(way) || kind == Kind::Fin, closed(way.other()));
                let went_on = own == closed(way) && (own || other);
                Next::To(match (own, other) {
                    (true, true) => LastAck,
                    (false, false) => Established,
                    _ if went_on => CloseWait,
                    _ => FinWait,
                })
            }
            _ => TABLE[way as usize][kind as usize][self.state as usize],
        }
    }

    /// Whether new words of who has sent a RST take it back.
    fn takes_back(&self, way: Way, sent: &Segment) -> bool {
        let own = self.said[way as usize];
        let is_news = is_after(sent.end(), own.end) || is_after(sent.ack, own.ack);
        own.rst && self.is_confirmed && is_news && self.is_in_window(way, sent)
    }

    /// Whether the numbers prove that the packet belongs to the connection.
    fn is_believed(&self, way: Way, kind: Kind, sent: &Segment) -> bool {
        match (self.state, way, kind) {
            // SYNs say their numbers first.
            (_, _, Kind::Syn) => true,
            (_, Backend, Kind::SynAck) => self.syns.contains(&sent.ack),
            (State::SynSent2, Client, _) => sent.ack == self.said[1].end,
            (State::SynRecv, Client, _) => {
                let [_, backend] = self.said;
                let acknowledged = sent.ack.wrapping_sub(self.said[0].ack);
                acknowledged <= backend.end.wrapping_sub(self.said[0].ack)
                    && are_near(sent.end(), backend.ack)
            }
            _ => self.is_in_window(way, sent),
        }
    }

    /// `tcp_in_window`, with a window that is always the same.
    fn is_in_window(&self, way: Way, sent: &Segment) -> bool {
        let (own, other) = (self.said[way as usize], self.said[way.other() as usize]);
        are_near(sent.end(), own.end) && are_near(sent.ack, own.ack)
            || are_near(sent.end(), other.ack) && are_near(sent.ack, other.end)
    }

    fn take_note(&mut self, way: Way, kind: Kind, sent: &Segment) {
        let [client, backend] = &mut self.said;
        match (self.state, way, kind) {
            (_, Client, Kind::Syn) => {
                client.end = sent.end();
                self.syns.truncate(1);
                self.syns.extend([sent.seq.wrapping_add(1), sent.end()]);
            }
            (_, Backend, Kind::Syn) => backend.end = sent.end(),
            (_, Backend, Kind::SynAck) => self.answered(sent),
            (State::SynSent2 | State::SynRecv, Client, _) => {
                if self.state == State::SynSent2 {
                    backend.ack = self.syns.last().copied().unwrap_or_default();
                }
                // What keeps alive before that has come says nothing new.
                if !are_near(sent.end(), client.end) || is_after(sent.end(), client.end) {
                    client.end = sent.end();
                }
                client.ack = sent.ack;
                self.syns.clear();
                self.is_confirmed = true;
            }
            _ => {
                let own = &mut self.said[way as usize];
                if is_after(sent.end(), own.end) {
                    own.end = sent.end();
                }
                if is_after(sent.ack, own.ack) {
                    own.ack = sent.ack;
                }
            }
        }
    }

    /// The backend acknowledges a SYN of the client's.
    fn answered(&mut self, sent: &Segment) {
        let client = Said { end: sent.ack, ack: sent.end(), ..Said::default() };
        let backend = Said { end: sent.end(), ack: sent.ack, ..Said::default() };
        self.said = [client, backend];
        self.syns.clear();
        self.is_confirmed = false;
    }

    /// What the table ignores or calls invalid.
    fn ignore(&mut self, way: Way, kind: Kind, sent: &Segment) -> Fate {
        match (way, kind) {
            (Client, Kind::Syn) => {
                // "Let's save it": the client may have forgotten what was.
                let own = self.said[0].end;
                let is_copy = !is_after(sent.end(), own) && are_near(sent.end(), own);
                if self.state == State::SynRecv || !is_copy {
                    self.syns = vec![sent.end()];
                }
                Passes
            }
            // "SYN/ACK in reply to a SYN that we ignored".
            (Backend, Kind::SynAck) if self.syns.contains(&sent.ack) => {
                self.answered(sent);
                self.state = State::SynRecv;
                Counts
            }
            (Backend, Kind::SynAck) if self.state == State::SynRecv => {
                let [client, backend] = self.said;
                let is_same = (sent.ack, sent.end()) == (backend.ack, client.ack);
                if is_same { Passes } else { LeftAlone }
            }
            _ => self.unproved(way),
        }
    }

    /// Whether the receiver takes the RST, as far as can be told.
    fn is_reset(&self, way: Way, sent: &Segment) -> bool {
        let (own, other) = (self.said[way as usize], self.said[way.other() as usize]);
        let answers_syn = sent.has(ACK) && self.syns.contains(&sent.ack);
        match (self.state, way) {
            (State::SynSent | State::SynSent2, Backend) => answers_syn,
            (State::SynSent | State::SynSent2, Client) => {
                let answers =
                    self.state == State::SynSent2 && sent.has(ACK) && sent.ack == other.end;
                self.syns.contains(&sent.seq) || answers
            }
            (_, Backend) => sent.seq == other.ack || sent.seq == own.end || answers_syn,
            (_, Client) => sent.seq == other.ack || sent.seq == own.end,
        }
    }

    /// A packet that proves nothing: before the client has confirmed, the backend's may be another
    /// connection's.
    fn unproved(&self, way: Way) -> Fate {
        let is_half_open = matches!(self.state, State::SynSent | State::SynSent2 | State::SynRecv);
        if way == Backend && is_half_open { LeftAlone } else { Passes }
    }
}
