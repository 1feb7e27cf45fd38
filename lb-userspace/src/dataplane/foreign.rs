//! Whose an XDP program is that we have not attached, as far as the kernel and pins tell. Only looks.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};

/// Directories that are searched for pins, this deep.
const DEPTH: usize = 4;
/// Pins that are looked at, at most.
const MOST_PINS: usize = 4096;

/// A program that somebody else has loaded.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Foreign {
    /// The kernel's id of it.
    pub program: u32,
    /// Its name.
    pub name: Option<String>,
    /// Digest of its instructions, in hex.
    pub tag: Option<String>,
    /// The user who loaded it.
    pub user: Option<u32>,
    /// Ids of links that attach it; without one it was attached over netlink, by `ip link` for instance.
    pub links: Vec<u32>,
    /// Pins of the program or of a link of it.
    pub pins: Vec<PathBuf>,
}

/// Finds out about the program with this id; `bpffs` is searched for pins.
pub fn foreign(program: u32, bpffs: &Path) -> Foreign {
    let info = loaded_programs().flatten().find(|info| info.id() == program);
    let links = loaded_links().flatten().filter(|link| link.program_id() == program);
    let mut pins = Vec::new();
    let mut left = MOST_PINS;
    search(bpffs, DEPTH, &mut left, &mut |path| {
        if names(path, program) {
            pins.push(path.to_owned());
        }
    });
    Foreign {
        program,
        name: info.as_ref().and_then(|info| info.name_as_str()).map(str::to_owned),
        tag: info.as_ref().map(|info| format!("{:016x}", info.tag())),
        user: info.as_ref().and_then(ProgramInfo::created_by_uid),
        links: links.map(|link| link.id()).collect(),
        pins,
    }
}

fn search(directory: &Path, depth: usize, left: &mut usize, seen: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => search(&path, depth - 1, left, seen),
            Ok(kind) if kind.is_file() => seen(&path),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether a pin is the program's, or a link's that attaches it.
fn names(path: &Path, program: u32) -> bool {
    let of_link = || FdLink::from(PinnedLink::from_pin(path).ok()?).info().ok();
    let by_link = of_link().is_some_and(|info| info.program_id() == program);
    by_link || ProgramInfo::from_pin(path).is_ok_and(|info| info.id() == program)
}
