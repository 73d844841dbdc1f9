//! Files that nobody would write: reading one never panics, and says what is wrong.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::file::{Contents, Item, read};
use crate::source::Verdict;

/// A file with one object of each kind, in block and in flow style, with an anchor and an alias.
const GOOD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: &labels {app: "web"}}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:10:96::a"]
  selector: *labels
  type: LoadBalancer
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
status: {loadBalancer: {ingress: [{ip: 203.0.113.20}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- addresses: ["10.244.1.5"]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node-a
  hints: {forZones: [{name: a}]}
---
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
   "spec": {"cidrs": ["10.112.0.0/16"]}},
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "shop"},
   "spec": {"containers": [{"name": "x"}], "nodeName": "node-a"},
   "status": {"phase": "Running", "podIP": "10.244.1.5", "podIPs": [{"ip": "fd00::5"}]}}]}
"#;

/// What means something in YAML, JSON or an object.
const TOKENS: [&str; 32] = [
    "---\n",
    "...\n",
    "\n",
    "  ",
    "- ",
    ": ",
    ", ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "&a ",
    "*a",
    "*labels",
    "<<: ",
    "!!binary ",
    "!<x> ",
    "%YAML 9.9\n",
    "|\n",
    ">-\n",
    "? ",
    "# ",
    "null",
    "~",
    "1e999",
    "-1",
    "99999999999999999999",
    "\u{feff}",
    "\t",
    "\u{0}",
];

/// One change of a text: a cut, a token, a piece of itself elsewhere, or any text.
#[derive(Clone, Debug)]
enum Edit {
    Cut(Index, Index),
    Put(Index, String),
    Copy(Index, Index, Index),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        (index(), index()).prop_map(|(from, to)| Edit::Cut(from, to)),
        (index(), select(&TOKENS[..])).prop_map(|(at, token)| Edit::Put(at, token.to_owned())),
        (index(), any::<String>()).prop_map(|(at, text)| Edit::Put(at, text)),
        (index(), index(), index()).prop_map(|(from, to, at)| Edit::Copy(from, to, at)),
    ]
}

fn edit(text: &mut String, edit: &Edit) {
    let place = |index: &Index| text.floor_char_boundary(index.index(text.len() + 1));
    // Pieces are short, so that most of the text keeps its meaning.
    let piece = |from: &Index, to: &Index| {
        let start = place(from);
        start..text.floor_char_boundary((start + to.index(40)).min(text.len()))
    };
    match edit {
        Edit::Cut(from, to) => {
            let range = piece(from, to);
            text.replace_range(range, "");
        }
        Edit::Put(at, new) => {
            let at = place(at);
            text.insert_str(at, new);
        }
        Edit::Copy(from, to, at) => {
            let (new, at) = (text[piece(from, to)].to_owned(), place(at));
            text.insert_str(at, &new);
        }
    }
}

/// Everything that is said of a file can be shown, and what is broken is said.
fn check(contents: &Contents) {
    assert!(!contents.broken || !contents.problems.is_empty(), "broken, and nobody is told");
    for problem in &contents.problems {
        assert!(problem.to_string().contains("web."), "{problem}");
    }
    for (key, item) in &contents.items {
        let problems = match &**item {
            Item::Service(parsed) => {
                let unreadable = parsed.verdict == Verdict::Unreadable;
                assert!(!unreadable || !parsed.problems.is_empty(), "{key}");
                &parsed.problems[..]
            }
            Item::Slice(parsed) => &parsed.problems[..],
            Item::ServiceCidr(parsed) => &parsed.problems[..],
            Item::Pod(parsed) => &parsed.problems[..],
            Item::Node(_) => &[],
        };
        for problem in problems {
            assert!(!problem.to_string().is_empty(), "{key}");
        }
    }
}

#[test]
fn the_good_file_is_read_as_a_whole() {
    let contents = read("web.yaml", GOOD);
    assert_eq!((contents.items.len(), contents.problems.as_slice()), (5, &[][..]));
}

/// Deeper than any object is, and aliases that would fill the memory.
#[test]
fn nesting_and_aliases_are_bounded() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let all = vec![format!("*a{}", i - 1); 9].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{all}]\n"));
    }
    let deep = |open: &str| open.repeat(100_000);
    for text in [deep("["), deep("{a: "), deep("- "), deep("? "), laughs] {
        let contents = read("web.yaml", &text);
        assert!(contents.broken, "{:?}", &text[..40]);
        check(&contents);
    }
    for text in [deep("["), deep("{\"a\":")] {
        assert!(read("web.json", &text).broken);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_reported(text in any::<String>()) {
        check(&read("web.yaml", &text));
        check(&read("web.json", &text));
    }

    #[test]
    fn any_tokens_are_read_or_reported(tokens in vec(select(&TOKENS[..]), 0..40)) {
        let text = tokens.concat();
        check(&read("web.yaml", &text));
        check(&read("web.json", &text));
    }

    #[test]
    fn an_edited_file_is_read_or_reported(edits in vec(any_edit(), 1..8)) {
        let mut text = GOOD.to_owned();
        edits.iter().for_each(|change| edit(&mut text, change));
        check(&read("web.yaml", &text));
    }

    /// Documents end at their markers, whatever stands in the one before.
    #[test]
    fn a_broken_document_does_not_hide_the_next_one(edits in vec(any_edit(), 1..8)) {
        let mut text = GOOD.to_owned();
        edits.iter().for_each(|change| edit(&mut text, change));
        let last = "apiVersion: v1\nkind: Node\nmetadata:\n  name: the-last\n";
        let contents = read("web.yaml", &format!("{text}\n---\n{last}"));
        let found = contents.items.keys().any(|key| key.to_string() == "Node the-last");
        prop_assert!(found, "{:?}", contents.problems);
    }
}
