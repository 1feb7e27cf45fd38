//! Access to one frame's bytes.

/// A frame that starts with its Ethernet header. Every access is a bounds-checked copy of a fixed size, because that
/// is what the kernel's verifier can follow; no reference into the frame survives a call.
pub trait Frame {
    /// Copies `N` bytes out; `None` where they are not all there (or, in the kernel, not in the first buffer).
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies `N` bytes in; `None`, and nothing written, where they do not fit.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Sum of the 16-bit words of `N` bytes, a multiple of four and at most 512, folded (RFC 1071, not inverted).
    fn sum<const N: usize>(&self, offset: usize) -> Option<u16>;

    /// Whether the whole frame, all its buffers included, has at least `len` bytes.
    fn holds(&self, len: usize) -> bool;

    /// Moves the beginning of the frame `by` bytes forward, so that it grows by bytes of undefined content, or
    /// backward where `by` is negative; `None`, and the frame as it was, where there is no room.
    fn grow_front(&mut self, by: i32) -> Option<()>;

    /// Cuts the frame to its first `len` bytes; `None`, and the frame as it was, if it is shorter.
    fn truncate(&mut self, len: usize) -> Option<()>;
}
