//! Where set-up keeps the tools that it builds.

use std::{env, path::PathBuf};

/// The cache folder: `$KPROXY_CACHE`, else `$XDG_CACHE_HOME/kproxy`, else `~/.cache/kproxy`.
///
/// `None` when none of `KPROXY_CACHE`, `XDG_CACHE_HOME` and `HOME` is set.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("KPROXY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("kproxy")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/kproxy")))
}

/// Where `cargo install --root` puts tools: the parent of their `bin` folder.
pub fn tools_dir() -> Option<PathBuf> {
    cache_dir().map(|dir| dir.join("tools"))
}
