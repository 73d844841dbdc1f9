//! No circle of imports: files of a crate form layers, so each can be read with those below it alone.
//!
//! `mod` lines are no imports, so a module may declare and re-export what imports from it; when it
//! calls it too, that is a circle. See [`super::imports`] for what counts.

use petgraph::{algo::tarjan_scc, graph::DiGraph};

use super::imports::Imports;

/// Crates without circles.
pub(super) const ENFORCED: [&str; 6] =
    ["kproxy", "kproxy-build", "kproxy-common", "kproxy-ebpf", "kproxy-lab", "xtask"];

/// Each circle of a crate: its files, and one import for each of its edges.
pub(super) fn check(name: &str, imports: &Imports) -> Vec<String> {
    let edges = imports.imports.iter().map(|import| (import.from, import.to));
    let graph = DiGraph::<(), (), usize>::from_edges(edges);
    let parts = tarjan_scc(&graph).into_iter().filter(|files| files.len() > 1);
    let circles = parts.map(|files| files.iter().map(|file| file.index()).collect::<Vec<_>>());
    circles.map(|files| format!("{name}: {}", describe(imports, &files))).collect()
}

fn describe(imports: &Imports, files: &[usize]) -> String {
    let mut text = format!("a circle of imports between {} files", files.len());
    let mut edges = Vec::new();
    for import in &imports.imports {
        let edge = (import.from, import.to);
        if files.contains(&edge.0) && files.contains(&edge.1) && !edges.contains(&edge) {
            edges.push(edge);
            text += &format!("\n    {}", imports.line(import));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(sources: &[(&str, &str)]) -> String {
        check("k", &Imports::read(sources).unwrap()).join("\n")
    }

    #[test]
    fn a_circle_is_found_with_one_import_an_edge() {
        let found = circles(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "use crate::b::{B, C};\npub struct A;\n"),
            ("b.rs", "pub struct B;\npub struct C;\nfn f() { super::a::A; }\n"),
            ("c.rs", "use crate::a::A;\n"),
        ]);
        assert_eq!(
            found,
            "k: a circle of imports between 2 files\
             \n    a.rs:1 imports b.rs: crate::b::B\
             \n    b.rs:3 imports a.rs: super::a::A"
        );
    }

    #[test]
    fn a_chain_is_none() {
        let sources = [
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("a.rs", "use crate::b::B;\npub struct A;\n"),
            ("b.rs", "pub struct B;\n"),
        ];
        assert_eq!(circles(&sources), "");
    }

    #[test]
    fn a_module_that_calls_what_imports_from_it_is_a_circle() {
        let child = ("a/b.rs", "use super::A;\npub fn f(a: A) {}\n");
        let of = |parent| circles(&[("lib.rs", "mod a;\n"), ("a/mod.rs", parent), child]);
        assert_eq!(of("mod b;\npub use b::f;\npub struct A;\n"), "");
        assert!(of("mod b;\npub struct A;\nfn g() { b::f(A) }\n").contains("2 files"));
        assert!(of("mod b;\npub use b::f;\npub struct A;\nfn g() { f(A) }\n").contains("2 files"));
    }
}
