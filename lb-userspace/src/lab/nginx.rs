//! A stock nginx per backend: its configuration, its files, and when it is ready.
//!
//! - `/`: `backend b1` and `client ADDRESS:PORT`, each connection closed after its answer, so that one
//!   request is one connection; every answer carries `X-Backend`;
//! - `/big`: a file with known contents;
//! - `/slow/big`: the same at 4 MiB/s, or `?rate=500k`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::error::LabError;

const BLOCK_BYTES: usize = 1 << 20;

/// The configuration of backend `name`, with all of its files under `dir`.
pub(super) fn config(name: &str, dir: &Path, ipv6: bool) -> String {
    let dir = dir.display();
    let listen_v6 = if ipv6 { "\n        listen [::]:80 backlog=4096;" } else { "" };
    // One process, no master: killing it kills all of it, and the death signal reaches all of it.
    format!(
        r#"daemon off;
master_process off;
pid {dir}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {dir}/{name}.tmp/body;
    proxy_temp_path {dir}/{name}.tmp/proxy;
    fastcgi_temp_path {dir}/{name}.tmp/fastcgi;
    uwsgi_temp_path {dir}/{name}.tmp/uwsgi;
    scgi_temp_path {dir}/{name}.tmp/scgi;
    map $arg_rate $lab_rate {{ default 4m; "~^[0-9]+[km]?$" $arg_rate; }}
    server {{
        listen *:80 backlog=4096;{listen_v6}
        keepalive_timeout 0;
        add_header X-Backend {name} always;
        location = / {{ return 200 "backend {name}\nclient $remote_addr:$remote_port\n"; }}
        location = /healthz {{ return 200 "ok\n"; }}
        location = /big {{ alias {dir}/big; }}
        location = /slow/big {{ alias {dir}/big; limit_rate $lab_rate; }}
    }}
}}
"#
    )
}

/// Writes what `/big` serves: pseudo-random blocks that all differ, so that lost, repeated or swapped parts
/// of a download show. Equal in every lab of the same size.
pub(super) fn write_big_file(path: &Path, bytes: u64) -> Result<(), LabError> {
    let attempt = || LabError::io(format!("write {}", path.display()));
    let file = File::create(path).map_err(attempt())?;
    fill(BufWriter::with_capacity(BLOCK_BYTES, file), bytes).map_err(attempt())
}

fn fill(mut out: impl Write, bytes: u64) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut state = 0_u64;
    while block.len() < BLOCK_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15); // splitmix64
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        block.extend((word ^ (word >> 31)).to_le_bytes());
    }
    let (mut left, mut number) = (bytes, 0_u64);
    while left > 0 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        let part = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        out.write_all(&block[..part])?;
        left -= part as u64;
        number += 1;
    }
    out.flush()
}

/// Whether the process listens on port 80, seen in its own namespace without entering it.
pub(super) fn listens(pid: u32) -> bool {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(":0050")) && words.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_same_each_time_and_its_blocks_differ() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        fill(&mut a, 2 * BLOCK_BYTES as u64 + 5).unwrap();
        fill(&mut b, 2 * BLOCK_BYTES as u64 + 5).unwrap();
        assert_eq!(a.len(), 2 * BLOCK_BYTES + 5);
        assert!(a == b);
        assert_ne!(a[..BLOCK_BYTES], a[BLOCK_BYTES..2 * BLOCK_BYTES]);
    }
}
