//! What the pages tell people to type can be typed: each command line of kproxy in a code block of `docs/`, the README
//! and the chart is parsed as by the program itself.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use crate::cli::args::{Cli, KubeProxyCli};

/// Programs that run another one, and their words before it.
const RUNNERS: [&str; 2] = ["sudo", "$"];

/// A command line of kproxy, and where it stands.
struct Line {
    place: String,
    words: Vec<String>,
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(self::pages(&path));
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
    pages
}

/// The lines of code blocks that are typed: all of `sh`, those behind a `$` of others.
fn typed(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut block: Option<String> = None;
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.to_owned()) };
            continue;
        }
        let Some(language) = &block else { continue };
        if language != "sh" && !line.starts_with("$ ") && open.is_none() {
            continue;
        }
        let (at, before) = open.take().unwrap_or((index + 1, String::new()));
        let whole = format!("{before}{}", line.trim_end_matches('\\'));
        if line.ends_with('\\') {
            open = Some((at, whole));
        } else {
            lines.push((at, whole));
        }
    }
    lines
}

/// The words of kproxy in a line, from its name on; none if it runs something else.
fn of_kproxy(line: &str) -> Option<Vec<String>> {
    let words = shlex::split(line)?;
    let end = words.iter().position(|word| ["|", "&&", ";", ">", "&"].contains(&word.as_str()));
    let words = &words[..end.unwrap_or(words.len())];
    // What kubectl runs in a container stands behind its `--`.
    let start = match words.first()?.as_str() {
        "kubectl" => words.iter().position(|word| word == "--")? + 1,
        _ => words.iter().position(|word| !RUNNERS.contains(&word.as_str()))?,
    };
    let name = words.get(start)?.rsplit('/').next()?;
    ["kproxy", "kube-proxy"].contains(&name).then(|| words[start..].to_vec())
}

fn lines_of(place: &str, text: &str) -> Vec<Line> {
    let line = |(at, line): (usize, String)| {
        Some(Line { place: format!("{place}:{at}"), words: of_kproxy(&line)? })
    };
    typed(text).into_iter().filter_map(line).collect()
}

fn parse(words: &[String]) -> Result<(), clap::Error> {
    if words[0].ends_with("kube-proxy") {
        KubeProxyCli::try_parse_from(words).map(drop)
    } else {
        Cli::try_parse_from(words).map(drop)
    }
}

#[test]
fn every_command_of_the_pages_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = pages(&root.join("docs"));
    files.extend(["README.md", "deploy/helm/kproxy/README.md"].map(|name| root.join(name)));
    let mut count = 0;
    for file in files {
        let place = file.strip_prefix(root).unwrap().display().to_string();
        for line in lines_of(&place, &fs::read_to_string(&file).unwrap()) {
            let Line { place, words } = line;
            if let Err(error) = parse(&words) {
                panic!("{place}: `{}`: {error}", words.join(" "));
            }
            count += 1;
        }
    }
    assert!(count > 20, "only {count} were found");
    // `cargo xtask docs --check` reads it.
    println!("commands: {count}");
}

#[test]
fn commands_are_found_and_bad_ones_refused() {
    let page = "`kproxy no`\n```text\nkproxy no\n$ kproxy status --live\n```\n\n   ```sh\n   \
                kubectl -n a exec b -- kproxy dump \\\n     services  # those\n   sudo kproxy cleanup | cat\n   \
                kube-proxy --config=/x\n   echo kproxy\n   ```\n";
    let lines = lines_of("page", page);
    let found: Vec<_> = lines.iter().map(|line| line.words.join(" ")).collect();
    let wanted = [
        "kproxy status --live",
        "kproxy dump services",
        "kproxy cleanup",
        "kube-proxy --config=/x",
    ];
    assert_eq!(found, wanted);
    assert_eq!(lines[1].place, "page:8");
    assert!(lines.iter().all(|line| parse(&line.words).is_ok()));
    for bad in
        ["kproxy stats", "kproxy dump everything", "kproxy status --lively", "kproxy explain"]
    {
        assert!(parse(&shlex::split(bad).unwrap()).is_err(), "{bad}");
    }
}
