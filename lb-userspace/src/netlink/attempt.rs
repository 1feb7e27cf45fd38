//! Asks the kernel in its other language why it refuses an XDP program: a link that fails to attach gives an error
//! number only, an attachment over netlink comes back with words (`NETLINK_EXT_ACK`). Leaves nothing attached.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::XdpMode;

// include/uapi/linux/if_link.h
const UPDATE_IF_NOEXIST: u32 = 1;
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
const REPLACE: u32 = 1 << 4;
/// No program.
const NONE: i32 = -1;

// include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The answer's header, its error number, and the header of the question, which is all that `NETLINK_CAP_ACK` leaves.
const TLVS_AT: usize = 16 + 4 + 16;

/// The kernel's words when this program is attached to the interface in this mode; nothing where it has none, or takes
/// the program after all, which is detached at once.
pub fn refusal(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<Option<String>> {
    let mode = if mode == XdpMode::Generic { SKB_MODE } else { DRV_MODE };
    let fd = program.as_raw_fd();
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.bind_auto()?;
    let attach = vec![LinkXdp::Fd(fd), LinkXdp::Flags(mode | UPDATE_IF_NOEXIST)];
    let answer = ask(&socket, ifindex, attach)?;
    if answer.errno == 0 {
        // Only if it is still this program.
        let expected = LinkXdp::ExpectedFd(fd.cast_unsigned());
        let detached =
            ask(&socket, ifindex, vec![LinkXdp::Fd(NONE), LinkXdp::Flags(mode | REPLACE), expected])?;
        return match detached.errno {
            0 => Ok(None),
            errno => Err(io::Error::from_raw_os_error(errno)),
        };
    }
    Ok(answer.words)
}

/// What the kernel answers.
#[derive(Debug, Default, Eq, PartialEq)]
struct Answer {
    /// Positive; 0: it was done.
    errno: i32,
    words: Option<String>,
}

fn ask(socket: &Socket, ifindex: u32, xdp: Vec<LinkXdp>) -> io::Result<Answer> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    link.attributes.push(LinkAttribute::Xdp(xdp));
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (received, _) = socket.recv_from_full()?;
    Answer::parse(&received).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Answer {
    /// Reads an acknowledgement (`struct nlmsghdr`, `struct nlmsgerr`, attributes).
    fn parse(message: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(i32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
        if half(4)? != NLMSG_ERROR {
            return None;
        }
        let has_words = half(6)? & NLM_F_ACK_TLVS != 0;
        let errno = word(16)?.checked_neg()?;
        let words = has_words.then(|| words(message.get(TLVS_AT..)?)).flatten();
        Some(Self { errno, words })
    }
}

/// The text among the attributes.
fn words(mut attributes: &[u8]) -> Option<String> {
    loop {
        let half = |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(half(0)?), half(2)?);
        let value = attributes.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let text = value.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).trim().to_owned()).filter(|text| !text.is_empty());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An acknowledgement with these flags, error number and attributes.
    fn message(flags: u16, errno: i32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((TLVS_AT as u32 + attributes.len() as u32).to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend((-errno).to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(attributes);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = 4 + value.len();
        let mut bytes = Vec::new();
        bytes.extend((length as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_text_is_found_among_attributes() {
        let attributes = [attribute(2, &[1, 2, 3, 4, 5]), attribute(1, b"veth: no\0")].concat();
        let answer = Answer::parse(&message(NLM_F_ACK_TLVS, 34, &attributes));
        assert_eq!(answer, Some(Answer { errno: 34, words: Some("veth: no".into()) }));
    }

    #[test]
    fn answers_without_text() {
        let silent = Some(Answer { errno: 95, words: None });
        assert_eq!(Answer::parse(&message(0, 95, &[])), silent);
        assert_eq!(Answer::parse(&message(NLM_F_ACK_TLVS, 95, &attribute(1, b"\0"))), silent);
        assert_eq!(Answer::parse(&message(NLM_F_ACK_TLVS, 95, &[9, 0, 1, 0])), silent, "cut short");
        assert_eq!(Answer::parse(&message(0, 0, &[])), Some(Answer::default()), "done");
        assert_eq!(Answer::parse(&[0; 8]), None);
    }
}
