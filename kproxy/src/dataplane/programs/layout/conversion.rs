//! From the bytes of one version to those of another: fields of the same name, whatever their places, and
//! numbers of the same name, whatever their values.

use std::collections::BTreeMap;

use kproxy_common::layouts::Holds;

use super::description::{Description, MapMeaning, Part};

/// How a map of another version relates to the one of this version with its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Likeness {
    /// It means the same: it may be gone on with as it is.
    Same(Conversion),
    /// What it holds can be converted.
    Convertible(Conversion),
    /// What it holds means nothing here.
    None,
}

/// From elements of one map to those of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Conversion {
    key: Record,
    value: Record,
}

/// From the bytes of one type to those of another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Record {
    /// Sizes before and after.
    from: usize,
    to: usize,
    steps: Vec<Step>,
}

/// What is done for one field, or for several side by side.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// The bytes stay the same.
    Copy { from: usize, to: usize, len: usize },
    /// An integer gets another size.
    Resize { from: usize, from_len: usize, to: usize, to_len: usize },
    /// Its numbers get other values.
    Renumber { from: usize, from_len: usize, to: usize, to_len: usize, numbers: Renumbering },
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Renumbering {
    holds: Holds,
    values: BTreeMap<u64, u64>,
}

impl Likeness {
    /// Of the map with this name of `other` to that of `this`.
    pub(crate) fn of(other: &Description, this: &Description, map: &str) -> Self {
        let (Some(theirs), Some(ours)) = (other.maps.get(map), this.maps.get(map)) else {
            return Self::None;
        };
        let depends_on = ours.depends_on.union(&theirs.depends_on);
        let is_certain = |numbers: &String| {
            other.numbers.get(numbers).is_some_and(|all| this.numbers.get(numbers) == Some(all))
        };
        if !depends_on.clone().all(is_certain) {
            return Self::None;
        }
        let Some(conversion) = Conversion::new(other, theirs, this, ours) else {
            return Self::None;
        };
        let is_same = |of: &String, wanted: &String| of == wanted && other.is_same(this, of);
        if is_same(&theirs.key, &ours.key) && is_same(&theirs.value, &ours.value) {
            Self::Same(conversion)
        } else {
            Self::Convertible(conversion)
        }
    }
}

impl Conversion {
    fn new(
        other: &Description,
        theirs: &MapMeaning,
        this: &Description,
        ours: &MapMeaning,
    ) -> Option<Self> {
        let record = |from: &str, to: &str| {
            let mut record = Record { from: other.size(from)?, to: this.size(to)?, steps: vec![] };
            record.add_type(other, from, 0, this, to, 0)?;
            record.join();
            Some(record)
        };
        Some(Self {
            key: record(&theirs.key, &ours.key)?,
            value: record(&theirs.value, &ours.value)?,
        })
    }

    /// Bytes of a key and of a value of the other version.
    pub(crate) const fn sizes_before(&self) -> (usize, usize) {
        (self.key.from, self.value.from)
    }

    /// The same of this one.
    pub(crate) const fn sizes_after(&self) -> (usize, usize) {
        (self.key.to, self.value.to)
    }

    /// The key as this version has it; `None`: it holds what has no name here.
    pub(crate) fn key(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.key.convert(key)
    }

    /// The same of a value, or of those of all CPUs, each of which fills whole words.
    pub(crate) fn values(&self, values: &[u8]) -> Option<Vec<u8>> {
        if values.len() == self.value.from {
            return self.value.convert(values);
        }
        let mut all = Vec::new();
        for value in values.chunks_exact(self.value.from.next_multiple_of(8)) {
            all.extend(self.value.convert(value)?);
            all.resize(all.len().next_multiple_of(8), 0);
        }
        Some(all)
    }
}

impl Description {
    /// Bytes of a type.
    fn size(&self, of: &str) -> Option<usize> {
        match self.types.get(of) {
            Some(of) => Some(of.size),
            None => integer_size(of),
        }
    }

    /// Whether a type and all that it is made of is the same in both.
    fn is_same(&self, other: &Self, of: &str) -> bool {
        let (Some(ours), theirs) = (self.types.get(of), other.types.get(of)) else {
            return !other.types.contains_key(of);
        };
        theirs == Some(ours)
            && ours.fields.values().all(|part| {
                let numbers = part.holds.as_ref().map(|(_, numbers)| numbers);
                numbers.is_none_or(|of| self.numbers.get(of) == other.numbers.get(of))
                    && self.is_same(other, &part.kind)
            })
    }

    /// A named bit of a field: the field's place and bytes, and the bit.
    pub(crate) fn flag(&self, of: &str, field: &str, name: &str) -> Option<(usize, usize, u64)> {
        let part = self.types.get(of)?.fields.get(field)?;
        let (_, numbers) = part.holds.as_ref()?;
        let value = *self.numbers.get(numbers)?.get(name)?;
        Some((part.offset, part.size, value))
    }
}

fn integer_size(of: &str) -> Option<usize> {
    match of {
        "u8" => Some(1),
        "u16" => Some(2),
        "u32" => Some(4),
        "u64" => Some(8),
        _ => None,
    }
}

/// What a type is called that holds nothing.
fn is_padding(field: &str) -> bool {
    field == "pad"
}

impl Record {
    /// What becomes of a value of the type `of` at `from`.
    fn add_type(
        &mut self,
        other: &Description,
        of: &str,
        from: usize,
        this: &Description,
        ours: &str,
        to: usize,
    ) -> Option<()> {
        match (other.types.get(of), this.types.get(ours)) {
            (Some(theirs), Some(wanted)) if of == ours => {
                for (name, part) in wanted.fields.iter().filter(|(name, _)| !is_padding(name)) {
                    match theirs.fields.get(name) {
                        Some(before) => self.add_field(other, before, from, this, part, to)?,
                        None if this.added.contains(&(of.to_owned(), name.clone())) => {}
                        None => return None,
                    }
                }
                Some(())
            }
            (None, None) => {
                let (from_len, to_len) = (integer_size(of)?, integer_size(ours)?);
                self.steps.push(if from_len == to_len {
                    Step::Copy { from, to, len: to_len }
                } else {
                    Step::Resize { from, from_len, to, to_len }
                });
                Some(())
            }
            _ => None,
        }
    }

    fn add_field(
        &mut self,
        other: &Description,
        before: &Part,
        from: usize,
        this: &Description,
        part: &Part,
        to: usize,
    ) -> Option<()> {
        let (from, to) = (from + before.offset, to + part.offset);
        match (&before.holds, &part.holds) {
            (None, None) => {}
            (Some((how, theirs)), Some((holds, ours))) if how == holds && theirs == ours => {
                let names = this.numbers.get(ours)?;
                let mut values = BTreeMap::new();
                for (name, value) in other.numbers.get(theirs)? {
                    let is_one = *holds == Holds::Value || value.is_power_of_two();
                    if let Some(now) = names.get(name).filter(|_| is_one) {
                        values.insert(*value, *now);
                    }
                }
                let is_same = values.iter().all(|(before, now)| before == now)
                    && other.numbers.get(theirs) == Some(names);
                if !is_same {
                    let numbers = Renumbering { holds: *holds, values };
                    let (from_len, to_len) = (before.size, part.size);
                    self.steps.push(Step::Renumber { from, from_len, to, to_len, numbers });
                    return Some(());
                }
            }
            _ => return None,
        }
        if before.count != part.count {
            return None;
        }
        let sizes = (other.size(&before.kind)?, this.size(&part.kind)?);
        if before.count == 0
            || before.size != before.count * sizes.0
            || part.size != part.count * sizes.1
        {
            return None;
        }
        for n in 0..part.count {
            let (from, to) = (from + n * sizes.0, to + n * sizes.1);
            self.add_type(other, &before.kind, from, this, &part.kind, to)?;
        }
        Some(())
    }

    /// Makes one of copies side by side.
    fn join(&mut self) {
        let place = |step: &Step| match step {
            Step::Copy { to, .. } | Step::Resize { to, .. } | Step::Renumber { to, .. } => *to,
        };
        self.steps.sort_by_key(place);
        let mut joined: Vec<Step> = Vec::new();
        for step in self.steps.drain(..) {
            match (joined.last_mut(), &step) {
                (
                    Some(Step::Copy { from, to, len }),
                    Step::Copy { from: next_from, to: next_to, len: more },
                ) if *from + *len == *next_from && *to + *len == *next_to => *len += more,
                _ => joined.push(step),
            }
        }
        self.steps = joined;
    }

    fn convert(&self, before: &[u8]) -> Option<Vec<u8>> {
        let mut after = vec![0; self.to];
        for step in &self.steps {
            match step {
                Step::Copy { from, to, len } => {
                    after[*to..to + len].copy_from_slice(before.get(*from..from + len)?);
                }
                Step::Resize { from, from_len, to, to_len } => {
                    let number = read_number(before.get(*from..from + from_len)?);
                    write_number(after.get_mut(*to..to + to_len)?, number)?;
                }
                Step::Renumber { from, from_len, to, to_len, numbers } => {
                    let number = read_number(before.get(*from..from + from_len)?);
                    write_number(after.get_mut(*to..to + to_len)?, numbers.convert(number)?)?;
                }
            }
        }
        Some(after)
    }
}

impl Renumbering {
    fn convert(&self, number: u64) -> Option<u64> {
        match self.holds {
            Holds::Value => self.values.get(&number).copied(),
            Holds::Bits => {
                let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| number & bit != 0);
                bits.map(|bit| self.values.get(&bit).copied())
                    .try_fold(0, |all, bit| Some(all | bit?))
            }
        }
    }
}

fn read_number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let len = bytes.len().min(8);
    number[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(number)
}

/// `None`: it is too large.
fn write_number(bytes: &mut [u8], number: u64) -> Option<()> {
    let number = number.to_le_bytes();
    let len = bytes.len().min(8);
    bytes[..len].copy_from_slice(&number[..len]);
    number[len..].iter().all(|byte| *byte == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use kproxy_common::{abi::map, flow::FlowValue};
    use proptest::prelude::*;
    use zerocopy::{FromBytes as _, IntoBytes as _};

    use super::*;

    const BASE: &str = "kproxy-layout 1
type Key 8
field addr 0 4 u32 1
field pad 4 2 u8 2
field port 6 2 Port 1
type Port 2
field 0 0 2 u16 1
type Value 12
field key 0 8 Key 1
field flags 8 2 u16 1 bits bits
field state 10 1 u8 1 value states
field pad 11 1 u8 1
numbers bits
number A 1
number B 2
number ALL 3
numbers states
number OPEN 0
number CLOSED 1
numbers size
number SIZE 5
map M Key Value size
end
";

    fn likeness(other: &str, this: &str) -> Likeness {
        let of = |text| Description::parse(text).unwrap();
        Likeness::of(&of(other), &of(this), "M")
    }

    /// A key, and a value with these flags and this state, as [`BASE`] has them.
    fn element(flags: u8, state: u8) -> ([u8; 8], [u8; 12]) {
        let key = [1, 2, 3, 4, 9, 9, 5, 6];
        (key, [1, 2, 3, 4, 9, 9, 5, 6, flags, 0, state, 9])
    }

    #[test]
    fn fields_and_numbers_are_found_by_name() {
        assert!(matches!(likeness(BASE, BASE), Likeness::Same(_)));
        let moved = BASE
            .replace("type Key 8", "type Key 10")
            .replace(
                "field addr 0 4 u32 1\nfield pad 4 2 u8 2\nfield port 6 2 Port 1",
                "field addr 2 4 u32 1\nfield port 0 2 Port 1",
            )
            .replace("type Value 12", "type Value 24")
            .replace("field key 0 8", "field key 14 10")
            .replace("field flags 8 2 u16 1", "field new 0 4 u32 1\nfield flags 4 4 u32 1")
            .replace("field state 10 1 u8 1", "field state 8 2 u16 1")
            .replace("number A 1\nnumber B 2", "number B 1\nnumber A 64")
            .replace("number OPEN 0\nnumber CLOSED 1", "number CLOSED 7\nnumber OPEN 8")
            .replace("end\n", "added Value new\nend\n");
        let (Likeness::Convertible(there), Likeness::Convertible(back)) =
            (likeness(BASE, &moved), likeness(&moved, BASE))
        else {
            panic!("{moved}");
        };
        assert_eq!((there.sizes_before(), there.sizes_after()), ((8, 12), (10, 24)));
        for (flags, state, wanted) in [(1, 0, Some((64, 8))), (3, 1, Some((65, 7)))] {
            let (key, value) = element(flags, state);
            let (new_key, new_value) = (there.key(&key).unwrap(), there.values(&value).unwrap());
            assert_eq!(new_key, [5, 6, 1, 2, 3, 4, 0, 0, 0, 0]);
            assert_eq!(new_value[..4], [0; 4]);
            assert_eq!(wanted, Some((new_value[4], new_value[8])));
            assert_eq!(new_value[14..], new_key);
            // But for what fills gaps.
            let mut old = value;
            (old[4], old[5], old[11]) = (0, 0, 0);
            assert_eq!(back.values(&new_value).unwrap(), old);
        }
        // What has no name there.
        for (flags, state) in [(4, 0), (1, 2)] {
            assert_eq!(there.values(&element(flags, state).1), None, "{flags} {state}");
        }
        let mut large = there.values(&element(1, 0).1).unwrap();
        large[9] = 1;
        assert_eq!(back.values(&large), None, "no such state");
        // Of two CPUs.
        let value = element(1, 0).1;
        let values = [&value[..], &[0; 4], &value[..], &[0; 4]].concat();
        assert_eq!(there.values(&values).unwrap().len(), 48);
    }

    #[test]
    fn what_is_needed_and_missing_or_of_another_kind_makes_a_map_meaningless() {
        for (what, other) in [
            ("a field is needed", BASE.replace("field state 10 1 u8 1 value states\n", "")),
            (
                "a type of another name",
                BASE.replace(" Port 1", " Gate 1").replace("type Port", "type Gate"),
            ),
            ("so many", BASE.replace("field key 0 8 Key 1", "field key 0 4 u32 1")),
            ("names of bits", BASE.replace(" bits bits", "")),
            ("how they are held", BASE.replace(" bits bits", " value bits")),
            ("a number that counts", BASE.replace("SIZE 5", "SIZE 6")),
            ("no such map", BASE.replace("map M", "map N")),
            ("another type", BASE.replace("field key 0 8 Key 1", "field key 0 8 Port 1")),
        ] {
            assert_ne!(other, BASE, "{what}");
            assert_eq!(likeness(&other, BASE), Likeness::None, "{what}");
        }
        let with_more = BASE.replace("number B 2", "number B 2\nnumber C 4");
        assert!(matches!(likeness(BASE, &with_more), Likeness::Convertible(_)), "a flag more");
    }

    proptest! {
        #[test]
        fn a_flow_comes_back_as_it_was(bytes: [u8; size_of::<FlowValue>()], state in 0u8..12) {
            let this = Description::of_this();
            let mut other = this.clone();
            let value = other.types.get_mut("FlowValue").unwrap();
            // The fields in another order.
            let mut offset = 0;
            for part in value.fields.values_mut() {
                part.offset = offset;
                offset += part.size;
            }
            let bits = other.numbers.get_mut("flow_flags").unwrap();
            let mut swap = |a: &str, b: &str| {
                let (a_bit, b_bit) = (bits[a], bits[b]);
                bits.insert(a.to_owned(), b_bit);
                bits.insert(b.to_owned(), a_bit);
            };
            swap("SNAT", "FIN");
            swap("ASSURED", "NODE");
            let of = |from, to| match Likeness::of(from, to, map::FLOWS) {
                Likeness::Convertible(conversion) => conversion,
                other => panic!("{other:?}"),
            };
            let mut flow = FlowValue::read_from_bytes(&bytes).unwrap();
            // What has no name ends: only what has is set.
            flow.flags &= this.numbers["flow_flags"].iter().filter(|(name, _)| *name != "KINDS").fold(0, |all, (_, bit)| all | *bit as u16);
            (flow.state, flow.pad, flow.to.pad) = (state, 0, [0; 3]);
            let there = of(&this, &other).values(flow.as_bytes()).unwrap();
            prop_assert_eq!(of(&other, &this).values(&there).unwrap(), flow.as_bytes());
        }
    }
}
