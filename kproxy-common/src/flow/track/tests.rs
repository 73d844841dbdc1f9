//! Tables of what packets do to a connection. The client's SYN has the number 1,000, the backend's
//! 5,000; numbers in rows count from what follows them.

use proptest::prelude::*;

use super::{
    Segment, Taken, goes_on, open,
    segment_flags::{ACK, FIN, RST, SYN},
    take, take_udp,
};
use crate::flow::{
    FlowValue, flow_flags,
    flow_state::{
        CLOSE_WAIT, CROSSED, ESTABLISHED, FIN_WAIT, LAST_ACK, OPENING, RECEIVED, REPLIED, RESET,
        STREAM, TIME_WAIT, UNREPLIED,
    },
    state::is_confirmed,
};

const CLIENT: u32 = 1_001;
const BACKEND: u32 = 5_001;
/// Far from everything that was said.
const FAR: u32 = 1 << 30;

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Client,
    Backend,
}
use Side::{Backend, Client};

/// A packet: who sends it, flags, sequence and acknowledgement number, bytes of data.
type Sent = (Side, u8, u32, u32, u32);

#[derive(Clone, Copy, Debug)]
struct Connection {
    forward: FlowValue,
    reverse: FlowValue,
}

fn segment((side, flags, seq, ack, data): Sent) -> Segment {
    let (own, other) = if side == Client { (CLIENT, BACKEND) } else { (BACKEND, CLIENT) };
    let seq = own.wrapping_add(seq);
    let marks = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let ack = if flags & ACK == 0 { 0 } else { other.wrapping_add(ack) };
    Segment { seq, ack, end: seq.wrapping_add(data).wrapping_add(marks), flags }
}

/// A SYN or SYN-ACK has the number before.
const BEFORE: u32 = u32::MAX;
const SYN_SENT: Sent = (Client, SYN, BEFORE, 0, 0);
const SYN_ACK: Sent = (Backend, SYN | ACK, BEFORE, 0, 0);
const CONFIRMS: Sent = (Client, ACK, 0, 0, 0);

impl Connection {
    /// After these packets.
    fn after(sent: &[Sent]) -> Self {
        let mut connection = Self { forward: FlowValue::default(), reverse: FlowValue::default() };
        connection.reverse.flags = flow_flags::REVERSE;
        let (first, rest) = sent.split_first().expect("a SYN");
        open(&mut connection.forward, &mut connection.reverse, &segment(*first), true);
        for sent in rest {
            let taken = connection.take(*sent);
            assert_ne!(taken, Taken::No, "{sent:?}");
        }
        connection
    }

    fn established() -> Self {
        Self::after(&[SYN_SENT, SYN_ACK, CONFIRMS])
    }

    fn take(&mut self, sent: Sent) -> Taken {
        let (forward, reverse) = (&mut self.forward, &mut self.reverse);
        let (own, other) = if sent.0 == Client { (forward, reverse) } else { (reverse, forward) };
        take(own, other, &segment(sent), true)
    }

    fn state(&self) -> u8 {
        assert_eq!(self.forward.state, self.reverse.state);
        self.forward.state
    }
}

/// Packets that bring a connection into a state, one after the other from the SYN on.
fn way_to(state: u8) -> Vec<Sent> {
    let fin: Sent = (Client, FIN | ACK, 0, 0, 0);
    let opening = [SYN_SENT, SYN_ACK, CONFIRMS];
    let (opened, more): (usize, &[Sent]) = match state {
        OPENING => (1, &[]),
        CROSSED => (1, &[(Backend, SYN, BEFORE, 0, 0)]),
        RECEIVED => (2, &[]),
        ESTABLISHED => (3, &[]),
        FIN_WAIT => (3, &[fin]),
        CLOSE_WAIT => (3, &[fin, (Backend, ACK, 0, 1, 0)]),
        LAST_ACK => (3, &[fin, (Backend, FIN | ACK, 0, 1, 0)]),
        TIME_WAIT => (3, &[fin, (Backend, FIN | ACK, 0, 1, 0), (Client, ACK, 1, 1, 0)]),
        RESET => (3, &[(Client, RST, 0, 0, 0)]),
        other => panic!("TCP has no state {other}"),
    };
    [&opening[..opened], more].concat()
}

#[test]
fn every_packet_in_every_state_does_what_the_table_says() {
    use Taken::{No, Unproved, Yes};
    let rows: &[(u8, Sent, Taken, u8)] = &[
        // The client again, with the same number and with another one.
        (OPENING, SYN_SENT, Yes, OPENING),
        (OPENING, (Client, SYN, 700, 0, 0), Yes, OPENING),
        (OPENING, (Client, ACK, 0, 0, 5), Unproved, OPENING),
        (OPENING, (Client, FIN | ACK, 0, 0, 0), Unproved, OPENING),
        (OPENING, (Client, RST, 0, 0, 0), Yes, RESET),
        (OPENING, (Client, RST, FAR, 0, 0), Unproved, OPENING),
        (OPENING, SYN_ACK, Yes, RECEIVED),
        // All else that comes from the backend may be of another connection.
        (OPENING, (Backend, SYN | ACK, BEFORE, 1, 0), No, OPENING),
        (OPENING, (Backend, ACK, 0, 0, 5), No, OPENING),
        (OPENING, (Backend, FIN | ACK, 0, 0, 0), No, OPENING),
        (OPENING, (Backend, RST | ACK, 0, 0, 0), Yes, RESET),
        (OPENING, (Backend, RST | ACK, 0, 1, 0), No, OPENING),
        (OPENING, (Backend, RST, 0, 0, 0), No, OPENING),
        (OPENING, (Backend, SYN, BEFORE, 0, 0), Yes, CROSSED),
        (CROSSED, SYN_SENT, Yes, CROSSED),
        (CROSSED, (Backend, SYN, BEFORE, 0, 0), Yes, CROSSED),
        (CROSSED, SYN_ACK, Yes, RECEIVED),
        (CROSSED, (Client, SYN | ACK, BEFORE, 0, 0), Yes, ESTABLISHED),
        (CROSSED, (Client, ACK, 0, 0, 0), Yes, ESTABLISHED),
        (CROSSED, (Client, SYN | ACK, BEFORE, 1, 0), Unproved, CROSSED),
        (CROSSED, (Client, ACK, 0, FAR, 0), Unproved, CROSSED),
        (CROSSED, (Backend, SYN | ACK, BEFORE, FAR, 0), No, CROSSED),
        (RECEIVED, CONFIRMS, Yes, ESTABLISHED),
        (RECEIVED, (Client, ACK, 0, 0, 100), Yes, ESTABLISHED),
        (RECEIVED, (Client, FIN | ACK, 0, 0, 0), Yes, FIN_WAIT),
        (RECEIVED, (Client, ACK, 0, 1, 0), Unproved, RECEIVED),
        (RECEIVED, (Client, ACK, 0, BEFORE, 0), Unproved, RECEIVED),
        (RECEIVED, (Client, ACK, FAR, 0, 0), Unproved, RECEIVED),
        (RECEIVED, SYN_SENT, Unproved, RECEIVED),
        (RECEIVED, SYN_ACK, Unproved, RECEIVED),
        (RECEIVED, (Backend, SYN | ACK, 9, 0, 0), No, RECEIVED),
        (RECEIVED, (Backend, SYN, BEFORE, 0, 0), No, RECEIVED),
        (RECEIVED, (Backend, ACK, 0, 0, 100), Yes, RECEIVED),
        (RECEIVED, (Backend, FIN | ACK, 0, 0, 0), Yes, RECEIVED),
        (RECEIVED, (Backend, ACK, FAR, 0, 100), No, RECEIVED),
        (RECEIVED, (Backend, ACK, 0, FAR, 100), No, RECEIVED),
        (RECEIVED, (Backend, RST, 0, 0, 0), Yes, RESET),
        (RECEIVED, (Backend, RST, 7, 0, 0), No, RECEIVED),
        (RECEIVED, (Client, RST, 0, 0, 0), Yes, RESET),
        (RECEIVED, (Client, RST, 7, 0, 0), Unproved, RECEIVED),
        (ESTABLISHED, (Client, ACK, 0, 0, 9), Yes, ESTABLISHED),
        (ESTABLISHED, (Backend, ACK, 0, 0, 9), Yes, ESTABLISHED),
        // A keepalive.
        (ESTABLISHED, (Client, ACK, BEFORE, 0, 0), Yes, ESTABLISHED),
        (ESTABLISHED, (Client, ACK, FAR, 0, 9), Unproved, ESTABLISHED),
        (ESTABLISHED, (Client, ACK, 0, FAR, 9), Unproved, ESTABLISHED),
        (ESTABLISHED, (Backend, FIN | ACK, 0, FAR, 0), Unproved, ESTABLISHED),
        (ESTABLISHED, (Backend, FIN | ACK, FAR, 0, 0), Unproved, ESTABLISHED),
        (ESTABLISHED, (Backend, FIN, 0, 0, 0), Unproved, ESTABLISHED),
        (ESTABLISHED, (Client, SYN, FAR, 0, 0), Unproved, ESTABLISHED),
        (ESTABLISHED, SYN_ACK, Unproved, ESTABLISHED),
        (ESTABLISHED, (Client, SYN | ACK, BEFORE, 0, 0), Unproved, ESTABLISHED),
        (ESTABLISHED, (Backend, SYN, BEFORE, 0, 0), Unproved, ESTABLISHED),
        (ESTABLISHED, (Client, FIN | ACK, 0, 0, 5), Yes, FIN_WAIT),
        (ESTABLISHED, (Backend, FIN | ACK, 0, 0, 5), Yes, FIN_WAIT),
        (ESTABLISHED, (Backend, RST, 0, 0, 0), Yes, RESET),
        (ESTABLISHED, (Backend, RST | ACK, 1, 0, 0), Unproved, ESTABLISHED),
        (FIN_WAIT, (Client, FIN | ACK, 0, 0, 0), Yes, FIN_WAIT),
        (FIN_WAIT, (Backend, ACK, 0, 1, 0), Yes, CLOSE_WAIT),
        (FIN_WAIT, (Backend, FIN | ACK, 0, 1, 0), Yes, LAST_ACK),
        (FIN_WAIT, (Backend, FIN | ACK, FAR, 1, 0), Unproved, FIN_WAIT),
        (FIN_WAIT, (Client, RST, 1, 0, 0), Yes, RESET),
        (CLOSE_WAIT, (Backend, ACK, 0, 1, 500), Yes, CLOSE_WAIT),
        (CLOSE_WAIT, (Client, ACK, 1, 0, 0), Yes, CLOSE_WAIT),
        (CLOSE_WAIT, (Client, FIN | ACK, 0, 0, 0), Yes, CLOSE_WAIT),
        (CLOSE_WAIT, (Backend, FIN | ACK, 0, 1, 0), Yes, LAST_ACK),
        (LAST_ACK, (Backend, FIN | ACK, 0, 1, 0), Yes, LAST_ACK),
        (LAST_ACK, (Client, ACK, 1, 1, 0), Yes, TIME_WAIT),
        (LAST_ACK, (Client, ACK, FAR, 1, 0), Unproved, LAST_ACK),
        (TIME_WAIT, (Backend, FIN | ACK, 0, 1, 0), Yes, TIME_WAIT),
        (TIME_WAIT, (Client, ACK, 1, 1, 0), Yes, TIME_WAIT),
        (TIME_WAIT, (Client, RST, 1, 0, 0), Yes, RESET),
        // What was under way when the client broke off, and what the client sends afterwards.
        (RESET, (Backend, ACK, 0, 0, 9), Yes, RESET),
        (RESET, (Client, ACK, 0, 0, 0), Yes, RESET),
        (RESET, (Client, ACK, 0, 0, 9), Yes, ESTABLISHED),
        (RESET, (Client, ACK, FAR, 0, 9), Unproved, RESET),
        (RESET, (Client, FIN | ACK, 0, 0, 0), Yes, FIN_WAIT),
    ];
    for (before, sent, taken, after) in rows {
        let mut connection = Connection::after(&way_to(*before));
        assert_eq!(connection.state(), *before, "on the way to it");
        let seen = (connection.take(*sent), connection.state());
        assert_eq!(seen, (*taken, *after), "state {before}: {sent:?}");
    }
}

#[test]
fn a_syn_that_was_left_out_of_account_counts_once_the_backend_acknowledges_it() {
    for before in [RECEIVED, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK] {
        let again: Sent = (Client, SYN, FAR, 0, 0);
        let answered: Sent = (Backend, SYN | ACK, 2 * FAR, FAR.wrapping_add(1), 0);
        let mut connection = Connection::after(&way_to(before));
        assert_eq!((connection.take(again), connection.state()), (Taken::Unproved, before));
        let mut broken = connection;
        // Both have forgotten what was: it begins again.
        assert_eq!((connection.take(answered), connection.state()), (Taken::Yes, RECEIVED));
        let confirms: Sent = (Client, ACK, FAR + 1, 2 * FAR + 1, 0);
        assert_eq!((connection.take(confirms), connection.state()), (Taken::Yes, ESTABLISHED));
        assert_eq!(connection.forward.flags & flow_flags::FIN, 0, "{before}");
        // Nobody listens any more: the answer to the SYN ends what was.
        let refused: Sent = (Backend, RST | ACK, 2 * FAR, FAR.wrapping_add(1), 0);
        assert_eq!((broken.take(refused), broken.state()), (Taken::Yes, RESET), "{before}");
    }
}

/// Late copies of the handshake's own packets are no new one.
#[test]
fn a_handshake_that_is_repeated_changes_nothing() {
    for before in [ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK] {
        let mut connection = Connection::after(&way_to(before));
        for sent in [SYN_SENT, SYN_ACK] {
            assert_eq!((connection.take(sent), connection.state()), (Taken::Unproved, before));
        }
    }
}

/// A keepalive that overtakes the client's first ACK takes the number of its SYN not back: a late copy of that SYN
/// and of its answer would begin a connection again that lives.
#[test]
fn a_keepalive_confirms_what_the_syn_has_said() {
    for handshake in [vec![SYN_SENT, SYN_ACK], vec![SYN_SENT, (Backend, SYN, BEFORE, 0, 0)]] {
        let mut connection = Connection::after(&handshake);
        for sent in [(Client, ACK, BEFORE, 0, 0), SYN_SENT, CONFIRMS, SYN_ACK] {
            connection.take(sent);
            assert_eq!(connection.state(), ESTABLISHED, "{handshake:?}, {sent:?}");
        }
    }
}

#[test]
fn either_of_two_syns_is_answered() {
    for acknowledged in [0, 701] {
        let mut connection = Connection::after(&[SYN_SENT, (Client, SYN, 700, 0, 0)]);
        let answer: Sent = (Backend, SYN | ACK, BEFORE, acknowledged, 0);
        assert_eq!((connection.take(answer), connection.state()), (Taken::Yes, RECEIVED));
        let confirms: Sent = (Client, ACK, acknowledged, 0, 0);
        assert_eq!((connection.take(confirms), connection.state()), (Taken::Yes, ESTABLISHED));
    }
}

#[test]
fn data_of_a_syn_may_be_acknowledged_or_not() {
    for acknowledged in [0, 300] {
        let mut connection = Connection::after(&[(Client, SYN, BEFORE, 0, 300)]);
        let answer: Sent = (Backend, SYN | ACK, BEFORE, acknowledged, 0);
        assert_eq!((connection.take(answer), connection.state()), (Taken::Yes, RECEIVED));
    }
}

#[test]
fn a_backend_that_closes_before_the_client_confirms_has_closed() {
    let mut connection = Connection::after(&way_to(RECEIVED));
    connection.take((Backend, FIN | ACK, 0, 0, 100));
    let confirms: Sent = (Client, ACK, 0, 101, 0);
    assert_eq!((connection.take(confirms), connection.state()), (Taken::Yes, CLOSE_WAIT));
    connection.take((Client, FIN | ACK, 0, 101, 0));
    assert_eq!(connection.state(), LAST_ACK);
}

/// Who has seen no packet of the backend may say what it likes: the connection is not confirmed.
#[test]
fn what_was_never_confirmed_is_not_by_taking_a_reset_back() {
    for before in [OPENING, RECEIVED] {
        for ack in [0, CLIENT.wrapping_sub(BACKEND), FAR] {
            let mut connection = Connection::after(&way_to(before));
            assert_eq!(connection.take((Client, RST, 0, 0, 0)), Taken::Yes);
            connection.take((Client, ACK, 0, ack, 1));
            let is_proved = before == RECEIVED && ack == 0;
            let state = connection.state();
            assert!(!is_confirmed(state) || is_proved, "{before}, {ack}: {state}");
        }
    }
}

#[test]
fn numbers_go_round() {
    // The window reaches over the end of the numbers.
    for isn in [0u32, u32::MAX, u32::MAX - 40, 1 << 31] {
        let start = isn.wrapping_sub(CLIENT);
        let at = |number: u32| start.wrapping_add(1).wrapping_add(number);
        let mut connection = Connection::after(&[
            (Client, SYN, start, 0, 0),
            (Backend, SYN | ACK, BEFORE, at(0), 0),
            (Client, ACK, at(0), 0, 100),
            (Backend, ACK, 0, at(100), 0),
        ]);
        assert_eq!(connection.state(), ESTABLISHED);
        assert_eq!(connection.take((Client, ACK, at(100), 0, 100)), Taken::Yes);
        assert_eq!(
            connection.take((Client, ACK, at(100).wrapping_add(FAR), 0, 1)),
            Taken::Unproved
        );
    }
}

#[test]
fn udp_is_a_stream_once_it_goes_on_for_more_than_two_seconds_after_an_answer() {
    let rows: &[(&[(Side, u32)], u8)] = &[
        (&[(Client, 0), (Client, 9)], UNREPLIED),
        (&[(Backend, 0)], REPLIED),
        (&[(Backend, 1), (Client, 2)], REPLIED),
        (&[(Backend, 1), (Client, 3)], STREAM),
        (&[(Backend, 1), (Backend, 3)], STREAM),
        // A late answer is one exchange still.
        (&[(Backend, 9)], REPLIED),
        (&[(Backend, 9), (Client, 9)], STREAM),
    ];
    for (datagrams, state) in rows {
        let opened = FlowValue { state: UNREPLIED, end: 100, ..FlowValue::default() };
        let (mut forward, mut reverse) = (opened, opened);
        reverse.flags = flow_flags::REVERSE;
        for (side, at) in *datagrams {
            let now = 100 + at;
            let taken = match side {
                Client => take_udp(&mut forward, &mut reverse, now),
                Backend => take_udp(&mut reverse, &mut forward, now),
            };
            assert_eq!(taken, Taken::Yes);
        }
        assert_eq!((forward.state, reverse.state), (*state, *state), "{datagrams:?}");
    }
}

/// An SCTP chunk: who sends it, meaning, tag, initiate tag.
fn chunk(connection: &mut Connection, (side, flags, tag, init): (Side, u8, u32, u32)) -> Taken {
    let (forward, reverse) = (&mut connection.forward, &mut connection.reverse);
    let (own, other) = if side == Client { (forward, reverse) } else { (reverse, forward) };
    take(own, other, &Segment { seq: tag, ack: init, end: 0, flags }, false)
}

#[test]
fn sctp_believes_what_bears_the_tag_of_its_direction() {
    use Taken::{No, Unproved, Yes};
    // The backend's packets bear the tag 71 that the client has chosen, the client's 72.
    type Row = ((Side, u8, u32, u32), Taken, u8);
    let rows: &[&[Row]] = &[
        &[((Client, SYN, 0, 71), Yes, OPENING)],
        &[((Client, ACK, 72, 0), Unproved, OPENING)],
        &[((Backend, ACK, 71, 0), No, OPENING)],
        &[((Backend, SYN | ACK, 99, 72), No, OPENING)],
        &[((Backend, RST, 71, 0), Yes, RESET)],
        &[((Backend, RST, 99, 0), No, OPENING)],
        &[
            ((Backend, SYN | ACK, 71, 72), Yes, RECEIVED),
            ((Client, ACK, 99, 0), Unproved, RECEIVED),
            ((Backend, ACK, 99, 0), No, RECEIVED),
            ((Backend, ACK, 71, 0), Yes, RECEIVED),
            ((Client, ACK, 72, 0), Yes, ESTABLISHED),
            ((Client, RST, 99, 0), Unproved, ESTABLISHED),
            ((Backend, FIN, 99, 0), Unproved, ESTABLISHED),
            ((Client, SYN, 0, 81), Unproved, ESTABLISHED),
            ((Client, FIN, 72, 0), Yes, FIN_WAIT),
            ((Backend, FIN, 71, 0), Yes, LAST_ACK),
            ((Client, ACK, 72, 0), Yes, TIME_WAIT),
        ],
        // An ABORT ends it; data with the right tag afterwards takes that back.
        &[
            ((Backend, SYN | ACK, 71, 72), Yes, RECEIVED),
            ((Client, ACK, 72, 0), Yes, ESTABLISHED),
            ((Client, RST, 72, 0), Yes, RESET),
            ((Client, ACK, 72, 0), Yes, ESTABLISHED),
            ((Backend, RST, 71, 0), Yes, RESET),
        ],
        // What was never confirmed is not by taking that back, and what closes goes on closing.
        &[((Backend, RST, 71, 0), Yes, RESET), ((Backend, ACK, 71, 0), Yes, RESET)],
        &[
            ((Backend, SYN | ACK, 71, 72), Yes, RECEIVED),
            ((Client, RST, 72, 0), Yes, RESET),
            ((Client, ACK, 72, 0), Yes, RESET),
        ],
        &[
            ((Backend, SYN | ACK, 71, 72), Yes, RECEIVED),
            ((Client, ACK, 72, 0), Yes, ESTABLISHED),
            ((Client, RST, 72, 0), Yes, RESET),
            ((Client, FIN, 72, 0), Yes, FIN_WAIT),
        ],
        // A restart (RFC 9260 section 5.2.2): the answer bears the new INIT's tag.
        &[
            ((Backend, SYN | ACK, 71, 72), Yes, RECEIVED),
            ((Client, ACK, 72, 0), Yes, ESTABLISHED),
            ((Client, SYN, 0, 81), Unproved, ESTABLISHED),
            ((Backend, SYN | ACK, 81, 82), Yes, RECEIVED),
            ((Client, ACK, 82, 0), Yes, ESTABLISHED),
        ],
    ];
    for steps in rows {
        let mut connection =
            Connection { forward: FlowValue::default(), reverse: FlowValue::default() };
        connection.reverse.flags = flow_flags::REVERSE;
        let init = Segment { seq: 0, ack: 71, end: 0, flags: SYN };
        open(&mut connection.forward, &mut connection.reverse, &init, false);
        for (i, (sent, taken, state)) in steps.iter().enumerate() {
            let seen = (chunk(&mut connection, *sent), connection.state());
            assert_eq!(seen, (*taken, *state), "{i} of {steps:?}");
        }
    }
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let number = || prop_oneof![4 => 0..2_000u32, 1 => Just(BEFORE), 1 => any::<u32>()];
    let side = prop_oneof![Just(Client), Just(Backend)];
    let flags = prop_oneof![
        4 => Just(ACK),
        1 => Just(SYN),
        1 => Just(SYN | ACK),
        1 => Just(FIN | ACK),
        1 => Just(RST),
        1 => any::<u8>(),
    ];
    (side, flags, number(), number(), 0..1_500u32)
}

proptest! {
    /// The short way of most packets leads where the long one does.
    #[test]
    fn what_goes_on_is_taken_alike(
        before in prop::collection::vec(any_sent(), 0..12),
        sent in any_sent(),
    ) {
        let mut connection = Connection::established();
        for sent in before {
            connection.take(sent);
        }
        let mut short = connection;
        let own = if sent.0 == Client { &mut short.forward } else { &mut short.reverse };
        if goes_on(own, &segment(sent)) {
            prop_assert_eq!(connection.take(sent), Taken::Yes);
            prop_assert_eq!(connection.forward, short.forward);
            prop_assert_eq!(connection.reverse, short.reverse);
        }
    }

    /// Whatever else is sent: without a number of the backend's the connection is never confirmed.
    #[test]
    fn a_client_that_has_seen_nothing_confirms_nothing(
        sent in prop::collection::vec(any_sent(), 0..12),
        is_answered in any::<bool>(),
    ) {
        let mut connection = Connection::after(&way_to(if is_answered { RECEIVED } else { OPENING }));
        for (_, flags, seq, ack, data) in sent {
            // Not within the window of the backend's number.
            let ack = FAR.wrapping_add(ack % FAR);
            connection.take((Client, flags, seq, ack, data));
            prop_assert!(!is_confirmed(connection.state()), "{:?}", connection);
        }
    }

    /// Nor do packets without a number of the one end and of the other change what is confirmed.
    #[test]
    fn who_knows_no_number_changes_nothing_of_what_is_confirmed(
        side in prop_oneof![Just(Client), Just(Backend)],
        sent in prop::collection::vec((any::<u8>(), 0..FAR, 0..FAR, 0..1_500u32), 0..12),
    ) {
        let before = Connection::established();
        let mut connection = before;
        for (flags, seq, ack, data) in sent {
            let (seq, ack) = (FAR.wrapping_add(seq), FAR.wrapping_add(ack));
            prop_assert_ne!(connection.take((side, flags, seq, ack, data)), Taken::Yes);
        }
        // But for a SYN that is kept in mind.
        connection.forward.syn = before.forward.syn;
        prop_assert_eq!(connection.forward, before.forward);
        prop_assert_eq!(connection.reverse, before.reverse);
    }
}
