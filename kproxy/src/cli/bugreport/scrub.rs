//! Takes out what looks like a secret.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands in its place.
const REMOVED: &str = "[removed]";

/// Keys, also as kubeconfigs write them; tokens; passwords in addresses; values under names that say what they are.
/// What is before the secret is the first group, what is behind it the second.
const PATTERNS: [&str; 6] = [
    r"()-----BEGIN [A-Z0-9 ]+-----[\s\S]*?(?:-----END [A-Z0-9 ]+-----|\z)()",
    r"()LS0tLS1CRUdJTi[A-Za-z0-9+/=]+()",
    r"()eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?()",
    r"((?i:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}()",
    r"(://)[^/@\s]+(@)",
    concat!(
        r#"((?i:[a-z_-]*(?:token|passw(?:or)?d|secret|api-?key|authorization)|client-(?:key|certificate)-data)"#,
        r#"\\?["']?\s*[:=]\s*\\?["']?)[^\s"'\\,;{}\[\]][^\s"'\\,;}\]]*()"#
    ),
];

static COMPILED: LazyLock<Vec<Regex>> =
    LazyLock::new(|| PATTERNS.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect());

/// The text without them.
pub(super) fn scrub(text: &str) -> String {
    COMPILED.iter().fold(text.to_owned(), |text, pattern| {
        let replaced = |found: &Captures<'_>| format!("{}{REMOVED}{}", &found[1], &found[2]);
        pattern.replace_all(&text, replaced).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        assert_eq!(COMPILED.len(), PATTERNS.len());
    }

    #[test]
    fn what_looks_like_a_secret_goes_and_the_rest_stays() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----";
        for (text, left) in [
            (format!("a\n{key}\nb"), "a\n[removed]\nb"),
            ("-----BEGIN EC PRIVATE KEY-----\ncut off".to_owned(), "[removed]"),
            ("client-key-data: LS0tLS1CRUdJTiBQUk".to_owned(), "client-key-data: [removed]"),
            ("eyJhbGciOiJI.eyJpc3MiOi.c2ln end".to_owned(), "[removed] end"),
            ("Authorization: Bearer abcdef123456".to_owned(), "Authorization: [removed] [removed]"),
            (
                "https://admin:hunter2@10.0.0.1:6443/a".to_owned(),
                "https://[removed]@10.0.0.1:6443/a",
            ),
            (r#"{"token": "hunter2", "a": 1}"#.to_owned(), r#"{"token": "[removed]", "a": 1}"#),
            ("KUBE_TOKEN=hunter2 b".to_owned(), "KUBE_TOKEN=[removed] b"),
            (
                "no secrets in default/web:http 10.96.0.1:443".to_owned(),
                "no secrets in default/web:http 10.96.0.1:443",
            ),
        ] {
            assert_eq!(scrub(&text), left, "{text}");
        }
    }
}
