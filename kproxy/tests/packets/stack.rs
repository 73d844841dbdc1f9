//! How much of the stack the programs need: 512 bytes are all that a program and the functions that it
//! calls have together (`MAX_BPF_STACK`, kernel/bpf/verifier.c).

use std::collections::{HashMap, HashSet};

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, Relocation, RelocationTarget, SectionIndex,
    SymbolKind,
};

use crate::{budgets, harness::OBJECT};

/// Another compiler may lay out a frame otherwise.
const SLACK: usize = UNIT;

/// 5.10 rounds each frame up to so many bytes, newer kernels to fewer.
const UNIT: usize = 32;

/// Where a function begins.
type Place = (SectionIndex, u64);

struct Function {
    name: String,
    frame: usize,
    calls: HashSet<Place>,
}

/// Frames are rounded up as the oldest kernels do (docs/kernels.md). A change that needs more than [`SLACK`]
/// beyond its budget has to say why.
#[test]
fn no_program_needs_more_of_the_stack_than_its_budget() {
    let functions = functions();
    let mut programs: Vec<(&str, usize)> = functions
        .iter()
        .filter(|(_, function)| function.name.starts_with("kp_"))
        .map(|(place, function)| (function.name.as_str(), depth(&functions, *place)))
        .collect();
    programs.sort_unstable();
    println!();
    for (name, bytes) in &programs {
        // A line of its own for `cargo xtask kernels`.
        println!("stack {name} {bytes}");
    }
    if !budgets::are_held() {
        return;
    }
    let held = budgets::stacks();
    assert_eq!(programs.len(), held.len(), "every program has a budget: {programs:?}");
    for ((name, bytes), (budgeted, budget)) in programs.into_iter().zip(held) {
        assert_eq!(name, budgeted);
        assert!(
            bytes <= budget as usize + SLACK,
            "{name} needs {bytes} bytes of the stack, budget {budget}"
        );
    }
}

/// Bytes of a function and of those that it calls, along the deepest way.
fn depth(functions: &HashMap<Place, Function>, place: Place) -> usize {
    let function = &functions[&place];
    let below = function.calls.iter().map(|callee| depth(functions, *callee)).max();
    function.frame.max(1).next_multiple_of(UNIT) + below.unwrap_or(0)
}

fn functions() -> HashMap<Place, Function> {
    let file = object::File::parse(OBJECT).unwrap();
    let symbols = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let functions = symbols.filter(|symbol| symbol.size() > 0).map(|symbol| {
        let index = symbol.section_index().unwrap();
        let section = file.section_by_index(index).unwrap();
        let relocations: HashMap<u64, _> = section.relocations().collect();
        let (start, len) = (symbol.address() as usize, symbol.size() as usize);
        let (frame, calls) = read(&section.data().unwrap()[start..start + len]);
        let callee = |(offset, immediate): (u64, i64)| {
            let at = symbol.address() + offset;
            match relocations.get(&at).map(Relocation::target) {
                Some(RelocationTarget::Symbol(target)) => {
                    let target = file.symbol_by_index(target).unwrap();
                    // By the section: the instruction says where in it.
                    let by_section = ((immediate + 1) * 8) as u64;
                    let is_function = target.kind() == SymbolKind::Text;
                    let begins = if is_function { target.address() } else { by_section };
                    (target.section_index().unwrap(), begins)
                }
                _ => (index, (at as i64 + (1 + immediate) * 8) as u64),
            }
        };
        let calls = calls.into_iter().map(callee).collect();
        let name = symbol.name().unwrap().to_owned();
        ((index, symbol.address()), Function { name, frame, calls })
    });
    functions.collect()
}

/// Bytes of a function's frame, and its calls of functions of the object: offset and immediate of each
/// (Documentation/bpf/standardization/instruction-set.rst).
fn read(code: &[u8]) -> (usize, Vec<(u64, i64)>) {
    /// Classes: loads from memory, stores of constants and registers, arithmetic.
    const LDX: u8 = 1;
    const ST: u8 = 2;
    const STX: u8 = 3;
    const ALU: [u8; 2] = [4, 7];
    /// Whole opcodes.
    const LOAD_64: u8 = 0x18;
    const CALL: u8 = 0x85;
    const MOVE: u8 = 0xbf;
    const ADD_CONSTANT: u8 = 0x07;
    /// The register that points to the end of the frame; the source of a call within the object.
    const FRAME: u8 = 10;
    const OWN: u8 = 1;
    let (mut frame, mut calls) = (0, Vec::new());
    let mut points_to_frame = [false; 16];
    let mut at = 0;
    while at < code.len() {
        let [opcode, registers] = [code[at], code[at + 1]];
        let (target, source) = (registers & 15, registers >> 4);
        let offset = i16::from_le_bytes([code[at + 2], code[at + 3]]);
        let immediate = i32::from_le_bytes(code[at + 4..at + 8].try_into().unwrap());
        let base = match opcode & 7 {
            LDX => Some(source),
            ST | STX => Some(target),
            _ => None,
        };
        let mut reach = |below: i32| {
            frame = usize::try_from(-below).unwrap_or(0).max(frame);
        };
        if base == Some(FRAME) {
            reach(offset.into());
        }
        if opcode == ADD_CONSTANT && points_to_frame[usize::from(target)] {
            reach(immediate);
        }
        if ALU.contains(&(opcode & 7)) {
            points_to_frame[usize::from(target)] = opcode == MOVE && source == FRAME;
        }
        if opcode == CALL && source == OWN {
            calls.push((at as u64, immediate.into()));
        }
        at += if opcode == LOAD_64 { 16 } else { 8 };
    }
    (frame, calls)
}
