//! The loop with a data path in memory and the clock standing still.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::control::{Error, Noticeboard, PROBLEMS_FILE, Repairs, Settings, State, run};
use crate::metrics::Metrics;
use crate::model::{Node, ServiceName};
use crate::plan::tests::{NODE, endpoint, ip, service, slice};

/// Longer than the loop collects, shorter than anything else it waits for.
const BURST: Duration = Duration::from_millis(10);

pub(super) struct Running {
    events: mpsc::Sender<Event>,
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    fake: Fake,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    state: watch::Receiver<State>,
    noticeboard: Noticeboard,
    repairs: Repairs,
    pub(super) metrics: Metrics,
    task: JoinHandle<Result<(), Error>>,
}

fn start() -> Running {
    start_with(|_| {})
}

fn start_with(change: impl Fn(&mut Settings)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (events, receiver) = mpsc::channel(64);
    let (addresses, watched) = watch::channel(BTreeSet::from([ip("192.0.2.10")]));
    let fake = Fake::default();
    let metrics = Metrics::new().unwrap();
    let shutdown = CancellationToken::new();
    let mut settings = Settings::new(NODE, dir.path().join("run"), metrics.control.clone());
    change(&mut settings);
    let state = settings.state.subscribe();
    let noticeboard = settings.noticeboard.clone();
    let repairs = settings.repairs.clone();
    let task = tokio::spawn(run(settings, receiver, fake.clone(), watched, shutdown.clone()));
    Running { events, addresses, fake, dir, shutdown, state, noticeboard, repairs, metrics, task }
}

impl Running {
    pub(super) async fn send(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.events.send(event).await.unwrap();
        }
        sleep(BURST).await;
    }

    /// A loop that holds `default/web` with one endpoint.
    pub(super) async fn in_sync() -> Self {
        let running = start();
        running
            .send([
                Event::Node(None),
                all_services([service("web", &["10.96.0.1"])]),
                all_slices([slice("web-1", "web", 80, &[endpoint("10.244.0.1", "RL")])]),
            ])
            .await;
        running
    }

    fn calls(&self) -> Vec<&'static str> {
        self.fake.held(|held| std::mem::take(&mut held.calls))
    }

    fn services(&self) -> Vec<String> {
        self.fake.held(|held| held.plans.keys().map(|id| id.name.clone()).collect())
    }

    fn problems(&self) -> Vec<Problem> {
        let path = self.dir.path().join("run").join(PROBLEMS_FILE);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn lc_01_nothing_is_written_before_both_lists_are_complete() {
    let running = start();
    running.send([Event::Node(None), all_services([service("web", &["10.96.0.1"])])]).await;
    running.send([apply_slice(slice("s", "web", 80, &[endpoint("10.244.0.1", "R")]))]).await;
    running.addresses.send(BTreeSet::new()).unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.calls(), [""; 0]);
    running.send([all_slices([])]).await;
    assert_eq!(running.calls(), ["addresses", "reconcile", "attach"]);
    assert_eq!(running.services(), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_repair_has_everything_looked_at_again() {
    let early = start();
    assert_eq!(early.repairs.ask().await, None, "there is no plan yet");
    assert_eq!(early.calls(), [""; 0]);

    let running = Running::in_sync().await;
    running.calls();
    running.fake.held(|held| held.plans.clear());
    assert_eq!(running.repairs.ask().await, Some(1));
    assert_eq!(running.calls(), ["reread", "addresses", "reconcile"]);
    assert_eq!(running.services(), ["web"]);
    assert_eq!(running.repairs.ask().await, Some(0), "nothing is written twice");
}

#[tokio::test(start_paused = true)]
async fn the_first_plan_waits_a_little_for_the_node() {
    let lists = || [all_services([service("web", &["10.96.0.1"])]), all_slices([])];
    let running = start();
    running.send(lists()).await;
    assert_eq!(running.calls(), [""; 0]);
    running.send([Event::Node(Some(Node::default()))]).await;
    assert_eq!(running.calls(), ["addresses", "reconcile", "attach"]);

    let forbidden = start();
    forbidden.send(lists()).await;
    forbidden.send([apply_service(service("api", &["10.96.0.2"]))]).await;
    assert_eq!(forbidden.calls(), [""; 0]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(forbidden.calls(), ["addresses", "reconcile", "attach"]);
}

#[tokio::test(start_paused = true)]
async fn hz_06_the_node_is_eligible_while_it_is_there_to_stay() {
    let running = Running::in_sync().await;
    let eligible = || running.state.borrow().node_eligible;
    assert!(eligible(), "a folder of manifests need not hold a Node");
    assert!(running.state.borrow().last_synced.is_some());
    for (leaving, wanted) in [(true, false), (false, true)] {
        let node = Node { leaving, ..Node::default() };
        running.send([Event::Node(Some(node))]).await;
        assert_eq!(eligible(), wanted);
    }
    let needs_node = start_with(|settings| settings.needs_node = true);
    let lists = [all_services([]), all_slices([])];
    needs_node.send([Event::Node(None)].into_iter().chain(lists)).await;
    assert!(needs_node.state.borrow().last_synced.is_some());
    assert!(!needs_node.state.borrow().node_eligible);
    needs_node.send([Event::Node(Some(Node::default()))]).await;
    assert!(needs_node.state.borrow().node_eligible);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_stays_while_something_is_unread() {
    let running = start();
    let earlier = Running::in_sync().await;
    let left = earlier.fake.held(|held| held.plans.clone());
    running.fake.held(|held| held.plans = left);
    let unread = |unread| Event::Unread { origin: "manifest a.yaml".into(), unread };
    running.send([Event::Node(None), unread(true)]).await;
    running.send([all_services([service("api", &["10.96.0.2"])]), all_slices([])]).await;
    assert_eq!(running.calls(), ["addresses", "apply", "attach"]);
    assert_eq!(running.services(), ["api", "web"]);
    // Read at last: it did not hold the Service.
    running.send([unread(false)]).await;
    assert_eq!(running.calls(), ["addresses", "reconcile"]);
    assert_eq!(running.services(), ["api"]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_one_batch() {
    let running = Running::in_sync().await;
    running.calls();
    let burst = (2..50).map(|i| service(&format!("s{i}"), &[&format!("10.96.0.{i}")]));
    running.send(burst.map(apply_service)).await;
    assert_eq!(running.calls(), ["apply"]);
    assert_eq!(running.services().len(), 49);
}

#[tokio::test(start_paused = true)]
async fn eps_16_an_event_without_change_writes_nothing() {
    let running = Running::in_sync().await;
    running.calls();
    let same = slice("web-1", "web", 80, &[endpoint("10.244.0.1", "RL")]);
    running.send([apply_slice(same.clone()), all_slices([same])]).await;
    assert_eq!(running.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_new_list_replaces_the_old_one() {
    let running = Running::in_sync().await;
    running.send([apply_service(service("api", &["10.96.0.2"]))]).await;
    assert_eq!(running.services(), ["api", "web"]);
    running.send([all_services([service("api", &["10.96.0.2"])])]).await;
    assert_eq!(running.services(), ["api"]);
}

#[tokio::test(start_paused = true)]
async fn node_addresses_reach_the_data_path_and_the_plan() {
    let running = Running::in_sync().await;
    assert_eq!(running.fake.held(|held| held.addresses.len()), 1);
    running.addresses.send([ip("192.0.2.10"), ip("10.96.0.1")].into()).unwrap();
    sleep(BURST).await;
    assert_eq!(running.fake.held(|held| held.addresses.len()), 2);
    // The cluster IP is bound now, so the Service has no frontend left here.
    assert_eq!(running.services(), [""; 0]);
    running.addresses.send([ip("192.0.2.10")].into()).unwrap();
    sleep(BURST).await;
    assert_eq!(running.services(), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn problems_are_listed_while_they_last() {
    let running = start();
    let of_source = |problems| Event::Problems { origin: "API server".to_owned(), problems };
    let down = Problem::new("API server https://192.0.2.1", "does not answer", "start it");
    running.send([of_source(vec![down.clone()])]).await;
    assert_eq!(running.problems(), [down]);
    assert_eq!(running.calls(), [""; 0]);

    let mut unnamed = slice("web-1", "web", 80, &[endpoint("10.244.0.1", "R")]);
    unnamed.ports[0].name = "http".to_owned();
    running
        .send([
            of_source(Vec::new()),
            Event::Node(None),
            all_services([service("web", &["10.96.0.1"])]),
            all_slices([unnamed]),
        ])
        .await;
    let problems = running.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].object, "Service default/web");
    running.send([Event::Services(Update::Delete(ServiceName::new("default", "web")))]).await;
    assert_eq!(running.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_posted_is_listed_until_it_is_taken_back_and_plans_nothing() {
    let down = || Problem::new("device eth0", "refuses the programs", "restart kproxy");
    let running = start_with(|settings| settings.noticeboard.post("devices", vec![down()]));
    sleep(BURST).await;
    assert_eq!(running.problems(), [down()], "posted before the loop began");
    running.noticeboard.post("devices", Vec::new());
    sleep(BURST).await;
    assert_eq!(running.problems(), []);
    running.noticeboard.post("devices", vec![down()]);
    sleep(BURST).await;
    assert_eq!(running.problems(), [down()]);
    running.noticeboard.post("devices", Vec::new());
    sleep(BURST).await;
    assert_eq!(running.problems(), []);
    assert_eq!(running.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_stays_as_it_was() {
    let running = Running::in_sync().await;
    let name = ServiceName::new("default", "web");
    let unreadable = Parsed::unreadable(name.clone(), "odd");
    running.send([Event::Services(Update::Apply(unreadable.clone()))]).await;
    assert_eq!(running.services(), ["web"]);
    assert_eq!(running.problems().len(), 1);
    running.send([Event::Services(Update::Reset(vec![unreadable]))]).await;
    assert_eq!(running.services(), ["web"]);
    let ignored = Parsed { key: name, verdict: Verdict::Ignore, problems: Vec::new() };
    running.send([Event::Services(Update::Apply(ignored))]).await;
    assert_eq!(running.services(), [""; 0]);
    assert_eq!(running.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn lc_06_what_failed_is_tried_again() {
    let running = Running::in_sync().await;
    running.fake.held(|held| held.refused.insert("big".to_owned()));
    running.send([apply_service(service("big", &["10.96.0.9"]))]).await;
    assert_eq!(running.services(), ["web"]);
    assert_eq!(running.problems()[0].what, "there is no room");
    running.calls();
    sleep(Duration::from_secs(10)).await;
    let tries = running.calls().iter().filter(|call| **call == "reconcile").count();
    assert_eq!(tries, 3, "after 1, 3 and 7 seconds");
    assert_eq!(running.problems().len(), 1);

    running.fake.held(|held| held.refused.clear());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(running.services(), ["big", "web"]);
    assert_eq!(running.problems(), []);
    running.calls();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_room_is_tried_as_soon_as_there_is_some() {
    let running = Running::in_sync().await;
    running.fake.held(|held| {
        held.refused.insert("big".to_owned());
    });
    running.send([apply_service(service("big", &["10.96.0.9"]))]).await;
    // The pauses have grown to a minute.
    sleep(Duration::from_secs(300)).await;
    running.fake.held(|held| held.room_in = Some(Duration::from_secs(2)));
    running.send([apply_service(service("big", &["10.96.0.10"]))]).await;
    running.fake.held(|held| {
        held.refused.clear();
        held.room_in = None;
    });
    sleep(Duration::from_secs(3)).await;
    assert_eq!(running.services(), ["big", "web"]);
    assert_eq!(running.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn lc_04_stopping_leaves_the_data_path_as_it_is() {
    let running = Running::in_sync().await;
    running.calls();
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
    assert_eq!(running.fake.held(|held| held.plans.len()), 1);
    assert_eq!(running.fake.held(|held| held.calls.clone()), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ends_ends_the_loop() {
    let Running { events, task, .. } = Running::in_sync().await;
    drop(events);
    assert!(task.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_run_directory_that_cannot_be_written_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (events, receiver) = mpsc::channel(64);
    let (_addresses, watched) = watch::channel(BTreeSet::new());
    let fake = Fake::default();
    let settings = Settings::new(NODE, file, Metrics::new().unwrap().control);
    tokio::spawn(run(settings, receiver, fake.clone(), watched, CancellationToken::new()));
    for event in [Event::Node(None), all_services([]), all_slices([])] {
        events.send(event).await.unwrap();
    }
    sleep(BURST).await;
    assert_eq!(fake.held(|held| held.calls.clone()), ["addresses", "reconcile", "attach"]);
}

#[tokio::test(start_paused = true)]
async fn node_08_ranges_of_cluster_ips_are_told_at_once_and_not_before_they_are_known() {
    use crate::model::{ServiceCidr, ServiceCidrName};
    let object = |name: &str, ranges: &[&str]| {
        let key = ServiceCidrName(name.to_owned());
        let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        let verdict = Verdict::Use(ServiceCidr { name: key.clone(), ranges });
        Parsed { key, verdict, problems: Vec::new() }
    };
    let told = |running: &Running| -> Vec<String> {
        running.fake.held(|held| held.service_ranges.iter().map(ToString::to_string).collect())
    };
    let running = Running::in_sync().await;
    assert_eq!(running.calls(), ["addresses", "reconcile", "attach"]);
    let first = object("kubernetes", &["10.96.0.0/24", "fd00:10:96::/112"]);
    running.send([Event::ServiceCidrs(Update::Reset(vec![first.clone()]))]).await;
    assert_eq!(running.calls(), ["ranges"]);
    assert_eq!(told(&running), ["10.96.0.0/24", "fd00:10:96::/112"]);
    // A range within another one is no range of its own.
    running.send([Event::ServiceCidrs(Update::Apply(object("in", &["10.96.0.128/25"])))]).await;
    assert_eq!(running.calls(), [""; 0]);
    let more: Vec<String> = (1..5).map(|i| format!("10.97.{}.0/24", i * 2)).collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    running.send([Event::ServiceCidrs(Update::Apply(object("more", &more)))]).await;
    assert!(running.problems()[0].what.contains("5 ranges of IPv4"), "{:?}", running.problems());
    running.send([Event::ServiceCidrs(Update::Delete(ServiceCidrName("more".to_owned())))]).await;
    assert_eq!((told(&running).len(), running.problems()), (2, vec![]));
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_opted_out_are_told_as_they_change_and_hold_nothing_up() {
    use crate::model::{Pod, PodName};
    let pod = |name: &str, node: Option<&str>, addresses: &[&str]| {
        let key = PodName::new("mesh", name);
        let addresses = addresses.iter().map(|text| ip(text)).collect();
        let pod = Pod { name: key.clone(), node: node.map(str::to_owned), addresses };
        Parsed { key, verdict: Verdict::Use(pod), problems: Vec::new() }
    };
    let told = |running: &Running| running.fake.held(|held| held.opted_out_pods.clone());
    let running = Running::in_sync().await;
    assert_eq!(running.calls(), ["addresses", "reconcile", "attach"]);
    let first = [pod("a", Some(NODE), &["10.244.1.5"]), pod("b", Some("other"), &["10.244.2.5"])];
    running.send([Event::Pods(Update::Reset(first.to_vec()))]).await;
    assert_eq!(running.calls(), ["pods"]);
    assert_eq!(told(&running), [[ip("10.244.1.5")].into()]);
    // Of which nobody says where it is, and without an address yet.
    running.send([Event::Pods(Update::Apply(pod("c", None, &[])))]).await;
    assert_eq!(told(&running), [[ip("10.244.1.5")].into(), BTreeSet::new()]);
    running.calls();
    // One that cannot be read is told; it is no reason to keep what an earlier run has left.
    let odd = Parsed::unreadable(PodName::new("mesh", "odd"), "status is no object");
    running.send([Event::Pods(Update::Apply(odd)), all_services([])]).await;
    assert_eq!((running.calls(), running.services()), (vec!["apply"], vec![]));
    assert_eq!(running.problems()[0].object, "Pod mesh/odd");
    running.send([Event::Pods(Update::Reset(Vec::new()))]).await;
    assert_eq!((told(&running), running.problems()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn hcn_07_health_checks_follow_what_the_data_path_has() {
    let mut web = service("web", &["10.96.0.1"]);
    web.kind = crate::model::ServiceType::LoadBalancer;
    web.external_policy_written = crate::model::TrafficPolicy::Local;
    web.health_check_node_port = std::num::NonZeroU16::new(32000);
    let running = Running::in_sync().await;
    let state = running.state.clone();
    assert!(state.borrow().health_checks.is_empty());
    assert_eq!(state.borrow().listen, [ip("0.0.0.0"), ip("::")].into());
    running.send([apply_service(web.clone())]).await;
    let counts = || -> Vec<usize> {
        let state = state.borrow();
        state.health_checks.values().flat_map(|check| check.endpoints.values().copied()).collect()
    };
    assert_eq!(counts(), [1]);
    running.send([apply_slice(slice("web-1", "web", 80, &[endpoint("10.244.0.1", "TL")]))]).await;
    assert_eq!(counts(), [0]);
    assert_eq!(state.borrow().behind_since, None);
    running.send([Event::Services(Update::Delete(web.name.clone()))]).await;
    assert_eq!(counts(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn np_05_node_05_addresses_of_nodeports_are_followed_at_once() {
    let primary = |settings: &mut Settings| {
        settings.node_port_addresses.primary = true;
    };
    let running = start_with(primary);
    let node =
        |addr: &str| Event::Node(Some(Node { addresses: vec![ip(addr)], ..Node::default() }));
    running.send([node("192.0.2.10"), all_services([]), all_slices([])]).await;
    let held = |running: &Running| running.fake.held(|held| held.addresses.clone());
    assert_eq!(held(&running), [ip("192.0.2.10")].into());
    // Another primary address, which the node gets a moment later.
    running.send([node("192.0.2.11")]).await;
    assert_eq!(held(&running), [].into());
    running.addresses.send([ip("192.0.2.10"), ip("192.0.2.11")].into()).unwrap();
    sleep(BURST).await;
    assert_eq!(held(&running), [ip("192.0.2.11")].into());
    assert_eq!(running.state.borrow().listen, [ip("192.0.2.11")].into());
    // NP-04: no address known is no reason to open them all.
    running.send([Event::Node(None)]).await;
    assert_eq!(held(&running), [].into());
    assert_eq!(running.problems()[0].object, "--nodeport-addresses");
}

#[tokio::test(start_paused = true)]
async fn node_02_a_bind_address_is_the_primary_one_of_its_family() {
    let running = start_with(|settings| {
        settings.node_port_addresses.primary = true;
        settings.bind_address = Some(ip("192.0.2.10"));
    });
    let addresses = vec![ip("192.0.2.11"), ip("2001:db8::1")];
    let node = Event::Node(Some(Node { addresses, ..Node::default() }));
    running.addresses.send(["192.0.2.10", "192.0.2.11", "2001:db8::1"].map(ip).into()).unwrap();
    running.send([node, all_services([]), all_slices([])]).await;
    let held = running.fake.held(|held| held.addresses.clone());
    assert_eq!(held, ["192.0.2.10", "2001:db8::1"].map(ip).into());
}
