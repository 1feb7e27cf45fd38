//! How bpf-linker generates code. The benchmark's wrapper and floors are to cost what they would in C, so they load
//! and store unaligned words whole: XDP runs only where the hardware does that.

fn main() {
    println!("cargo::rustc-link-arg-bin=bench=--cpu-features=+allows-misaligned-mem-access");
}
