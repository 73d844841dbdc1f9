use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::file::{Contents, Item, read};
use super::folder::Folder;
use super::{Settings, run};
use crate::model::{Family, Protocol, Service};
use crate::source::{Event, Update, Verdict};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.10
  ports:
  - port: 80
";

const WEB_SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels:
    kubernetes.io/service-name: web
addressType: IPv6
ports:
- port: 8080
endpoints:
- addresses: [\"fd00::5\"]
";

/// Of this node; the Pods of the namespace `mesh` count.
fn settings(dir: &Path) -> Settings {
    let namespaces = ["mesh".to_owned()].into();
    Settings { dir: dir.to_owned(), node_name: "this-node".to_owned(), namespaces }
}

fn keys(contents: &Contents) -> Vec<String> {
    contents.items.keys().map(ToString::to_string).collect()
}

fn only_service(contents: &Contents) -> &Service {
    let mut items = contents.items.values();
    match items.next().map(|item| &**item) {
        Some(Item::Service(parsed)) if items.next().is_none() => match &parsed.verdict {
            Verdict::Use(service) => service,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn service_problems(contents: &Contents) -> Vec<String> {
    let mut all = Vec::new();
    for item in contents.items.values() {
        if let Item::Service(parsed) = &**item {
            all.extend(parsed.problems.iter().map(ToString::to_string));
        }
    }
    all
}

#[test]
fn what_the_api_server_fills_in_is_filled_in() {
    let contents = read("web.yaml", WEB);
    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    let service = only_service(&contents);
    assert_eq!(service.name.to_string(), "default/web");
    assert_eq!(service.ports[0].protocol, Protocol::Tcp);

    let contents = read("slice.yml", WEB_SLICE);
    let Some(Item::Slice(parsed)) = contents.items.values().next().map(|item| &**item) else {
        panic!()
    };
    let Verdict::Use(slice) = &parsed.verdict else { panic!("{parsed:?}") };
    assert_eq!((slice.family, slice.ports[0].name.as_str()), (Family::V6, ""));

    let listed = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
        spec: {clusterIPs: [10.96.0.10], sessionAffinity: ClientIP, ports: [{port: 80}]}}";
    let contents = read("web.yaml", listed);
    let service = only_service(&contents);
    assert_eq!(service.name.to_string(), "shop/web");
    assert_eq!((service.cluster_ips.len(), service.affinity_seconds), (1, Some(10_800)));
}

#[test]
fn what_only_an_api_server_can_give_is_reported() {
    let with = |spec: &str| {
        let text =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}");
        read("web.yaml", &text)
    };
    for (spec, word) in [
        ("{ports: [{port: 80}]}", "no clusterIP"),
        ("{clusterIP: 10.96.0.1}", "no ports"),
        ("{clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80}]}", "no nodePort"),
    ] {
        let problems = service_problems(&with(spec));
        assert_eq!(problems.len(), 1, "{spec}");
        assert!(problems[0].starts_with("Service default/web: "), "{}", problems[0]);
        assert!(problems[0].contains(word), "{}", problems[0]);
    }
    for spec in [
        "{clusterIP: None, ports: [{port: 80}]}",
        "{type: ExternalName, externalName: example.org}",
        "{clusterIP: 10.96.0.1, type: LoadBalancer, allocateLoadBalancerNodePorts: false,
          ports: [{port: 80}]}",
    ] {
        assert_eq!(service_problems(&with(spec)), [""; 0], "{spec}");
    }
}

#[test]
fn documents_and_lists_are_walked() {
    let text = format!(
        "# a comment\n%YAML 1.2\n---\n{WEB}\n--- # next\n{WEB_SLICE}...\n---\n\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n---\n\
         apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: other}}\n"
    );
    let contents = read("all.yaml", &text);
    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    assert_eq!(keys(&contents), ["Service default/web", "EndpointSlice default/web-1"]);

    for list in ["\"List\"", "\"ServiceList\""] {
        let text = format!(
            "{{\"apiVersion\": \"v1\", \"kind\": {list}, \"items\": [
              {{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {{\"name\": \"a\"}},
                \"spec\": {{\"clusterIP\": \"10.96.0.1\", \"ports\": [{{\"port\": 80}}]}}}}]}}"
        );
        assert_eq!(keys(&read("list.json", &text)), ["Service default/a"]);
        assert_eq!(keys(&read("list.yaml", &text)), ["Service default/a"]);
    }
    let typed = "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n";
    assert_eq!(keys(&read("list.yaml", typed)), ["Service default/a"]);
}

#[test]
fn broken_documents_are_named_with_their_line_and_hide_nothing() {
    let text = format!("{WEB}---\nkind: Service\n  apiVersion: [\n---{WEB_SLICE}");
    let contents = read("web.yaml", &text);
    assert_eq!(keys(&contents), ["Service default/web", "EndpointSlice default/web-1"]);
    assert!(contents.broken);
    assert_eq!(contents.problems.len(), 1);
    let line = WEB.lines().count() + 3;
    assert_eq!(contents.problems[0].object, format!("manifest web.yaml:{line}"));

    let json = read("web.json", "{\n\"kind\": \n}");
    assert!(json.broken);
    assert_eq!(json.problems[0].object, "manifest web.json:3");
}

#[test]
fn odd_documents_are_reported() {
    for (text, word, broken) in [
        ("just words", "no Kubernetes object", false),
        ("kind: Service\nmetadata: {name: web}", "no Kubernetes object", false),
        ("apiVersion: v1\nkind: Service\nspec: {}", "no metadata.name", true),
        ("apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice", "v1beta1", false),
        ("apiVersion: v1\napiVersion: v1\nkind: Service", "no YAML", true),
    ] {
        let contents = read("odd.yaml", text);
        assert_eq!(contents.problems.len(), 1, "{text}");
        assert!(contents.problems[0].what.contains(word), "{}", contents.problems[0]);
        assert_eq!(contents.broken, broken, "{text}");
    }
    let odd = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: 80}";
    let contents = read("odd.yaml", odd);
    assert!(!contents.broken);
    let problems = service_problems(&contents);
    assert!(problems[0].contains("manifest odd.yaml:1"), "{problems:?}");
    let twice = read("twice.yaml", &format!("{WEB}---{WEB}"));
    assert!(twice.problems[0].what.contains("a second time"), "{:?}", twice.problems);
}

#[test]
fn words_that_look_like_booleans_are_words() {
    let contents = read("web.yaml", &WEB.replace("name: web", "name: no"));
    assert_eq!(keys(&contents), ["Service default/no"]);
}

// === Folder ===

/// Writes a file whose time lies back, as if it had been written a while ago.
fn write(dir: &Path, name: &str, text: &(impl AsRef<[u8]> + ?Sized)) {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    let then = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn web(name: &str, addr: &str) -> String {
    WEB.replace("name: web", &format!("name: {name}")).replace("10.96.0.10", addr)
}

/// Events as words: `+name` applied, `-name` deleted, `=[names]` a complete list, `!origin count`.
fn words(events: Vec<Event>) -> Vec<String> {
    let word = |event| match event {
        Event::Services(Update::Apply(parsed)) => Some(format!("+{}", parsed.key.name)),
        Event::Services(Update::Delete(key)) => Some(format!("-{}", key.name)),
        Event::Services(Update::Reset(list)) => {
            let names: Vec<_> = list.into_iter().map(|parsed| parsed.key.name).collect();
            Some(format!("={names:?}"))
        }
        Event::Problems { origin, problems } => {
            let at = problems.first().map_or_else(|| origin.clone(), |p| p.object.clone());
            Some(format!("!{at} {}", problems.len()))
        }
        Event::Unread { origin, unread } => Some(format!("?{origin} {unread}")),
        Event::Stale(since) => Some(format!("stale {since:?}")),
        Event::Node(node) => node.map(|node| format!("zone {:?}", node.zone)),
        Event::ServiceCidrs(Update::Reset(list)) if list.is_empty() => None,
        Event::ServiceCidrs(Update::Reset(list)) => Some(format!("ranges of {}", list.len())),
        Event::ServiceCidrs(Update::Apply(parsed)) => Some(format!("range +{}", parsed.key)),
        Event::ServiceCidrs(Update::Delete(key)) => Some(format!("range -{key}")),
        Event::Slices(_) => None,
        Event::Pods(Update::Reset(list)) if list.is_empty() => None,
        Event::Pods(Update::Reset(list)) => Some(format!("pods of {}", list.len())),
        Event::Pods(Update::Apply(parsed)) => Some(format!("pod +{}", parsed.key)),
        Event::Pods(Update::Delete(key)) => Some(format!("pod -{key}")),
    };
    events.into_iter().filter_map(word).collect()
}

#[test]
fn a_file_that_was_broken_from_the_start_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", "kind: [broken");
    write(dir.path(), "b.yaml", &web("b", "10.96.0.2"));
    let mut folder = Folder::new(settings(dir.path()));
    let first = words(folder.scan().events);
    let told = first.iter().position(|word| word == "?manifest a.yaml true").unwrap();
    let list = first.iter().position(|word| word == "=[\"b\"]").unwrap();
    assert!(told < list, "{first:?}");
    write(dir.path(), "a.yaml", &web("a", "10.96.0.1"));
    let mended = words(folder.scan().events);
    assert!(mended.contains(&"?manifest a.yaml false".to_owned()), "{mended:?}");
    // Once read, a broken version leaves the last good one: nothing is unread.
    write(dir.path(), "a.yaml", "kind: [broken");
    let broken = words(folder.scan().events);
    assert!(!broken.iter().any(|word| word.starts_with('?')), "{broken:?}");
}

#[test]
fn node_08_service_cidrs_come_from_the_folder_too() {
    let dir = tempfile::tempdir().unwrap();
    let ranges = |name: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: {name}}}\n\
             spec: {{cidrs: [10.96.0.0/16, \"fd00:10:96::/112\"]}}\n"
        )
    };
    write(dir.path(), "a.yaml", &ranges("kubernetes"));
    let mut folder = Folder::new(settings(dir.path()));
    assert_eq!(words(folder.scan().events), ["ranges of 1", "=[]"]);
    write(dir.path(), "b.yaml", &ranges("more"));
    assert_eq!(words(folder.scan().events), ["range +more"]);
    std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(words(folder.scan().events), ["range -kubernetes"]);
}

#[test]
fn pods_of_the_namespaces_that_are_opted_out_come_from_the_folder_too() {
    let dir = tempfile::tempdir().unwrap();
    let pod = |namespace: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: x}}\n\
             spec: {{containers: []}}\nstatus: {{podIP: {ip}}}\n"
        )
    };
    write(dir.path(), "a.yaml", &pod("mesh", "10.244.1.5"));
    // Of no concern, whatever is wrong with it.
    write(dir.path(), "b.yaml", &pod("other", "[]"));
    let mut folder = Folder::new(settings(dir.path()));
    assert_eq!(words(folder.scan().events), ["pods of 1", "=[]"]);
    write(dir.path(), "a.yaml", &pod("mesh", "10.244.1.6"));
    assert_eq!(words(folder.scan().events), ["pod +mesh/x"]);
    std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(words(folder.scan().events), ["pod -mesh/x"]);
}

#[test]
fn a_folder_gives_complete_lists_then_differences() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &web("a", "10.96.0.1"));
    write(dir.path(), "b.yml", &web("b", "10.96.0.2"));
    write(dir.path(), ".hidden.yaml", &web("h", "10.96.0.3"));
    write(dir.path(), "notes.txt", "words");
    let mut folder = Folder::new(settings(dir.path()));
    assert_eq!(words(folder.scan().events), ["=[\"a\", \"b\"]"]);
    assert_eq!(words(folder.scan().events), [""; 0]);

    write(dir.path(), "a.yaml", &web("a", "10.96.0.9"));
    write(dir.path(), "c.yaml", &web("c", "10.96.0.3"));
    std::fs::remove_file(dir.path().join("b.yml")).unwrap();
    assert_eq!(words(folder.scan().events), ["-b", "+a", "+c"]);
}

#[test]
fn a_broken_file_keeps_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (web("a", "10.96.0.1"), web("b", "10.96.0.2"));
    write(dir.path(), "all.yaml", &format!("{a}---{b}"));
    let mut folder = Folder::new(settings(dir.path()));
    assert_eq!(words(folder.scan().events), ["=[\"a\", \"b\"]"]);

    // The good document counts, the broken one may be any of the others: they stay.
    let a = web("a", "10.96.0.9");
    write(dir.path(), "all.yaml", &format!("{a}---\nspec: ]"));
    let at = format!("!manifest all.yaml:{} 1", a.lines().count() + 2);
    assert_eq!(words(folder.scan().events), [at.as_str(), "+a"]);
    write(dir.path(), "all.yaml", "spec: ]");
    assert_eq!(words(folder.scan().events), ["!manifest all.yaml:1 1"]);
    write(dir.path(), "all.yaml", &[0xff_u8, 0xfe]);
    write(dir.path(), "c.yaml", &web("c", "10.96.0.3"));
    assert_eq!(words(folder.scan().events), ["!manifest all.yaml 1", "+c"]);

    // Mended, it says all there is.
    write(dir.path(), "all.yaml", &a);
    assert_eq!(words(folder.scan().events), ["!manifest all.yaml 0", "-b"]);
}

#[test]
fn the_first_file_by_name_counts() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "2.yaml", &web("a", "10.96.0.2"));
    let mut folder = Folder::new(settings(dir.path()));
    folder.scan();
    write(dir.path(), "1.yaml", &web("a", "10.96.0.1"));
    assert_eq!(words(folder.scan().events), ["!manifest 2.yaml 1", "+a"]);
    std::fs::remove_file(dir.path().join("1.yaml")).unwrap();
    assert_eq!(words(folder.scan().events), ["!manifests in two files 0", "+a"]);
}

#[test]
fn a_missing_folder_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("manifests");
    std::fs::create_dir(&inner).unwrap();
    write(&inner, "a.yaml", &web("a", "10.96.0.1"));
    let mut folder = Folder::new(settings(&inner));
    folder.scan();
    std::fs::rename(&inner, dir.path().join("away")).unwrap();
    let gone = words(folder.scan().events);
    assert_eq!(gone, [format!("!manifests {} 1", inner.display())]);
    std::fs::rename(dir.path().join("away"), &inner).unwrap();
    assert_eq!(words(folder.scan().events), [format!("!manifests {} 0", inner.display())]);
}

#[test]
fn files_that_are_being_written_are_left_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    let written = |age: Duration| {
        let at = std::time::SystemTime::now() - age;
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    };
    write(dir.path(), "a.yaml", &web("a", "10.96.0.1"));
    let mut folder = Folder::new(settings(dir.path()));
    folder.scan();
    // Truncated and about to be written. A clock that stands before the file's time would be no
    // reason to wait, so the time is now and the scan has to be quick: it may see the file settled.
    std::fs::File::create(&path).unwrap();
    written(Duration::ZERO);
    let scan = folder.scan();
    if scan.unsettled {
        assert_eq!(words(scan.events), [""; 0]);
        written(Duration::from_secs(1));
        assert_eq!(words(folder.scan().events), ["-a"]);
    }
}

/// Writes a file whose time lies back by more than `SETTLE` and less than `QUIET`.
fn write_just_now(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    let then = std::time::SystemTime::now() - super::folder::SETTLE * 2;
    std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn half_of_a_file_changes_nothing_until_its_writer_is_quiet() {
    let whole = format!("{}---{}", web("a", "10.96.0.1"), web("b", "10.96.0.2"));
    let first = web("a", "10.96.0.1");
    let cut_off = &whole[..whole.len() - 2];
    let broken = format!("{first}---\nkind: [");
    let rows: [(&str, &[&str]); 4] = [
        ("", &["-a", "-b"]),
        (&first, &["-b"]),
        (cut_off, &["+b"]),
        (&broken, &["!manifest a.yaml:11 1"]),
    ];
    for (half, at_last) in rows {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.yaml", &whole);
        let mut folder = Folder::new(settings(dir.path()));
        folder.scan();
        write_just_now(dir.path(), "a.yaml", half);
        for _ in 0..2 {
            let scan = folder.scan();
            assert_eq!((words(scan.events), scan.unsettled), (vec![], true), "{half:?}");
        }
        // The writer went on: as if nothing had been.
        write_just_now(dir.path(), "a.yaml", &whole);
        let scan = folder.scan();
        assert_eq!((words(scan.events), scan.unsettled), (vec![], false), "{half:?}");
        // It did not.
        write(dir.path(), "a.yaml", half);
        assert_eq!(words(folder.scan().events), at_last, "{half:?}");
    }
}

#[test]
fn a_file_that_is_deleted_while_it_is_written_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &web("a", "10.96.0.1"));
    let mut folder = Folder::new(settings(dir.path()));
    folder.scan();
    write_just_now(dir.path(), "a.yaml", "");
    assert!(words(folder.scan().events).is_empty());
    std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(words(folder.scan().events), ["-a"]);
}

#[test]
fn only_the_own_node_counts() {
    let dir = tempfile::tempdir().unwrap();
    let node = |name, zone| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    \
             topology.kubernetes.io/zone: {zone}\n"
        )
    };
    let both = format!("{}---\n{}", node("other-node", "b"), node("this-node", "a"));
    write(dir.path(), "nodes.yaml", &both);
    let mut folder = Folder::new(settings(dir.path()));
    assert_eq!(words(folder.scan().events), ["zone Some(\"a\")", "=[]"]);
}

// === Watch ===

#[tokio::test]
async fn edits_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), web("a", "10.96.0.1")).unwrap();
    let (sender, mut events) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let settings = settings(dir.path());
    let task = tokio::spawn(run(settings, sender, shutdown.clone()));
    let mut next = async || loop {
        let event = events.recv().await.expect("the source runs");
        if let Some(word) = words(vec![event]).pop() {
            return word;
        }
    };
    assert_eq!(next().await, "=[\"a\"]");
    std::fs::write(dir.path().join("b.yaml"), web("b", "10.96.0.2")).unwrap();
    assert_eq!(next().await, "+b");
    std::fs::write(dir.path().join(".tmp"), web("b", "10.96.0.3")).unwrap();
    std::fs::rename(dir.path().join(".tmp"), dir.path().join("b.yaml")).unwrap();
    assert_eq!(next().await, "+b");
    std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(next().await, "-a");
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_folder_that_is_not_there_at_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, _events) = mpsc::channel(1);
    let settings = settings(&dir.path().join("none"));
    let error = run(settings, sender, CancellationToken::new()).await.unwrap_err();
    assert!(format!("{error:#}").contains("--manifests"), "{error:#}");
}
