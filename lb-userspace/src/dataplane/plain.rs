//! Map types that zerocopy knows to be plain bytes, as aya takes them.

use zerocopy::{FromBytes, IntoBytes};

/// A value that crosses to the kernel as it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: any bytes are a `T` and no byte of one is padding, as the bounds say, and `Plain` has its layout.
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> aya::Pod for Plain<T> {}
