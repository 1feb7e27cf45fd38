//! ARP of our own. Packets that XDP forwards never pass the kernel's neighbour code, so the kernel does not
//! notice a next hop that changed its address; and it never answers for addresses the host does not own.

mod announce;
mod packet;
mod socket;

pub use announce::announce;
pub(super) use packet::{FRAME_LEN, frame, parse, request};
pub(super) use socket::ArpSocket;
