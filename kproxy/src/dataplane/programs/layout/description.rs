//! A version's maps described as text. A line is a word that says of what, a name, and its parts:
//!
//! ```text
//! kproxy-layout 1
//! type FlowValue 72
//! field to 0 40 FlowKey 1            offset, bytes, type, how many of it
//! field flags 40 2 u16 1 bits flow_flags
//! numbers flow_flags
//! number FIN 8
//! map KP_FLOWS FlowKey FlowValue     key, value, numbers without which it means nothing
//! added FlowValue opened             what an earlier version need not have
//! end
//! ```
//!
//! Lines that begin otherwise are for later versions, and passed over. So are parts at the end of a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    str::SplitWhitespace,
};

use kproxy_common::layouts::{self, Holds};

/// First line. Another number: nothing that follows is understood.
const FIRST: &str = "kproxy-layout 1";
/// Last line: without it the text was not written to its end.
const LAST: &str = "end";

/// Types in each other: a type that holds itself has no end.
const DEEPEST: usize = 8;

/// What the maps of one version mean.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Description {
    pub(super) types: BTreeMap<String, Type>,
    pub(super) numbers: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) maps: BTreeMap<String, MapMeaning>,
    /// Type and field.
    pub(super) added: BTreeSet<(String, String)>,
}

/// A type of several fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Type {
    pub(super) size: usize,
    pub(super) fields: BTreeMap<String, Part>,
}

/// A field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) offset: usize,
    pub(super) size: usize,
    pub(super) kind: String,
    pub(super) count: usize,
    /// The numbers whose names tell what it holds.
    pub(super) holds: Option<(Holds, String)>,
}

/// A map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MapMeaning {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) depends_on: BTreeSet<String>,
}

impl Description {
    /// That of this version.
    pub(crate) fn of_this() -> Self {
        Self::parse(&text()).unwrap_or_default()
    }

    /// `None`: the text is not whole, or not one that this version understands.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut found = Self::default();
        let mut lines = text.lines();
        if lines.next()? != FIRST {
            return None;
        }
        let (mut last_type, mut last_numbers) = (None, None);
        for line in lines {
            if line == LAST {
                let all = found.types.keys();
                return all.clone().all(|of| found.has_end(of, DEEPEST)).then_some(found);
            }
            let mut words = line.split_whitespace();
            match words.next()? {
                "type" => {
                    let (name, size) = (word(&mut words)?, words.next()?.parse().ok()?);
                    let of = Type { size, fields: BTreeMap::new() };
                    last_type = Some(found.types.entry(name).insert_entry(of).into_mut());
                }
                "field" => {
                    let (name, part) = (word(&mut words)?, part(&mut words)?);
                    let of = last_type.as_mut()?;
                    if part.offset.checked_add(part.size)? > of.size {
                        return None;
                    }
                    of.fields.insert(name, part);
                }
                "numbers" => {
                    let all = found.numbers.entry(word(&mut words)?).or_default();
                    last_numbers = Some(all);
                }
                "number" => {
                    let (name, value) = (word(&mut words)?, words.next()?.parse().ok()?);
                    last_numbers.as_mut()?.insert(name, value);
                }
                "map" => {
                    let (name, key, value) =
                        (word(&mut words)?, word(&mut words)?, word(&mut words)?);
                    let depends_on = words.map(str::to_owned).collect();
                    found.maps.insert(name, MapMeaning { key, value, depends_on });
                }
                "added" => {
                    found.added.insert((word(&mut words)?, word(&mut words)?));
                }
                _for_later_versions => {}
            }
        }
        None
    }
}

impl Description {
    /// Whether a type has no more types in each other than this.
    fn has_end(&self, of: &str, deepest: usize) -> bool {
        let Some(of) = self.types.get(of) else { return true };
        deepest > 0 && of.fields.values().all(|part| self.has_end(&part.kind, deepest - 1))
    }
}

/// What this version writes.
fn text() -> String {
    let mut text = format!("{FIRST}\n");
    // Writing to a string never fails.
    write_all(&mut text).unwrap_or_default();
    text
}

/// The same as the words of a map.
pub(crate) fn words() -> Vec<u64> {
    let mut text = text().into_bytes();
    text.resize(text.len().next_multiple_of(8), 0);
    let (words, _none) = text.as_chunks();
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

fn write_all(text: &mut String) -> std::fmt::Result {
    for layout in layouts::TYPES.iter().copied().flatten() {
        writeln!(text, "type {} {}", layout.name, layout.size)?;
        for field in layout.fields {
            let layouts::Kind { name, count } = field.kind;
            write!(text, "field {} {} {} {name} {count}", field.name, field.offset, field.size)?;
            let held = layouts::HELD.iter();
            let held = held.filter(|(of, name, ..)| (*of, *name) == (layout.name, field.name));
            for (_, _, numbers, holds) in held {
                let how = match holds {
                    Holds::Bits => "bits",
                    Holds::Value => "value",
                };
                write!(text, " {how} {numbers}")?;
            }
            writeln!(text)?;
        }
    }
    for numbers in layouts::NUMBERS {
        writeln!(text, "numbers {}", numbers.name)?;
        for (name, value) in numbers.values {
            writeln!(text, "number {name} {value}")?;
        }
    }
    for map in layouts::MAPS {
        writeln!(text, "map {} {} {} {}", map.name, map.key, map.value, map.depends_on.join(" "))?;
    }
    for (of, field) in layouts::ADDED {
        writeln!(text, "added {of} {field}")?;
    }
    writeln!(text, "{LAST}")
}

fn word(words: &mut SplitWhitespace<'_>) -> Option<String> {
    words.next().map(str::to_owned)
}

fn part(words: &mut SplitWhitespace<'_>) -> Option<Part> {
    let mut number = || words.next()?.parse::<usize>().ok();
    let (offset, size) = (number()?, number()?);
    let (kind, count) = (word(words)?, words.next()?.parse().ok()?);
    let how = words.next().zip(words.next());
    let holds = how.and_then(|(how, numbers)| match how {
        "bits" => Some((Holds::Bits, numbers.to_owned())),
        "value" => Some((Holds::Value, numbers.to_owned())),
        _ => None,
    });
    Some(Part { offset, size, kind, count, holds })
}

#[cfg(test)]
mod tests {
    use kproxy_common::abi::{LAYOUT_BYTES, map};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_fits() {
        let text = text();
        assert!(text.len() < LAYOUT_BYTES as usize, "{}", text.len());
        let read = Description::parse(&text).unwrap();
        assert_eq!(read, Description::of_this());
        assert_eq!(read.types["FlowValue"].fields["to"].kind, "FlowKey");
        let flags = &read.types["FlowValue"].fields["flags"];
        assert_eq!(flags.holds, Some((Holds::Bits, "flow_flags".to_owned())));
        assert_eq!(read.maps[map::FLOWS].value, "FlowValue");
        let peers = &read.types["SocketState"].fields["peers"];
        assert_eq!((peers.kind.as_str(), peers.count), ("Peer", 5));
        for size in 0..text.len() - LAST.len() {
            assert_eq!(Description::parse(&text[..size]), None, "cut at {size}");
        }
        let later = text.replace("type ", "thing x y\ntype ");
        assert_eq!(Description::parse(&later), Some(read));
        assert_eq!(Description::parse(&text.replacen("layout 1", "layout 2", 1)), None);
        let endless = text.replace("type Port 2\n", "type Port 2\nfield itself 0 2 Port 1\n");
        assert_eq!(Description::parse(&endless), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "(kproxy-layout 1\n)?([a-z]{1,7}( [a-zA-Z0-9]{1,20}){0,7}\n|end\n|field a [0-9]{1,20} 4 u8 1\n){0,9}") {
            let _no_panic = Description::parse(&text);
        }
    }
}
