//! The kproxy command.
fn main() {}
