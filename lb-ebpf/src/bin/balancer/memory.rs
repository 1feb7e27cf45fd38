//! What packets of a CPU have found lately: an array of its own costs a third of a lookup in a hash map.
//!
//! Right for one epoch of [`Control`](lb_common::abi::Control): userspace makes it odd when keys begin to change, and
//! another even one when they are as they shall be. It is read before anything is looked up. So what is remembered under
//! it was found after its beginning; and if it has ended meanwhile, nobody looks at it.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use lb_common::abi::{ServiceEntry, ServiceKey, VipEntry, VipKey};

#[map]
static FOUND: PerCpuArray<Found> = PerCpuArray::with_max_entries(FOUND_LINES, 0);
#[map]
static ASKED: PerCpuArray<Asked> = PerCpuArray::with_max_entries(ASKED_LINES, 0);

/// 16 KiB: more would push packets and slots out of the nearest cache.
const FOUND_LINES: u32 = 256;
/// 4 KiB.
const ASKED_LINES: u32 = 128;

/// A service that there is.
#[repr(C)]
struct Found {
    /// A [`ServiceKey`].
    key: [u64; 3],
    epoch: u64,
    service: ServiceEntry,
}

/// What is known of an address: also that it is nobody's, so that packets for the host or others cost no lookup.
#[repr(C)]
struct Asked {
    /// A [`VipKey`].
    address: [u64; 2],
    epoch: u64,
    /// A [`VipEntry`], or [`NOBODYS`].
    vip: VipEntry,
}

const NOBODYS: VipEntry = VipEntry { flags: u32::MAX, reserved: 0 };

/// The service of a key: remembered, or found by `look` and remembered. An address without a [`VipEntry`] has none.
#[inline(always)]
pub fn service<'m>(
    key: &ServiceKey,
    epoch: Option<u64>,
    look: impl FnOnce() -> Option<&'m ServiceEntry>,
) -> Option<&'m ServiceEntry> {
    let Some(epoch) = epoch else { return look() };
    let [a, b, c] = key.words();
    let found = FOUND.get_ptr_mut(line(a ^ b ^ c, FOUND_LINES))?;
    // SAFETY: the kernel gave us this CPU's element, zeroed at first, which is a valid value; XDP programs are not
    // preempted by each other on a CPU.
    let found = unsafe { &mut *found };
    let [x, y, z] = found.key;
    if found.epoch == epoch && (a ^ x) | (b ^ y) | (c ^ z) == 0 {
        return Some(&found.service);
    }
    let asked = asked([a, b])?;
    if asked.is([a, b], epoch) && asked.vip.flags == NOBODYS.flags {
        return None;
    }
    let service = look()?;
    // Field by field: the whole would first be made on the stack.
    (found.key, found.epoch, found.service) = ([a, b, c], epoch, *service);
    Some(service)
}

/// As [`service`], for an address.
#[inline(always)]
pub fn vip(key: &VipKey, epoch: Option<u64>, look: impl FnOnce() -> Option<VipEntry>) -> Option<VipEntry> {
    let Some(epoch) = epoch else { return look() };
    let address = key.words();
    let asked = asked(address)?;
    if !asked.is(address, epoch) {
        (asked.vip, asked.address, asked.epoch) = (look().unwrap_or(NOBODYS), address, epoch);
    }
    Some(asked.vip).filter(|vip| vip.flags != NOBODYS.flags)
}

#[inline(always)]
fn asked([a, b]: [u64; 2]) -> Option<&'static mut Asked> {
    let asked = ASKED.get_ptr_mut(line(a ^ b, ASKED_LINES))?;
    // SAFETY: as in `service`.
    Some(unsafe { &mut *asked })
}

impl Asked {
    #[inline(always)]
    fn is(&self, [a, b]: [u64; 2], epoch: u64) -> bool {
        let [x, y] = self.address;
        self.epoch == epoch && (a ^ x) | (b ^ y) == 0
    }
}

/// Which of a power of two of lines is a key's (Fibonacci hashing: Knuth, The Art of Computer Programming, volume 3,
/// section 6.4).
#[inline(always)]
fn line(key: u64, lines: u32) -> u32 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - lines.trailing_zeros())) as u32
}
