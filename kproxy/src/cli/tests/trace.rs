//! `kproxy trace` without a kernel: lines of events.

use jiff::Timestamp;

use super::{PLAIN, TERMINAL, sample};
use crate::cli::args::TraceFormat;
use crate::cli::render::Look;
use crate::cli::trace::print::Printer;
use crate::cli::trace::told::Told;

/// A socket that is given a backend, one that is refused, a packet that is dropped.
fn events() -> [Told; 3] {
    let service = sample::tables().services[0].service.clone();
    let told = |millisecond: i64, hook, verdict, reason| Told {
        time: Timestamp::from_millisecond(1_795_864_500_000 + millisecond).unwrap(),
        cpu: 1,
        hook,
        verdict,
        reason,
        family: "IPv4",
        protocol: Some("TCP"),
        source: Some("10.244.1.10".parse().unwrap()),
        source_port: None,
        frontend: "10.96.0.10:80".parse().unwrap(),
        backend: None,
        service: service.clone(),
        device: None,
        pid: Some(4711),
        process: Some("curl".to_owned()),
    };
    [
        Told {
            backend: Some("10.244.2.11:8080".parse().unwrap()),
            ..told(17, "connect", "translated", None)
        },
        Told {
            source: None,
            frontend: "10.96.0.10:81".parse().unwrap(),
            service: None,
            ..told(21, "connect", "refused", Some("unknown-port"))
        },
        Told {
            source: Some("2001:db8:7::9".parse().unwrap()),
            source_port: Some(40_000),
            frontend: "[2001:db8::1]:30080".parse().unwrap(),
            family: "IPv6",
            device: Some("eth0".to_owned()),
            pid: None,
            process: None,
            ..told(1_300, "ingress", "dropped", Some("no-local-backend"))
        },
    ]
}

pub(super) fn printed(look: &Look, format: TraceFormat) -> String {
    let (mut out, mut printer) = (Vec::new(), Printer::new(look, format));
    for told in events() {
        printer.event(&mut out, &told).unwrap();
    }
    printer.untold(&mut out, 0, 500).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn events_are_lines_that_fit_or_are_broken() {
    insta::assert_snapshot!("trace_80", printed(&TERMINAL, TraceFormat::Table));
    insta::assert_snapshot!("trace_plain", printed(&PLAIN, TraceFormat::Table));
}

#[test]
fn json_is_one_object_a_line() {
    let text = printed(&PLAIN, TraceFormat::Json);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["backend"], "10.244.2.11:8080");
    assert_eq!(
        lines[0]["service"]["name"],
        sample::tables().services[0].service.clone().unwrap().name
    );
    assert_eq!(lines[1]["reason"], "unknown-port");
    assert!(lines[1]["service"].is_null() && lines[2]["pid"].is_null());
    let (mut out, printer) = (Vec::new(), Printer::new(&PLAIN, TraceFormat::Json));
    printer.untold(&mut out, 7, 500).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap()["lost"], 7);
}
