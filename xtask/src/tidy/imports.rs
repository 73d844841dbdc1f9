//! Which file of a crate imports which.
//!
//! An import is a `use` line, or a path in the code or inside a macro, whose item another file
//! defines; re-exports are followed to that file, globs too. Left out are test code, `mod` lines and
//! names of modules alone: a re-export counts once its name is used. What a macro defines belongs to
//! the module by which it is named. Calls of methods name no file and are not seen.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use syn::Item;

use super::module::{Module, is_test};

/// Re-exports of re-exports that are followed.
const LONGEST_CHAIN: u8 = 16;

/// The files of a crate and what they import.
pub(super) struct Imports {
    /// Paths of the files below the crate's `src/`; those of test code are left out.
    pub(super) files: Vec<String>,
    /// The imports, in the order of the files and of their lines.
    pub(super) imports: Vec<Import>,
}

/// One file names something that another one defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// Index of the file that imports.
    pub(super) from: usize,
    /// Index of the file that defines.
    pub(super) to: usize,
    /// Line of the import.
    pub(super) line: usize,
    /// The path as it is written.
    pub(super) path: String,
}

impl Imports {
    /// Reads the sources of a crate: pairs of a path below `src/` and a text. A crate with a library
    /// and a program is its library.
    ///
    /// # Errors
    /// When a file is no Rust, or none is the crate's root.
    pub(super) fn read(sources: &[(&str, &str)]) -> Result<Self> {
        let roots = ["lib.rs", "main.rs"];
        let root = roots.into_iter().find(|root| sources.iter().any(|(path, _)| path == root));
        let root = root.context("no lib.rs and no main.rs")?;
        let mut krate = Crate { sources, files: Vec::new(), nodes: Vec::new() };
        krate.add_file(root, None)?;
        Ok(krate.imports())
    }

    /// An import as a finding shows it.
    pub(super) fn line(&self, import: &Import) -> String {
        let (from, to) = (&self.files[import.from], &self.files[import.to]);
        format!("{from}:{} imports {to}: {}", import.line, import.path)
    }
}

/// A module in its crate: a file, or a part of one.
struct Node {
    module: Module,
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
}

struct Crate<'a> {
    sources: &'a [(&'a str, &'a str)],
    files: Vec<String>,
    nodes: Vec<Node>,
}

impl Crate<'_> {
    /// Adds a file with all modules below it; the number of its module.
    fn add_file(&mut self, path: &str, parent: Option<usize>) -> Result<Option<usize>> {
        let Some((_, text)) = self.sources.iter().find(|(known, _)| *known == path) else {
            return Ok(None);
        };
        let parsed = syn::parse_file(text).with_context(|| format!("parse {path}"))?;
        let file = self.files.len();
        self.files.push(path.to_owned());
        self.add_module(file, parent, &parsed.items).map(Some)
    }

    fn add_module(&mut self, file: usize, parent: Option<usize>, items: &[Item]) -> Result<usize> {
        let node = self.nodes.len();
        let module = Module::read(items);
        self.nodes.push(Node { module, file, parent, children: BTreeMap::new() });
        for item in items {
            let Item::Mod(inner) = item else { continue };
            if is_test(&inner.attrs) {
                continue;
            }
            let name = inner.ident.to_string();
            let child = match &inner.content {
                Some((_, items)) => Some(self.add_module(file, Some(node), items)?),
                None => self.add_child(&name, node)?,
            };
            self.nodes[node].children.extend(child.map(|child| (name, child)));
        }
        Ok(node)
    }

    /// Adds the file of `mod name;`.
    fn add_child(&mut self, name: &str, parent: usize) -> Result<Option<usize>> {
        let file = &self.files[self.nodes[parent].file];
        let folder = match file.strip_suffix(".rs").unwrap_or(file) {
            "lib" | "main" => String::new(),
            path => format!("{}/", path.strip_suffix("/mod").unwrap_or(path)),
        };
        match self.add_file(&format!("{folder}{name}.rs"), Some(parent))? {
            Some(child) => Ok(Some(child)),
            None => self.add_file(&format!("{folder}{name}/mod.rs"), Some(parent)),
        }
    }

    fn imports(self) -> Imports {
        let mut imports = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for name in &node.module.names {
                let (from, line) = (node.file, name.line);
                if let Some(to) = self.file_of(index, &name.path, 0)
                    && to != from
                {
                    imports.push(Import { from, to, line, path: name.path.join("::") });
                }
            }
        }
        imports.sort_by_key(|import| (import.from, import.line));
        Imports { files: self.files, imports }
    }

    /// The file that defines what `path` names in a module; `None` for another crate's things, local
    /// ones and modules.
    fn file_of(&self, node: usize, path: &[String], depth: u8) -> Option<usize> {
        let (head, rest) = path.split_first()?;
        let here = &self.nodes[node];
        match head.as_str() {
            "crate" => self.file_in(0, rest, depth),
            "self" => self.file_in(node, rest, depth),
            "super" => self.file_in(here.parent?, rest, depth),
            name if here.children.contains_key(name) || here.module.bound.contains_key(name) => {
                self.file_in(node, path, depth)
            }
            _ => None,
        }
    }

    /// The same for a path that starts inside of a module.
    fn file_in(&self, node: usize, path: &[String], depth: u8) -> Option<usize> {
        let (name, rest) = path.split_first()?;
        let here = &self.nodes[node];
        if name == "super" {
            return self.file_in(here.parent?, rest, depth);
        }
        if name == "*" {
            return Some(here.file);
        }
        if let Some(child) = here.children.get(name)
            && !(rest.is_empty() && here.module.has(name))
        {
            return self.file_in(*child, rest, depth);
        }
        if here.module.items.contains(name) {
            return Some(here.file);
        }
        if depth == LONGEST_CHAIN {
            return None;
        }
        if let Some(bound) = here.module.bound.get(name) {
            let path = [bound.as_slice(), rest].concat();
            return self.file_of(node, &path, depth + 1);
        }
        let brought = here.module.globs.iter().find_map(|glob| {
            let from = self.module_of(node, glob)?;
            self.nodes[from].has(name).then(|| self.file_in(from, path, depth + 1))
        });
        brought.unwrap_or(Some(here.file))
    }

    /// The module that a path names.
    fn module_of(&self, node: usize, path: &[String]) -> Option<usize> {
        let mut at = match path.first()?.as_str() {
            "crate" => 0,
            "self" => node,
            "super" => self.nodes[node].parent?,
            name => *self.nodes[node].children.get(name)?,
        };
        for name in &path[1..] {
            at = match name.as_str() {
                "super" => self.nodes[at].parent?,
                name => *self.nodes[at].children.get(name)?,
            };
        }
        Some(at)
    }
}

impl Node {
    fn has(&self, name: &str) -> bool {
        self.module.has(name) || self.children.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports of `a.rs`, a module of a crate with `b/mod.rs`, `b/c.rs` and `d.rs`.
    fn of(text: &str) -> Vec<String> {
        let sources = [
            ("main.rs", "mod a;\nmod b;\nmod d;\npub(crate) use d::D;\nfn main() {}\n"),
            ("a.rs", text),
            (
                "b/mod.rs",
                "mod c;\npub use c::{C, other as renamed};\npub use c::deep::*;\npub struct B;\n",
            ),
            ("b/c.rs", "pub struct C;\npub fn other() {}\npub mod deep { pub struct Deep; }\n"),
            ("d.rs", "pub struct D;\npub fn d() {}\n"),
        ];
        let imports = Imports::read(&sources).unwrap();
        let of_a = imports.imports.iter().filter(|import| imports.files[import.from] == "a.rs");
        of_a.map(|import| imports.files[import.to].clone()).collect()
    }

    #[test]
    fn groups_super_and_paths_in_code_are_understood() {
        assert_eq!(of("use crate::{b::{B}, d::{self, D}};\n"), ["b/mod.rs", "d.rs"]);
        assert_eq!(of("use super::d::D as E;\n"), ["d.rs"]);
        assert_eq!(of("use crate::d;\nfn f() { d::d() }\n"), ["d.rs"]);
        assert_eq!(of("fn f(x: crate::b::B) -> super::D {}\n"), ["b/mod.rs", "d.rs"]);
        assert_eq!(of("fn f() { println!(\"{}\", crate::d::d()) }\n"), ["d.rs"]);
        assert_eq!(of("use crate::d::*;\n"), ["d.rs"]);
    }

    #[test]
    fn re_exports_are_followed() {
        assert_eq!(of("use crate::b::C;\n"), ["b/c.rs"]);
        assert_eq!(of("use crate::b::{renamed, Deep};\n"), ["b/c.rs", "b/c.rs"]);
        assert_eq!(of("use crate::D;\n"), ["d.rs"]);
        assert_eq!(of("use crate::b::made_by_a_macro;\n"), ["b/mod.rs"]);
    }

    #[test]
    fn modules_alone_tests_and_other_crates_are_no_imports() {
        for text in [
            "use crate::{b, d};\n",
            "pub use crate::d::D;\n",
            "use std::fs;\nuse anyhow::Result;\nfn f() { fs::read(x).d() }\n",
            "#[cfg(test)]\nmod tests { use crate::d::D; }\n",
            "#[cfg(test)]\nfn f() { crate::d::d() }\n",
            "impl A { #[cfg(all(test, x))] fn f() { crate::d::d() } }\n",
            "fn f() { println!(\"{}\", x.d) }\n",
            "mod inner { use super::A; }\nstruct A;\n",
        ] {
            assert_eq!(of(text), Vec::<String>::new(), "{text}");
        }
    }
}
