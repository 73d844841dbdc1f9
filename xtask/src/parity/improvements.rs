//! The documented differences: `docs/improvements.md`.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

use crate::workspace;

/// Case id → why kproxy differs, in one paragraph.
///
/// A difference is a heading `## ID[, ID…] title` and the paragraph below it.
///
/// # Errors
/// When the page cannot be read.
pub(super) fn read() -> Result<BTreeMap<String, String>> {
    let path = workspace::root().join("docs/improvements.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        let paragraph = body.trim_start().split("\n\n").next().unwrap_or_default();
        let why = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        for id in heading.split([' ', ',']).take_while(|word| is_id(word) || word.is_empty()) {
            if !id.is_empty() {
                found.insert(id.to_owned(), why.clone());
            }
        }
    }
    found
}

fn is_id(word: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    word.split_once('-')
        .is_some_and(|(area, rest)| area.bytes().all(|b| b.is_ascii_uppercase()) && number(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_name_cases_and_paragraphs_reasons() {
        let text =
            "# Page\nIntro.\n\n## VER-05, SVC-02 Client addresses\nThey are\nkept.\n\nMore.\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found["SVC-02"], "They are kept.");
    }
}
