//! Whole configs in, models or rendered findings out.

mod bad;
mod flows;
mod good;
mod health;
mod hostile;
mod nic;
mod readers;
mod traffic;

use std::io;
use std::net::Ipv4Addr;

use super::{Diagnostics, Loaded, parse_with};

/// A list of this many clients.
fn many(count: u32) -> Vec<u8> {
    (0..count).map(|i| format!("{}\n", Ipv4Addr::from(0x0a00_0000 + i * 2))).collect::<String>().into_bytes()
}

/// Parses without touching files: the only ones there are are these.
fn parse(text: &str) -> Result<Loaded, Diagnostics> {
    parse_with("/etc/lb".as_ref(), "lb.yaml", text, &|file, _| match file {
        "cluster.key" => Ok(b"00112233445566778899aabbccddeeff\n".to_vec()),
        "short.key" => Ok(b"0011".to_vec()),
        "sources.txt" => {
            Ok(b"# ours\n198.51.100.0/24 # an office\r\n\n2001:db8::/32\n198.51.100.0/24\n".to_vec())
        }
        "bad.txt" => Ok(b"198.51.100.0/24\n198.51.100.1/24\n\xff\nnobody\n".to_vec()),
        "empty.txt" => Ok(b"# nobody yet\n\n".to_vec()),
        "many.txt" => Ok(many(100_001)),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}
