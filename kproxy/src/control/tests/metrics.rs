//! What the loop counts.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;

use super::running::Running;
use super::*;
use crate::metrics::tests::value;
use crate::model::{ServiceName, SliceName, TrafficPolicy};
use crate::plan::tests::{endpoint, service, slice};

/// Microseconds since 1970, so many from now.
fn from_now(microseconds: i64) -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Some(i64::try_from(since.as_micros()).unwrap() + microseconds)
}

const HOUR: i64 = 3_600_000_000;

impl Running {
    fn counted(&self, series: &str) -> f64 {
        value(&self.metrics, &format!("kubeproxy_{series}")).unwrap_or_else(|| panic!("{series}"))
    }

    fn programmed(&self) -> [f64; 2] {
        ["IPv4", "IPv6"].map(|family| {
            let name = "network_programming_duration_seconds_count";
            self.counted(&format!("{name}{{ip_family=\"{family}\"}}"))
        })
    }
}

/// `web-1` of `default/web`, with one endpoint and when its pods changed.
fn triggered(addr: &str, triggered: Option<i64>) -> Slice {
    Slice { triggered, ..slice("web-1", "web", 80, &[endpoint(addr, "RL")]) }
}

#[tokio::test(start_paused = true)]
async fn eps_20_changes_of_pods_are_timed_once_they_are_in_force() {
    let running = Running::in_sync().await;
    let send = async |slice| {
        running.send([apply_slice(slice)]).await;
        running.programmed()
    };
    assert_eq!(running.programmed(), [0.0, 0.0]);
    let now = from_now(0);
    assert_eq!(send(triggered("10.244.0.2", now)).await, [1.0, 0.0]);
    // The same once more, from before the start, and without the annotation.
    assert_eq!(send(triggered("10.244.0.2", now)).await, [1.0, 0.0]);
    assert_eq!(send(triggered("10.244.0.3", from_now(-HOUR))).await, [1.0, 0.0]);
    assert_eq!(send(triggered("10.244.0.4", None)).await, [1.0, 0.0]);
    let v6 =
        Slice { name: SliceName::new("default", "web-6"), ..triggered("fd00::2", from_now(0)) };
    assert_eq!(send(v6).await, [1.0, 1.0]);
    // Two changes in a burst count twice, unless the slice goes with them.
    let burst = |addr| apply_slice(triggered(addr, from_now(0)));
    running.send([burst("10.244.0.5"), burst("10.244.0.6")]).await;
    assert_eq!(running.programmed(), [3.0, 1.0]);
    let name = SliceName::new("default", "web-1");
    running.send([burst("10.244.0.7"), Event::Slices(Update::Delete(name))]).await;
    assert_eq!(running.programmed(), [3.0, 1.0]);
    // A clock that is behind the one of the API server.
    assert_eq!(send(triggered("10.244.0.8", from_now(HOUR))).await, [4.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn passes_and_changes_are_counted() {
    let running = Running::in_sync().await;
    let count = |name: &str| running.counted(&format!("{name}_count{{ip_family=\"IPv6\"}}"));
    let passes = || {
        (
            count("sync_full_proxy_rules_duration_seconds"),
            count("sync_partial_proxy_rules_duration_seconds"),
        )
    };
    assert_eq!(passes(), (1.0, 0.0));
    running.send([apply_service(service("api", &["10.96.0.2"]))]).await;
    assert_eq!(passes(), (1.0, 1.0));
    assert_eq!(count("sync_proxy_rules_duration_seconds"), 2.0);
    let changes = |name: &str| running.counted(&format!("sync_proxy_rules_{name}_changes_total"));
    assert_eq!((changes("service"), changes("endpoint")), (2.0, 1.0));
    let time = |name: &str| {
        running.counted(&format!(
            "sync_proxy_rules_last_{name}timestamp_seconds{{ip_family=\"IPv4\"}}"
        ))
    };
    assert!(time("queued_") > 0.0 && time("") >= time("queued_"));
}

#[tokio::test(start_paused = true)]
async fn ver_18_what_lacks_local_endpoints_is_counted_as_long_as_it_does() {
    let running = Running::in_sync().await;
    let counted = || {
        let of = |labels| {
            running.counted(&format!("sync_proxy_rules_no_local_endpoints_total{{{labels}}}"))
        };
        (
            of("ip_family=\"IPv4\",traffic_policy=\"internal\""),
            of("ip_family=\"IPv4\",traffic_policy=\"external\""),
            of("ip_family=\"IPv6\",traffic_policy=\"internal\""),
        )
    };
    let local =
        |name: &str, ip| Service { internal_policy: TrafficPolicy::Local, ..service(name, &[ip]) };
    let remote = |service: &str, addr| {
        apply_slice(slice(&format!("{service}-1"), service, 80, &[endpoint(addr, "RM")]))
    };
    assert_eq!(counted(), (0.0, 0.0, 0.0));
    running.send([apply_service(local("web", "10.96.0.1")), remote("web", "10.244.1.1")]).await;
    assert_eq!(counted(), (1.0, 0.0, 0.0));
    running.send([apply_service(local("six", "fd00::1")), remote("six", "fd00:1::1")]).await;
    assert_eq!(counted(), (1.0, 0.0, 1.0));
    running.send([apply_slice(slice("web-1", "web", 80, &[endpoint("10.244.0.1", "RL")]))]).await;
    assert_eq!(counted(), (0.0, 0.0, 1.0));
    let name = ServiceName::new("default", "six");
    running.send([Event::Services(Update::Delete(name))]).await;
    assert_eq!(counted(), (0.0, 0.0, 0.0));
}

#[tokio::test(start_paused = true)]
async fn since_when_the_view_is_stale_is_told_as_long_as_it_is() {
    let running = Running::in_sync().await;
    let stale = || value(&running.metrics, "kproxy_view_stale_since_seconds");
    assert_eq!(stale(), Some(0.0));
    let since = Timestamp::from_second(1_790_000_000).unwrap();
    running.send([Event::Stale(Some(since))]).await;
    assert_eq!(stale(), Some(1_790_000_000.0));
    running.send([Event::Stale(None)]).await;
    assert_eq!(stale(), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_says_nothing_new_changes_nothing() {
    let running = Running::in_sync().await;
    let writes = || value(&running.metrics, "kproxy_map_writes_total").unwrap();
    let before = writes();
    let list = || all_services(["web", "api"].map(|name| service(name, &["10.96.0.1"])));
    running.send([list()]).await;
    let changed = writes();
    assert!(changed > before);
    running.send([list()]).await;
    assert_eq!(writes(), changed);
}
