//! Bytes ↔ meaning: a file per protocol, each a pair of parse and emit over fixed-size arrays. Nothing here decides.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod shim;
