//! What the kernel logs while something is tried: some drivers say there why they refuse.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc::O_NONBLOCK;

/// Longest record (`PRINTK_MESSAGE_MAX`, kernel/printk/internal.h), in bytes.
const LONGEST: usize = 2048;
/// Records that are read, at most.
const MOST: usize = 256;

/// The log from a moment on.
pub(super) struct LogTail(File);

impl LogTail {
    /// From now on; nothing where the log may not be read.
    pub(super) fn start() -> Option<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self(file))
    }

    /// The last line since then that names the interface.
    pub(super) fn about(mut self, interface: &str) -> Option<String> {
        let mut found = None;
        let mut buffer = [0; LONGEST];
        for _ in 0..MOST {
            // Each read gives one record; the log may have overtaken us.
            let length = match self.0.read(&mut buffer) {
                Ok(length) if length > 0 => length,
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Ok(_) | Err(_) => break,
            };
            let record = String::from_utf8_lossy(buffer.get(..length)?).into_owned();
            found = message(&record, interface).or(found);
        }
        found
    }
}

/// The text of a record (Documentation/ABI/testing/dev-kmsg), if it names the interface.
fn message(record: &str, interface: &str) -> Option<String> {
    let text = record.split_once(';')?.1.lines().next()?;
    let named =
        text.split(|c: char| !c.is_alphanumeric() && !"_-.@".contains(c)).any(|word| word == interface);
    named.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_about_the_interface() {
        let record =
            "4,1142,77,-;virtio_net virtio3 eth0: XDP requires MTU less than 4064\n SUBSYSTEM=virtio\n";
        assert_eq!(
            message(record, "eth0").as_deref(),
            Some("virtio_net virtio3 eth0: XDP requires MTU less than 4064")
        );
        assert_eq!(message(record, "eth"), None);
        assert_eq!(message("garbage", "eth0"), None);
    }
}
