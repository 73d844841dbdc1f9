//! The file of budgets: what each program may cost the verifier on each kernel, and take of the stack.
//!
//! The tests of packets hold a build to it (`kproxy/tests/packets/budgets.rs`), here and in each guest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use crate::{say, workspace};

const HEAD: &str = "\
# What the verifier may walk of each program, in instructions by kernel, and its stack in bytes.
# Written by `cargo xtask kernels --write-budgets`; the tests allow a tenth more. Before 5.16 no kernel tells.
# A dash: not measured there yet.
";

/// Figures by program.
pub(super) type Figures = BTreeMap<String, u32>;

/// All figures.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Budgets {
    /// Bytes of stack.
    pub(super) stack: Figures,
    /// Instructions, by kernel.
    pub(super) kernels: BTreeMap<(u8, u8), Figures>,
}

fn path() -> PathBuf {
    workspace::root().join("kproxy/tests/packets/budgets.txt")
}

/// `6.1` → (6, 1).
pub(super) fn version(series: &str) -> Option<(u8, u8)> {
    let (major, minor) = series.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The lines `KIND NAME NUMBER` that tests have printed.
pub(super) fn figures(kind: &str, text: &str) -> Figures {
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.trim().split_once(' '));
    lines.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

impl Budgets {
    /// The file as it is.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut budgets = Self::default();
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        let header = lines().next().unwrap_or_default().split_whitespace().skip(2);
        let kernels: Vec<_> = header.filter_map(version).collect();
        for line in lines().skip(1) {
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            let mut numbers = words.map(|word| word.parse().ok());
            budgets.stack.insert(name.to_owned(), numbers.next().flatten().unwrap_or_default());
            for (kernel, number) in kernels.iter().zip(numbers) {
                let figures = budgets.kernels.entry(*kernel).or_default();
                figures.extend(number.map(|number| (name.to_owned(), number)));
            }
        }
        budgets
    }

    /// Puts the figures of what was run in the place of those in the file, and tells what has changed.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(self) -> Result<()> {
        let mut all = Self::read()?;
        for (kernel, figures) in &self.kernels {
            let before = all.kernels.get(kernel);
            for (name, number) in figures {
                let was = before.and_then(|figures| figures.get(name));
                if was != Some(number) {
                    let was = was.map_or("new".to_owned(), u32::to_string);
                    say::line(format!("{}.{} {name}: {was} → {number}", kernel.0, kernel.1));
                }
            }
        }
        all.kernels.extend(self.kernels);
        all.stack = self.stack;
        let path = path();
        fs::write(&path, all.text()).with_context(|| format!("write {}", path.display()))
    }

    fn text(&self) -> String {
        let programs: BTreeSet<&String> = self.stack.keys().collect();
        let line = |name: &str, words: Vec<String>| {
            let words: String = words.iter().map(|word| format!(" {word:>8}")).collect();
            format!("{name:<16}{words}\n")
        };
        let header = self.kernels.keys().map(|(major, minor)| format!("{major}.{minor}"));
        let header = std::iter::once("stack".to_owned()).chain(header).collect();
        let rows = programs.into_iter().map(|name| {
            let of = |figures: &Figures| figures.get(name).map_or("-".to_owned(), u32::to_string);
            let words = std::iter::once(&self.stack).chain(self.kernels.values()).map(of).collect();
            line(name, words)
        });
        std::iter::once(HEAD.to_owned() + &line("program", header)).chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let stack = figures("stack", "stack kp_a 32\ntest x ... ok\nstack kp_b 480\n");
        let mut budgets = Budgets { stack, ..Budgets::default() };
        for (series, numbers) in [("6.1", [7, 405_863]), ("6.12", [3, 99])] {
            let names = ["kp_a", "kp_b"].map(str::to_owned);
            budgets
                .kernels
                .insert(version(series).unwrap(), names.into_iter().zip(numbers).collect());
        }
        assert_eq!(Budgets::parse(&budgets.text()), budgets);
        assert_eq!(budgets.stack["kp_b"], 480);
    }

    #[test]
    fn a_kernel_that_does_not_tell_has_no_figures() {
        assert!(figures("verified", "verified kp_a -\n").is_empty());
    }
}
