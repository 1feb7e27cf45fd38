//! The verifier accepts every program, and none comes near its limits.

use std::collections::{BTreeMap, BTreeSet};

use lb_userspace::dataplane::{objects, verify};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolKind};

/// Instructions the verifier is willing to walk through (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h).
const INSTRUCTIONS: u32 = 1_000_000;
/// Stack of a program and all it calls (`MAX_BPF_STACK`, include/linux/filter.h).
const STACK: u32 = 512;
/// Each function's share of the stack is rounded up to this where programs are compiled to machine code
/// (`round_up_stack_depth`, kernel/bpf/verifier.c).
const ROUNDING: u32 = 16;

fn percent(used: u32, limit: u32) -> f64 {
    f64::from(used) * 100.0 / f64::from(limit)
}

#[test]
fn every_program_is_accepted_with_room_to_spare() {
    let programs = match verify() {
        Ok(programs) => programs,
        Err(refusal) => panic!("{refusal}\n{refusal:#?}"),
    };
    let depths: BTreeMap<&str, u32> =
        objects().into_iter().map(|(name, elf)| (name, Stack::of(elf, name))).collect();
    assert_eq!(programs.len(), depths.len());
    let mut crowded = Vec::new();
    for program in programs {
        let (instructions, stack) = (program.verified_instructions, depths[program.program]);
        println!(
            "{}: {instructions} instructions verified ({:.2} % of {INSTRUCTIONS}), {stack} bytes of stack at most \
             ({:.0} % of {STACK}, read from the object code), {} bytes of machine code",
            program.program,
            percent(instructions, INSTRUCTIONS),
            percent(stack, STACK),
            program.jitted_bytes,
        );
        let limits = [(instructions, INSTRUCTIONS, "instructions"), (stack, STACK, "bytes of stack")];
        let exceeded = limits.iter().filter(|(used, limit, _)| *used == 0 || *used * 10 > *limit * 8);
        crowded.extend(
            exceeded.map(|(used, limit, what)| format!("{}: {used} of {limit} {what}", program.program)),
        );
    }
    assert!(crowded.is_empty(), "over 80 % of a limit, or unknown: {crowded:?}");
}

/// A function: its own stack in bytes, and where it calls.
struct Function {
    own: u32,
    calls: BTreeSet<Place>,
}

/// Index of a section, and byte offset of an instruction in it.
type Place = (usize, u64);

/// Upper bounds of stack use, from the instructions: the verifier tells its own figure only in a log that aya shows
/// on refusal alone.
struct Stack {
    functions: BTreeMap<Place, Function>,
}

impl Stack {
    /// The deepest that the program `entry` can get.
    fn of(elf: &[u8], entry: &str) -> u32 {
        let file = object::File::parse(elf).expect("an ELF object");
        let mut functions = BTreeMap::new();
        let mut start = None;
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
            let Some(section) = symbol.section_index() else { continue };
            let place = (section.0, symbol.address());
            if symbol.name() == Ok(entry) {
                start = Some(place);
            }
            functions.insert(place, function(&file, section, symbol.address(), symbol.size()));
        }
        let start = start.unwrap_or_else(|| panic!("{entry} is in the object"));
        Self { functions }.depth(start)
    }

    /// BPF has no recursion: the verifier refuses it.
    fn depth(&self, place: Place) -> u32 {
        let function =
            self.functions.get(&place).unwrap_or_else(|| panic!("a call to {place:?}, which is no function"));
        let deepest = function.calls.iter().map(|callee| self.depth(*callee)).max().unwrap_or(0);
        function.own.next_multiple_of(ROUNDING) + deepest
    }
}

/// Reads a function's instructions (RFC 9669): accesses relative to the frame pointer r10 and pointers made from it.
fn function(file: &object::File<'_>, section: SectionIndex, start: u64, size: u64) -> Function {
    const FRAME: u8 = 10;
    const MOV: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const CALL: u8 = 0x85;
    const CALL_LOCAL: u8 = 1;
    let found = file.section_by_index(section).expect("the symbol's section");
    let code = found.data().expect("its bytes");
    let code = &code[start as usize..(start + size) as usize];
    let relocations: BTreeMap<u64, _> = found.relocations().collect();
    let mut function = Function { own: 0, calls: BTreeSet::new() };
    // Copies of r10 that have not been moved yet: LLVM adds the offset right behind.
    let mut copies = BTreeSet::new();
    for (index, raw) in code.chunks_exact(8).enumerate() {
        let &[opcode, registers, o0, o1, i0, i1, i2, i3] = raw else { continue };
        let (target, source) = (registers & 0xf, registers >> 4);
        let offset = i32::from(i16::from_le_bytes([o0, o1]));
        let immediate = i32::from_le_bytes([i0, i1, i2, i3]);
        let at = start + index as u64 * 8;
        // Classes: LDX 1, ST 2, STX 3.
        let base = match opcode & 7 {
            1 => Some(source),
            2 | 3 => Some(target),
            _ => None,
        };
        let deepest = match (opcode, base) {
            (_, Some(FRAME)) => offset,
            (ADD, None) if copies.contains(&target) => immediate,
            _ => 0,
        };
        function.own = function.own.max(deepest.min(0).unsigned_abs());
        if base.is_none() || opcode & 7 == 1 {
            copies.remove(&target);
        }
        if opcode == MOV && source == FRAME {
            copies.insert(target);
        }
        if opcode == CALL && source == CALL_LOCAL {
            function.calls.insert(callee(file, section, at, immediate, relocations.get(&at)));
        }
    }
    function
}

/// Where a call goes: by its relocation (symbol plus the immediate's instructions), or relative within its section.
fn callee(
    file: &object::File<'_>,
    section: SectionIndex,
    at: u64,
    immediate: i32,
    relocation: Option<&object::Relocation>,
) -> Place {
    let relative = |from: u64| (from as i64 + (i64::from(immediate) + 1) * 8) as u64;
    let Some(relocation) = relocation else { return (section.0, relative(at)) };
    let RelocationTarget::Symbol(index) = relocation.target() else { panic!("a call to {relocation:?}") };
    let symbol = file.symbol_by_index(index).expect("the relocation's symbol");
    let section = symbol.section_index().expect("a function that is in the object");
    // A section's symbol: the immediate says where in it.
    let place =
        if symbol.kind() == SymbolKind::Section { relative(symbol.address()) } else { symbol.address() };
    (section.0, place)
}
