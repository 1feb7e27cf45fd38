//! What may follow the two ends of a packet, in any order.

use super::build::{Extension, Fragment, Sum};
use super::payload::pattern;
use super::words::{ParseError, Words};
use super::{Link, Mac};

/// TCP's flags and their bits.
pub(super) const FLAGS: [(&str, u8); 8] = [
    ("syn", 0x02),
    ("ack", 0x10),
    ("fin", 0x01),
    ("rst", 0x04),
    ("psh", 0x08),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];
/// The word for no flag at all.
pub(super) const NO_FLAGS: &str = "noflags";
/// Words that another packet follows.
pub(super) const CARRYING: &str = "carrying";
/// As [`CARRYING`], in ICMP errors.
pub(super) const ABOUT: &str = "about";
/// More of them are no packet's.
const MAX_EXTENSIONS: usize = 16;
/// Bytes that a payload can have at most.
pub(super) const MAX_BYTES: u32 = u16::MAX as u32;

/// Where options stand.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    pub(super) udp: bool,
    /// An ICMP error, which quotes a packet.
    pub(super) error: bool,
    /// Carries another packet.
    pub(super) tunnel: bool,
    /// Not within another packet.
    pub(super) outermost: bool,
}

/// Them.
#[derive(Default)]
pub(super) struct Options {
    pub(super) link: Option<Link>,
    pub(super) vlans: Vec<u16>,
    pub(super) ttl: Option<u8>,
    pub(super) tos: u8,
    pub(super) df: bool,
    pub(super) id: u16,
    pub(super) label: u32,
    pub(super) options: u8,
    pub(super) extensions: Vec<Extension>,
    pub(super) fragment: Option<Fragment>,
    pub(super) flags: Option<u8>,
    pub(super) mss: Option<u16>,
    pub(super) no_sum: bool,
    pub(super) quote: Option<u16>,
    pub(super) payload: Option<Vec<u8>>,
}

impl Place {
    fn allowed(self) -> String {
        let mut words = vec!["ttl N", "tos N", "frag ID OFFSET more|last"];
        words.extend(if self.v6 {
            ["label N", "ext hbh|route|dest", ""]
        } else {
            ["df", "id N", "options N"]
        });
        if self.tcp {
            words.extend(FLAGS.map(|(name, _)| name));
            words.extend([NO_FLAGS, "mss N"]);
        }
        if self.udp {
            words.push("nosum");
        }
        if self.error {
            words.extend(["quote N", "about PACKET"]);
        }
        words.extend(if self.tunnel { ["carrying PACKET", ""] } else { ["len N", "data HEX"] });
        if self.outermost {
            words.extend(["mac SRC > DST", "vlan N [vlan M]"]);
        }
        words.retain(|word| !word.is_empty());
        words.join(", ")
    }
}

impl Options {
    /// Reads `mac` and `vlan` in front of a packet.
    pub(super) fn read_link(&mut self, words: &mut Words<'_>) -> Result<(), ParseError> {
        while let Some(word) = words.peek() {
            match word.text {
                "mac" => self.mac(words)?,
                "vlan" => self.vlan(words)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Reads up to the end of the line, or to the packet that this one carries.
    pub(super) fn read(&mut self, words: &mut Words<'_>, place: Place) -> Result<(), ParseError> {
        while let Some(word) = words.peek() {
            match word.text {
                ABOUT if place.error => break,
                CARRYING if place.tunnel => break,
                "mac" if place.outermost => self.mac(words)?,
                "vlan" if place.outermost => self.vlan(words)?,
                _ => self.one(words, place)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, words: &mut Words<'_>, place: Place) -> Result<(), ParseError> {
        let word = words.want(&place.allowed())?;
        match word.text {
            "ttl" => self.ttl = Some(words.byte()?),
            "tos" => self.tos = words.byte()?,
            "df" if !place.v6 => self.df = true,
            "id" if !place.v6 => self.id = words.short()?,
            "options" if !place.v6 => self.ip_options(words)?,
            "label" if place.v6 => self.label = words.number(0xf_ffff)?,
            "ext" if place.v6 => self.extension(words)?,
            "frag" => self.fragment(words, place)?,
            "mss" if place.tcp => self.mss = Some(words.short()?),
            NO_FLAGS if place.tcp => self.flags = Some(0),
            "nosum" if place.udp => self.no_sum = true,
            "quote" if place.error => self.quote = Some(words.short()?),
            "len" if !place.tunnel => self.payload = Some(pattern(words.number(MAX_BYTES)? as usize)),
            "data" if !place.tunnel => self.payload = Some(words.hex(MAX_BYTES as usize)?),
            text => match FLAGS.iter().find(|(name, _)| place.tcp && *name == text) {
                Some((_, bit)) => self.flags = Some(self.flags.unwrap_or(0) | bit),
                None => return Err(words.refuse(word, &place.allowed())),
            },
        }
        Ok(())
    }

    fn mac(&mut self, words: &mut Words<'_>) -> Result<(), ParseError> {
        words.expect("mac")?;
        let what = "a MAC address such as 02:00:00:00:00:01";
        let source: Mac = words.value(what)?;
        words.expect(">")?;
        self.link = Some(Link { source, destination: words.value(what)? });
        Ok(())
    }

    fn vlan(&mut self, words: &mut Words<'_>) -> Result<(), ParseError> {
        let Some(word) = words.next() else { return Ok(()) };
        if self.vlans.len() == 2 {
            let help = "take one out".to_owned();
            return Err(words.object(word, "a frame has at most two VLAN tags".to_owned(), help));
        }
        self.vlans.push(words.number(4095)? as u16);
        Ok(())
    }

    fn ip_options(&mut self, words: &mut Words<'_>) -> Result<(), ParseError> {
        let what = "a multiple of 4 from 0 to 40";
        let word = words.want(what)?;
        let len = word.text.parse().ok().filter(|len: &u8| *len <= 40 && len.is_multiple_of(4));
        self.options = len.ok_or_else(|| words.refuse(word, what))?;
        Ok(())
    }

    fn extension(&mut self, words: &mut Words<'_>) -> Result<(), ParseError> {
        let what = "hbh, route or dest";
        let word = words.want(what)?;
        let found = Extension::ALL.into_iter().find(|extension| extension.name() == word.text);
        if self.extensions.len() == MAX_EXTENSIONS {
            let message = format!("more than {MAX_EXTENSIONS} extension headers");
            return Err(words.object(word, message, "take some out".to_owned()));
        }
        self.extensions.push(found.ok_or_else(|| words.refuse(word, what))?);
        Ok(())
    }

    fn fragment(&mut self, words: &mut Words<'_>, place: Place) -> Result<(), ParseError> {
        let id = words.number(if place.v6 { u32::MAX } else { u16::MAX.into() })?;
        let what = "an offset in bytes, a multiple of 8 up to 65528";
        let word = words.want(what)?;
        let offset = word.text.parse().ok().filter(|offset: &u16| offset.is_multiple_of(8));
        let offset = offset.ok_or_else(|| words.refuse(word, what))?;
        let word = words.want("more or last")?;
        let more = match word.text {
            "more" => true,
            "last" => false,
            _ => return Err(words.refuse(word, "more or last")),
        };
        self.fragment = Some(Fragment { id, offset, more });
        Ok(())
    }

    /// Whether a UDP checksum is wanted.
    pub(super) fn sum(&self) -> Sum {
        if self.no_sum { Sum::Zero } else { Sum::Present }
    }
}
