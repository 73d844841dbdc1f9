//! What a module defines, brings in and names: from its syntax tree.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, ImplItemFn, Item, ItemUse, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module without the test code in it; the modules below it are modules of their own.
#[derive(Default)]
pub(super) struct Module {
    /// Names that it defines.
    pub(super) items: BTreeSet<String>,
    /// Names that its `use` lines bring in, with their paths.
    pub(super) bound: BTreeMap<String, Vec<String>>,
    /// Paths of which its `use` lines bring in everything.
    pub(super) globs: Vec<Vec<String>>,
    /// The paths in its code.
    pub(super) names: Vec<Name>,
}

/// A path in the code of a module; its last part is `*` when everything is brought in.
pub(super) struct Name {
    /// The path.
    pub(super) path: Vec<String>,
    /// Where it begins.
    pub(super) line: usize,
}

impl Module {
    /// Reads a module's items.
    pub(super) fn read(items: &[Item]) -> Self {
        let mut module = Self::default();
        for item in items.iter().filter(|item| !matches!(item, Item::Mod(_))) {
            module.visit_item(item);
        }
        module
    }

    /// Whether it defines a name or brings it in.
    pub(super) fn has(&self, name: &str) -> bool {
        self.items.contains(name) || self.bound.contains_key(name)
    }

    fn name(&mut self, path: Vec<String>, line: usize) {
        self.names.push(Name { path, line });
    }

    /// A `use` tree below `path`. What is brought in for others is no use by itself.
    fn brings(&mut self, tree: &UseTree, mut path: Vec<String>, for_others: bool) {
        let (line, name) = match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                return self.brings(&inner.tree, path, for_others);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.brings(tree, path.clone(), for_others);
                }
                return;
            }
            UseTree::Glob(glob) => {
                self.globs.push(path.clone());
                path.push("*".to_owned());
                (glob.star_token.spans[0].start().line, None)
            }
            UseTree::Name(name) if name.ident == "self" => {
                (name.ident.span().start().line, path.last().cloned())
            }
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                (name.ident.span().start().line, path.last().cloned())
            }
            UseTree::Rename(name) => {
                if name.ident != "self" {
                    path.push(name.ident.to_string());
                }
                (name.ident.span().start().line, Some(name.rename.to_string()))
            }
        };
        if let Some(name) = name {
            self.bound.insert(name, path.clone());
        }
        if !for_others {
            self.name(path, line);
        }
    }

    /// Paths among the tokens of a macro's call.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons, mut after_dot) = (0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.end_of_path(&mut path, line);
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) if !after_dot => {
                            (path, line) = (vec![ident.to_string()], ident.span().start().line);
                        }
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(punct) => {
                            after_dot = punct.as_char() == '.';
                            continue;
                        }
                        TokenTree::Ident(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
            after_dot = false;
        }
        self.end_of_path(&mut path, line);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, line: usize) {
        if !path.is_empty() {
            self.name(std::mem::take(path), line);
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = outline(item);
        if is_test(attributes) {
            return;
        }
        self.items.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            let for_others = !matches!(item.vis, Visibility::Inherited);
            self.brings(&item.tree, Vec::new(), for_others);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let (None, Some(first)) = (path.leading_colon, path.segments.first()) {
            let line = first.ident.span().start().line;
            let names = path.segments.iter().map(|segment| segment.ident.to_string());
            self.name(names.collect(), line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    // Derives and their helpers name things of other crates.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

/// The attributes of an item and the name that it defines.
fn outline(item: &Item) -> (&[Attribute], Option<&proc_macro2::Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, Some(&item.ident)),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::TraitAlias(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

/// `#[cfg(test)]`, alone or with more conditions.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut test = false;
        if attribute.path().is_ident("cfg") {
            // Conditions of other forms are none about tests.
            let _other = attribute.parse_nested_meta(|meta| {
                test |= meta.path.is_ident("test");
                if meta.path.is_ident("all") {
                    meta.parse_nested_meta(|inner| {
                        test |= inner.path.is_ident("test");
                        Ok(())
                    })?;
                }
                Ok(())
            });
        }
        test
    })
}
