//! Lets the compiler load and store packet data word by word: in a packet nothing is aligned to more than two bytes, and
//! without this every address would be read byte by byte. The kernel allows it on all machines that have efficient
//! unaligned access, x86-64 and arm64 among them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
}
