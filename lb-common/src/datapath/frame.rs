//! Access to one frame's bytes.

/// A frame that starts with its Ethernet header. Every access is a bounds-checked copy of a fixed size, because that
/// is what the kernel's verifier can follow; no reference into the frame survives a call.
pub trait Frame {
    /// Copies `N` bytes out; `None` where they are not all there (or, in the kernel, not in the first buffer).
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies `N` bytes in; `None`, and nothing written, where they do not fit.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Whether the whole frame, all its buffers included, has at least `len` bytes.
    fn holds(&self, len: usize) -> bool;

    /// Puts `N` bytes of undefined content in front; `None`, and the frame as it was, where there is no room.
    fn grow_front<const N: usize>(&mut self) -> Option<()>;

    /// Takes `N` bytes off the front; `None`, and the frame as it was, where it is not longer than that.
    fn shrink_front<const N: usize>(&mut self) -> Option<()>;
}
