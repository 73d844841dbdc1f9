//! What each program may cost the verifier and take of the stack, by kernel.
//!
//! `budgets.txt` is written anew by `cargo xtask kernels --write-budgets`, which runs these tests on each of
//! its kernels. On a kernel without a column the nearest older one counts.

use aya::util::KernelVersion;

use crate::harness::Programs;

const FILE: &str = include_str!("budgets.txt");

/// The kernel's limit is a million instructions. What comes so near would be refused by the next kernel that
/// walks a little more.
const MOST: u32 = 700_000;

/// Set while the file is written anew: nothing is compared.
const WRITING: &str = "KPROXY_WRITE_BUDGETS";

/// Whether the figures are to be compared.
pub(crate) fn are_held() -> bool {
    std::env::var_os(WRITING).is_none()
}

/// A column of the file, by program; `None`: not measured yet.
fn column(wanted: usize) -> impl Iterator<Item = (&'static str, Option<u32>)> {
    let rows = FILE.lines().filter(|line| line.starts_with("kp_"));
    rows.map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = match words[wanted] {
            "-" => None,
            word => Some(word.parse().unwrap_or_else(|_| panic!("budgets.txt: {line}: {word}"))),
        };
        (words[0], number)
    })
}

/// Bytes of stack by program.
pub(crate) fn stacks() -> Vec<(&'static str, u32)> {
    column(1).map(|(name, bytes)| (name, bytes.expect("a stack is known anywhere"))).collect()
}

/// A kernel's major and minor version.
type Version = (u8, u8);

/// The kernel whose budgets count here, and its column.
fn kernel() -> (Version, usize) {
    let header = FILE.lines().find(|line| line.starts_with("program")).unwrap();
    let version = |word: &str| -> Version {
        let (major, minor) = word.split_once('.').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    };
    let all = header.split_whitespace().enumerate().skip(2);
    let all: Vec<_> = all.map(|(place, word)| (version(word), place)).collect();
    let here = KernelVersion::current().unwrap();
    let is_older = |(major, minor): Version| KernelVersion::new(major, minor, 0) <= here;
    let older = all.iter().filter(|(version, _)| is_older(*version)).max();
    *older.or_else(|| all.iter().min()).unwrap()
}

/// What another build of the same sources may differ by.
fn with_tolerance(budget: u32) -> u32 {
    budget + budget / 10 + 1000
}

#[test]
fn the_verifier_has_room_to_spare() {
    let verified = Programs::load().verified();
    let (kernel, place) = kernel();
    println!();
    let mut above = Vec::new();
    for (name, instructions) in &verified {
        // A line of its own for `cargo xtask kernels`.
        println!("verified {name} {}", instructions.map_or("-".to_owned(), |n| n.to_string()));
        let budget = column(place).find(|(program, _)| program == name);
        let budget = budget.map_or(0, |(_, budget)| budget.map_or(MOST, with_tolerance)).min(MOST);
        if instructions.is_some_and(|instructions| instructions > budget) {
            above.push(format!("{name} {instructions:?} of at most {budget}"));
        }
    }
    assert!(
        above.is_empty() || !are_held(),
        "instructions verified, by the budgets of Linux {}.{}: {}. If there is a reason, `cargo xtask \
         kernels --write-budgets` writes them anew",
        kernel.0,
        kernel.1,
        above.join(", ")
    );
}
