//! Titles of what the demo shows.

/// Prints a title with a line below it.
pub(super) fn title(text: &str) {
    println!("\n{text}\n{}", "─".repeat(text.chars().count()));
}
