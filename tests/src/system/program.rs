//! The balancer's object inside a built `lb`, found by what it is: an ELF file for BPF with the program's name in it.

use anyhow::Context;
use lb_common::abi::names::BALANCER_PROGRAM;
use object::{Object, ObjectSection, ObjectSymbol};

/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_ALU | BPF_MOV | BPF_K` (RFC 9669 section 4.1): the second clears the upper half of
/// the register, which a small positive constant leaves clear as well.
const MOVE_64: u8 = 0xb7;
pub(super) const MOVE_32: u8 = 0xb4;
/// `BPF_LD | BPF_IMM | BPF_DW`: takes two slots.
const LOAD_64: u8 = 0x18;
/// Size of a slot in bytes.
const SLOT: usize = 8;
/// 64 bits, little-endian, version 1.
const MAGIC: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
/// Where an ELF file names its machine, and BPF's number.
const MACHINE: (usize, [u8; 2]) = (18, [247, 0]);

/// Where in `lb` an instruction of the balancer's program is that moves a small constant.
pub(super) fn harmless_instruction(lb: &[u8]) -> anyhow::Result<usize> {
    let starts = lb
        .windows(MACHINE.0 + 2)
        .enumerate()
        .filter(|(_, window)| window.starts_with(&MAGIC) && window[MACHINE.0..] == MACHINE.1);
    let found = starts.filter_map(|(at, _)| Some(at + in_object(&lb[at..])?)).next();
    found.context("lb has no balancer in it, or none with a move of a constant")
}

fn in_object(object: &[u8]) -> Option<usize> {
    let file = object::File::parse(object).ok()?;
    let program = file.symbols().find(|symbol| symbol.name() == Ok(BALANCER_PROGRAM))?;
    let section = file.section_by_index(program.section_index()?).ok()?;
    let (start, _) = section.file_range()?;
    let start = usize::try_from(start + program.address() - section.address()).ok()?;
    let code = object.get(start..start + usize::try_from(program.size()).ok()?)?;
    let mut at = 0;
    while let Some(instruction) = code.get(at..at + SLOT) {
        let [operation, _, _, _, constant @ ..] = instruction else { return None };
        if *operation == MOVE_64 && constant[3] & 0x80 == 0 {
            return Some(start + at);
        }
        at += if *operation == LOAD_64 { 2 * SLOT } else { SLOT };
    }
    None
}
