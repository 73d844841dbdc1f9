//! tcx programs of somebody else, before and after kproxy's: they count packets and pass them on.

use std::fs::File;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use kproxy_lab::Place;
use nix::sched::{CloneFlags, setns};
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// Name of the program and of its map.
const PROGRAM: &str = "count";
const COUNTS: &str = "COUNTS";

/// Programs on the devices of one node. They go with this value.
pub(crate) struct Others(Vec<Ebpf>);

impl Others {
    /// Puts one first and one last at either direction of the devices.
    pub(crate) fn attach(node: &Place, devices: &[&str]) -> Result<Self> {
        let code = program()?;
        let attach = || {
            let netns = File::open(node.netns()).context("open the network namespace")?;
            setns(netns, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
            let mut programs = Vec::new();
            for device in devices {
                for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                    for order in [LinkOrder::first(), LinkOrder::last()] {
                        programs.push(attach_one(&code, device, direction, order)?);
                    }
                }
            }
            Ok(Self(programs))
        };
        // A thread of its own: it stays in the namespace.
        thread::scope(|scope| {
            scope
                .spawn(attach)
                .join()
                .map_err(|_panic| anyhow!("a thread that attaches panicked"))?
        })
    }

    /// Packets that the program with the fewest has seen.
    pub(crate) fn seen(&self) -> Result<u64> {
        let mut least = u64::MAX;
        for program in &self.0 {
            let counts = program.map(COUNTS).context("find the map of counts")?;
            least = least.min(Array::<_, u64>::try_from(counts)?.get(&0, 0)?);
        }
        Ok(least)
    }
}

fn attach_one(
    code: &[u8],
    device: &str,
    direction: TcAttachType,
    order: LinkOrder,
) -> Result<Ebpf> {
    let mut object = Ebpf::load(code).context("load a program that counts")?;
    let program: &mut SchedClassifier =
        object.program_mut(PROGRAM).context("find the program")?.try_into()?;
    program.load()?;
    program
        .attach_with_options(device, direction, TcAttachOptions::TcxOrder(order))
        .with_context(|| format!("attach a program to {device}"))?;
    Ok(object)
}

/// The object file: `COUNTS[0] += 1; return TCX_NEXT`.
fn program() -> Result<Vec<u8>> {
    // Instructions as the kernel has them (Documentation/bpf/standardization/instruction-set.rst):
    // opcode, registers, offset, immediate.
    let code: [(u8, u8, i16, i32); 11] = [
        (0x62, 0x0a, -4, 0), // *(u32 *)(r10 - 4) = 0
        (0xbf, 0xa2, 0, 0),  // r2 = r10
        (0x07, 0x02, 0, -4), // r2 += -4
        (0x18, 0x01, 0, 0),  // r1 = COUNTS
        (0x00, 0x00, 0, 0),  //   (second half)
        (0x85, 0x00, 0, 1),  // r0 = bpf_map_lookup_elem(r1, r2)
        (0x15, 0x00, 2, 0),  // if r0 == 0 goto out
        (0xb7, 0x01, 0, 1),  // r1 = 1
        (0xdb, 0x10, 0, 0),  // lock *(u64 *)(r0 + 0) += r1
        (0xb7, 0x00, 0, -1), // out: r0 = TCX_NEXT
        (0x95, 0x00, 0, 0),  // return r0
    ];
    let code: Vec<u8> = code
        .iter()
        .flat_map(|(op, registers, offset, immediate)| {
            let mut bytes = vec![*op, *registers];
            bytes.extend(offset.to_le_bytes());
            bytes.extend(immediate.to_le_bytes());
            bytes
        })
        .collect();
    // Type array, keys of 4 bytes, values of 8, one entry, no flags.
    let map: Vec<u8> = [2u32, 4, 8, 1, 0].iter().flat_map(|word| word.to_le_bytes()).collect();

    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let mut section = |name: &str, kind, data: &[u8]| {
        let section = object.add_section(Vec::new(), name.into(), kind);
        object.append_section_data(section, data, 8);
        section
    };
    let text = section("classifier", SectionKind::Text, &code);
    let maps = section("maps", SectionKind::Data, &map);
    section("license", SectionKind::Data, b"GPL\0");
    let mut symbol = |name: &str, section, kind, size: usize| {
        object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size: size as u64,
            kind,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    };
    symbol(PROGRAM, text, SymbolKind::Text, code.len());
    let counts = symbol(COUNTS, maps, SymbolKind::Data, map.len());
    // R_BPF_64_64 at the load of the map.
    let flags = RelocationFlags::Elf { r_type: object::elf::R_BPF_64_64 };
    let load = Relocation { offset: 3 * 8, symbol: counts, addend: 0, flags };
    object.add_relocation(text, load)?;
    Ok(object.write()?)
}
