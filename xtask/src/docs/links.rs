//! Links of the pages: each leads to a file of the repository, and to a heading that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Pages outside of `docs/`.
const OTHERS: [&str; 4] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "deploy/helm/kproxy/README.md"];

/// What a page leads to, and what leads to it.
pub(super) struct Page {
    pub(super) links: Vec<Link>,
    /// Names of its headings.
    anchors: BTreeSet<String>,
}

/// A link within the repository.
pub(super) struct Link {
    line: usize,
    /// Path as it is written; empty: the page itself.
    pub(super) target: String,
    anchor: Option<String>,
}

/// How many links there are within the repository, and those that lead nowhere.
pub(super) fn check(root: &Path, pages: &[PathBuf]) -> Result<(usize, Vec<String>)> {
    let others = OTHERS.iter().map(|name| root.join(name));
    let all: Vec<PathBuf> = pages.iter().cloned().chain(others).collect();
    let mut read_pages = BTreeMap::new();
    for path in &all {
        read_pages.insert(path.clone(), read(path)?);
    }
    let (mut count, mut findings) = (0, Vec::new());
    for (path, page) in &read_pages {
        let folder = path.parent().unwrap_or(root);
        for link in &page.links {
            count += 1;
            let place = path.strip_prefix(root).unwrap_or(path).display();
            let target = match link.target.as_str() {
                "" => path.clone(),
                target => plain(&folder.join(target)),
            };
            if !target.exists() {
                findings.push(format!("{place}:{}: there is no {}", link.line, link.target));
                continue;
            }
            let Some(anchor) = &link.anchor else { continue };
            let known = read_pages.get(&target).is_some_and(|page| page.anchors.contains(anchor));
            if !known {
                findings.push(format!(
                    "{place}:{}: {} has no heading #{anchor}",
                    link.line,
                    target.strip_prefix(root).unwrap_or(&target).display()
                ));
            }
        }
    }
    Ok((count, findings))
}

/// Without `..`, as links are never through a link of the file system.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

pub(super) fn read(path: &Path) -> Result<Page> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Page {
    let mut page = Page { links: Vec::new(), anchors: BTreeSet::new() };
    let mut heading: Option<String> = None;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                let line = text[..range.start].matches('\n').count() + 1;
                page.links.extend(within(&dest_url, line));
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some(heading) = heading.take() {
                    page.anchors.insert(anchor(&heading, &page.anchors));
                }
            }
            _ => {}
        }
    }
    page
}

/// A link that is not to somewhere else.
fn within(url: &str, line: usize) -> Option<Link> {
    if url.contains("://") || url.starts_with("mailto:") {
        return None;
    }
    let (target, anchor) = match url.split_once('#') {
        Some((target, anchor)) => (target, Some(anchor.to_owned())),
        None => (url, None),
    };
    Some(Link { line, target: target.to_owned(), anchor })
}

/// The name of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str, taken: &BTreeSet<String>) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    let name: String = kept.collect::<String>().trim().to_lowercase().replace(' ', "-");
    let mut number = 0;
    let mut free = name.clone();
    while taken.contains(&free) {
        number += 1;
        free = format!("{name}-{number}");
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_are_read() {
        let page = parse(
            "# A `b`, c's\n## Twice\n## Twice\n[x](y.md#z) [w](https://example.org)\n\n\
             | a |\n|---|\n| [t](#twice-1) |\n\n```text\n[no](no.md)\n```\n![i](../i.png)\n",
        );
        let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["a-b-cs", "twice", "twice-1"]);
        let links: Vec<_> =
            page.links.iter().map(|link| (link.target.as_str(), link.anchor.as_deref())).collect();
        assert_eq!(links, [("y.md", Some("z")), ("", Some("twice-1")), ("../i.png", None)]);
        assert_eq!(page.links[0].line, 4);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let folder = std::env::temp_dir().join(format!("kproxy-links-{}", std::process::id()));
        fs::create_dir_all(folder.join("deploy/helm/kproxy")).unwrap();
        for name in OTHERS {
            fs::write(folder.join(name), "# Here\n").unwrap();
        }
        let page = folder.join("a.md");
        let text = "# B\n[a](README.md#here) [b](README.md#there) [c](gone.md) [d](#b) [e](#c)\n";
        fs::write(&page, text).unwrap();
        let (count, findings) = check(&folder, &[page]).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((count, findings.len()), (5, 3), "{findings:?}");
        assert!(findings.iter().all(|finding| finding.starts_with("a.md:")), "{findings:?}");
    }
}
