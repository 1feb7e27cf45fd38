//! The smallest XDP program, "pass everything", as an object file that `ip` can load.
//!
//! A frame sent with XDP_TX arrives only if the receiving veth peer has an XDP program. GRO on the peer is
//! not enough: it makes the kernel queue the frame, but `veth_xdp_flush` wakes the receiver only where there
//! is a program (seen on Linux 6.18: frames stay in the ring until some other packet comes).
//!
//! Built here byte by byte, so that the lab needs no compiler and no BPF library.

/// The section's name makes the loader allow multi-buffer packets, so that the MTU may be large.
pub(super) const SECTION: &str = "xdp.frags";

const STRINGS: &[u8] = b"\0xdp.frags\0.symtab\0.strtab\0pass\0";
const NAME_PROGRAM: u32 = 1;
const NAME_SYMTAB: u32 = 11;
const NAME_STRTAB: u32 = 19;
const NAME_PASS: u32 = 27;

/// `r0 = XDP_PASS; exit`
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// A relocatable ELF file for BPF (ELF-64 object file format; `linux/bpf.h`), little endian like the hosts
/// the project supports.
pub(super) fn object() -> Vec<u8> {
    const HEADER: u64 = 64;
    let code_at = HEADER;
    let symbols_at = code_at + CODE.len() as u64;
    let strings_at = symbols_at + 2 * 24;
    let sections_at = (strings_at + STRINGS.len() as u64).next_multiple_of(8);

    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little endian
    halves(&mut file, &[1, 247]); // relocatable, EM_BPF
    words(&mut file, &[1]);
    longs(&mut file, &[0, 0, sections_at]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 0, 0, 64, 4, 3]); // four sections, names in the third

    file.extend(CODE);
    longs(&mut file, &[0, 0, 0]); // the null symbol
    words(&mut file, &[NAME_PASS]);
    file.extend([0x12, 0]); // a global function
    halves(&mut file, &[1]); // in section 1
    longs(&mut file, &[0, CODE.len() as u64]);
    file.extend(STRINGS);
    file.resize(usize::try_from(sections_at).unwrap_or(file.len()), 0);

    section(&mut file, [0, 0], 0, [0, 0], [0, 0], [0, 0]);
    section(&mut file, [NAME_PROGRAM, 1], 6, [code_at, CODE.len() as u64], [0, 0], [8, 0]);
    section(&mut file, [NAME_SYMTAB, 2], 0, [symbols_at, 2 * 24], [3, 1], [8, 24]);
    section(&mut file, [NAME_STRTAB, 3], 0, [strings_at, STRINGS.len() as u64], [0, 0], [1, 0]);
    file
}

fn section(
    file: &mut Vec<u8>,
    name_type: [u32; 2],
    flags: u64,
    place: [u64; 2],
    link: [u32; 2],
    layout: [u64; 2],
) {
    words(file, &name_type);
    longs(file, &[flags, 0]);
    longs(file, &place);
    words(file, &link);
    longs(file, &layout);
}

fn halves(file: &mut Vec<u8>, values: &[u16]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn words(file: &mut Vec<u8>, values: &[u32]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn longs(file: &mut Vec<u8>, values: &[u64]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_where_the_tables_say() {
        for (at, name) in
            [(NAME_PROGRAM, SECTION), (NAME_SYMTAB, ".symtab"), (NAME_STRTAB, ".strtab"), (NAME_PASS, "pass")]
        {
            let rest = &STRINGS[at as usize..];
            assert!(rest.starts_with(name.as_bytes()) && rest[name.len()] == 0, "{name}");
        }
    }

    #[test]
    fn the_section_table_ends_the_file() {
        let file = object();
        let table = u64::from_le_bytes(file[40..48].try_into().unwrap());
        assert_eq!(file.len() as u64, table + 4 * 64);
    }
}
