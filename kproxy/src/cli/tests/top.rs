//! `kproxy top` and `kproxy trace` without a kernel: the screen at 80 and 200 columns, keys, lines of events.

use std::time::Duration;

use kproxy_common::drop_reason::DropReason;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::sample;
use crate::cli::args::TopSort;
use crate::cli::top::rates::{Numbers, Rates, Sample};
use crate::cli::top::state::{State, Then};
use crate::cli::top::{plain, screen};
use crate::dataplane::read::{ActiveFlow, CounterRow, DropRow};
use crate::plan::Scope;

fn counter(id: u32, [connections, packets, bytes, failed]: [u64; 4]) -> CounterRow {
    CounterRow { id, service: None, set: Scope::Cluster, connections, packets, bytes, failed }
}

fn drop_of(id: Option<u32>, count: u64) -> DropRow {
    let reason = DropReason::NoBackend;
    let (reason_number, reason) = (reason as u32, Some(reason));
    DropRow { id, service: None, set: None, reason_number, reason, count }
}

fn flow(id: u32, identity: u64, open: bool) -> ActiveFlow {
    let backend = "10.244.1.5:8080".parse().unwrap();
    ActiveFlow { id, backend, open, unanswered: false, identity }
}

/// What goes on at the Services of the sample in two seconds.
fn state() -> State {
    let tables = sample::tables();
    let [mut before, mut now] = [10, 12].map(|seconds| Sample {
        at: Duration::from_secs(seconds),
        took: Duration::from_millis(7),
        counters: tables.counters.clone(),
        drops: tables.drops.clone(),
        backends: tables.backends.clone(),
        frontends: tables.frontends.clone(),
        ..Sample::default()
    });
    for (step, row) in (1..).zip(&mut now.counters) {
        row.connections += 15 * step;
        row.packets += 1_000 * step;
        row.bytes += 1_000_000 * step;
        row.failed += step % 3;
    }
    for row in &mut now.drops {
        row.count += 7;
    }
    before.flows = (0..40).map(|identity| flow(0, identity, true)).collect();
    now.flows = (10..60)
        .map(|identity| ActiveFlow { unanswered: identity == 59, ..flow(0, identity, true) })
        .collect();
    if let Some(row) = now.backends.iter().find(|row| row.id == 0) {
        let at = std::net::SocketAddr::new(row.addr, row.port);
        now.flows.iter_mut().skip(20).for_each(|flow| flow.backend = at);
    }
    let mut state = State::new(TopSort::New);
    state.rates = Rates::between(&before, &now);
    state
}

fn drawn(state: &State, columns: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, 24)).unwrap();
    terminal.draw(|frame| screen::draw(frame, state, Duration::from_secs(2))).unwrap();
    let lines = terminal.backend().to_string();
    lines.lines().map(|line| line.trim_matches('"').trim_end().to_owned() + "\n").collect()
}

fn press(state: &mut State, code: KeyCode) -> Then {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn the_screen_fits_80_and_200_columns() {
    let mut state = state();
    insta::assert_snapshot!("top_80", drawn(&state, 80));
    state.unfolded = state.rates.rows.iter().map(|row| row.id).collect();
    insta::assert_snapshot!("top_200", drawn(&state, 200));
    state.help = true;
    insta::assert_snapshot!("top_help", drawn(&state, 80));
    // However small the terminal is.
    for columns in [1, 10, 40] {
        drawn(&state, columns);
    }
}

/// What `--once` prints.
pub(super) fn once() -> String {
    let mut out = Vec::new();
    plain::print(&mut out, &super::TERMINAL, &state()).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn keys_move_sort_filter_unfold_and_end() {
    let mut state = state();
    let first = |state: &State| state.rows()[0].id;
    let by_new = first(&state);
    press(&mut state, KeyCode::Char('o'));
    assert_eq!((state.sort, first(&state)), (TopSort::Open, 0));
    press(&mut state, KeyCode::Char('d'));
    press(&mut state, KeyCode::Char('f'));
    assert_eq!(state.sort, TopSort::Failures);
    press(&mut state, KeyCode::Char('n'));
    assert_eq!(first(&state), by_new);
    press(&mut state, KeyCode::Down);
    let second = state.rows()[1].id;
    assert_eq!(state.cursor, Some(second));
    for (code, is_unfolded) in [
        (KeyCode::Enter, true),
        (KeyCode::Enter, false),
        (KeyCode::Right, true),
        (KeyCode::Right, true),
        (KeyCode::Left, false),
    ] {
        press(&mut state, code);
        assert_eq!(state.unfolded.contains(&second), is_unfolded, "{code:?}");
    }
    // The cursor stays on its Service, however the order changes.
    press(&mut state, KeyCode::Char('o'));
    assert_eq!(state.cursor, Some(second));
    press(&mut state, KeyCode::End);
    press(&mut state, KeyCode::Down);
    assert_eq!(state.cursor, state.rows().last().map(|row| row.id));
    press(&mut state, KeyCode::Char('/'));
    for c in "DNs".chars() {
        press(&mut state, KeyCode::Char(c));
    }
    assert_eq!(press(&mut state, KeyCode::Char('q')), Then::GoOn, "a letter while typing");
    press(&mut state, KeyCode::Backspace);
    press(&mut state, KeyCode::Enter);
    let names: Vec<_> =
        state.rows().iter().filter_map(|row| row.service.as_ref()).map(|id| id.text()).collect();
    assert!(!names.is_empty() && names.iter().all(|name| name.contains("dns")), "{names:?}");
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.rows().len(), state.rates.rows.len());
    press(&mut state, KeyCode::Char('?'));
    assert!(state.help);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Then::GoOn, "it closes the help");
    assert_eq!(press(&mut state, KeyCode::Char('q')), Then::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(interrupt), Then::Quit);
}

/// A Service with such counters and drops, and flows by number.
fn at_work(at: u64, counters: [u64; 4], drops: u64, flows: &[(u64, bool)]) -> Sample {
    Sample {
        at: Duration::from_secs(at),
        counters: vec![counter(1, counters)],
        drops: vec![drop_of(Some(1), drops), drop_of(None, 2 * drops)],
        flows: flows.iter().map(|(identity, open)| flow(1, *identity, *open)).collect(),
        ..Sample::default()
    }
}

#[test]
fn what_has_grown_is_a_rate_and_what_is_open_a_number() {
    let before = at_work(10, [100, 10, 1_000, 5], 3, &[(1, true), (2, true)]);
    let now = at_work(12, [120, 30, 1_500, 9], 13, &[(1, true), (3, true), (4, false), (5, true)]);
    let rates = Rates::between(&before, &now);
    let [row] = rates.rows.as_slice() else { panic!("{rates:?}") };
    let wanted = Numbers {
        new: 10.0,
        open: 3,
        drops: 5.0,
        failed: 2.0,
        unanswered: 0,
        packets: 10.0,
        bytes: 250.0,
    };
    assert_eq!(row.numbers, wanted);
    let [backend] = row.backends.as_slice() else { panic!("{row:?}") };
    assert_eq!((backend.numbers.new, backend.numbers.open, backend.serves), (1.5, 3, false));
    assert_eq!((rates.all.drops, rates.all.open), (15.0, 3), "with what belongs to nobody");
    // A number that has gone back is that of another service port.
    let rates = Rates::between(&now, &at_work(13, [7, 0, 0, 0], 0, &[]));
    assert_eq!((rates.rows[0].numbers.new, rates.rows[0].numbers.drops), (7.0, 0.0));
}
