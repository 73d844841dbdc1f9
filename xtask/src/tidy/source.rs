//! A source file as the rules see it.

/// A file, its lines, and its lines without comments and strings.
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: String,
    /// The lines as they are.
    pub(crate) lines: Vec<String>,
    /// The same lines, comments and the insides of strings removed.
    pub(crate) code: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            code: strip(text).lines().map(str::to_owned).collect(),
        }
    }

    /// Numbers (from 1) of the lines of code that hold `word` as a word of its own.
    pub(crate) fn lines_with(&self, word: &str) -> impl Iterator<Item = usize> {
        let found = |line: &String| has_word(line, word);
        self.code.iter().enumerate().filter(move |(_, line)| found(line)).map(|(i, _)| i + 1)
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word)
    })
}

/// Where [`strip`] is in the text.
enum At {
    Code,
    LineComment,
    BlockComment(u32),
    /// In a string that ends at a quote and so many hashes; `escapes` if a backslash means something.
    Text {
        hashes: usize,
        escapes: bool,
    },
}

/// Removes comments and the insides of strings and keeps the line breaks.
fn strip(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = At::Code;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        if c == '\n' {
            out.push('\n');
            if matches!(at, At::LineComment) {
                at = At::Code;
            }
            rest = &rest[taken..];
            continue;
        }
        match &mut at {
            At::Code if rest.starts_with("//") => at = At::LineComment,
            At::Code if rest.starts_with("/*") => (at, taken) = (At::BlockComment(1), 2),
            At::Code => {
                if let Some((start, hashes)) = raw_string(rest, &out) {
                    (at, taken) = (At::Text { hashes, escapes: false }, start);
                } else if c == '"' {
                    at = At::Text { hashes: 0, escapes: true };
                } else if rest.starts_with("'\"'") {
                    taken = 3;
                } else if rest.starts_with("'\\\"'") {
                    taken = 4;
                }
                out.push_str(&rest[..taken]);
            }
            At::LineComment => {}
            At::BlockComment(depth) => {
                if rest.starts_with("/*") {
                    (*depth, taken) = (*depth + 1, 2);
                } else if rest.starts_with("*/") {
                    (*depth, taken) = (*depth - 1, 2);
                    if *depth == 0 {
                        at = At::Code;
                    }
                }
            }
            At::Text { hashes, escapes } => {
                let end = format!("\"{}", "#".repeat(*hashes));
                if *escapes && c == '\\' {
                    taken += rest[1..]
                        .chars()
                        .next()
                        .map_or(0, |next| if next == '\n' { 0 } else { next.len_utf8() });
                } else if rest.starts_with(&end) {
                    out.push_str(&end);
                    (at, taken) = (At::Code, end.len());
                }
            }
        }
        rest = &rest[taken..];
    }
    out
}

/// Length of a raw string's opening (`r#"`) and the number of its hashes.
fn raw_string(rest: &str, before: &str) -> Option<(usize, usize)> {
    let after = rest.strip_prefix('r')?;
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b') {
        return None;
    }
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some((hashes + 2, hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe\n/* */ unsafe */ unsafe {}\n\
                    let b = r#\"unsafe\"#; let c = '\"'; unsafe_fn();\n";
        let source = Source::new("a.rs", text);
        assert_eq!(source.lines_with("unsafe").collect::<Vec<_>>(), [3]);
        assert_eq!(source.code.len(), 4);
    }
}
