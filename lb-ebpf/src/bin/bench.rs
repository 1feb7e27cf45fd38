//! The benchmark's stopwatch, and the least that a program can do: the floors it compares with.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on what its last run has left of the packet. `lb_bench` stands before the
//! program under test, makes the packet what it was, and goes on to it by a tail call; so nothing runs after it, and
//! the time of an iteration is from one beginning to the next. One CPU runs it at a time.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::ptr::{read_unaligned, read_volatile, write_unaligned, write_volatile};

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head},
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_ebpf::bench::{FIRST_PORT, PORTS_PER_ADDRESS, Task};

lb_ebpf::license!();

#[map]
static TASK: Array<Task> = Array::with_max_entries(1, 0);
/// The program under test.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Bounds every offset for the verifier.
const MAX_OFFSET: usize = 0xff;

/// Length of an Ethernet header and of an IPv4 one without options, in bytes.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// EtherType of IPv4 as a word in memory order.
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const TCP: u8 = 6;

/// Makes the packet what it was, then runs the program under test. `XDP_ABORTED` if that is not possible.
#[xdp(frags)]
fn lb_bench(context: XdpContext) -> u32 {
    if prepare(&context).is_some() {
        // SAFETY: nothing here has a destructor to run.
        unsafe { TARGET.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Floor: nothing but the verdict.
#[xdp(frags)]
fn lb_floor_tx(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Floor: reads what every balancer has to read, and swaps the MAC addresses.
#[xdp(frags)]
fn lb_floor_swap(context: XdpContext) -> u32 {
    swap(&context).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// Floor: IPv4 in IPv4 to a constant destination, nothing looked up.
#[xdp(frags)]
fn lb_floor_encap(context: XdpContext) -> u32 {
    encapsulate(&context).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

#[inline(always)]
fn prepare(context: &XdpContext) -> Option<()> {
    let task = TASK.get_ptr_mut(0)?;
    // SAFETY: the only element, and nobody else uses it while a benchmark runs.
    let task = unsafe { &mut *task };
    if task.done == task.warm_up {
        task.started_ns = now_ns();
    }
    task.done = task.done.wrapping_add(1);
    if task.done == task.iterations {
        task.ended_ns = now_ns();
    }
    let (start, end) = bounds(context);
    // Opaque, because LLVM would rather add the length to the pointers, which the verifier refuses.
    let grown = black_box(end - start) as i32 - task.frame_len as i32;
    if grown != 0 {
        adjust_head(context, grown)?;
    }
    match task.restore_words {
        0 => {}
        1..=2 => restore::<2>(context, task)?,
        3..=8 => restore::<8>(context, task)?,
        _ => restore::<16>(context, task)?,
    }
    vary(context, task)
}

/// Word by word: LLVM would call its own byte-wise copy for all three sizes together.
#[inline(always)]
fn restore<const WORDS: usize>(context: &XdpContext, task: &Task) -> Option<()> {
    let first: &[u64; WORDS] = task.template.first_chunk()?;
    let packet = window::<[u64; WORDS]>(context, 0)?.cast::<u64>();
    for (index, word) in first.iter().enumerate() {
        // SAFETY: `index` is below WORDS, and `window` has checked that so many words are packet data.
        let place = unsafe { packet.add(index) };
        // SAFETY: as above; a test's packet begins at a multiple of 8 (`XDP_PACKET_HEADROOM` into a page).
        unsafe { write_volatile(place, *word) };
    }
    Some(())
}

/// Gives the packet the next flow's addresses and port.
#[inline(always)]
fn vary(context: &XdpContext, task: &mut Task) -> Option<()> {
    if task.flows > 1 {
        put(context, task.address_at as usize, task.address.to_be())?;
        put(context, task.port_at as usize, (task.port as u16).to_be())?;
        task.flow = task.flow.wrapping_add(1);
        task.port = task.port.wrapping_add(1);
        if task.port == u32::from(FIRST_PORT) + u32::from(PORTS_PER_ADDRESS) {
            task.port = u32::from(FIRST_PORT);
            task.address = task.address.wrapping_add(1);
        }
        if task.flow >= task.flows {
            task.flow = 0;
            task.port = u32::from(FIRST_PORT);
            task.address = task.first_address;
        }
    }
    if task.services > 1 {
        put(context, task.service_at as usize, task.first_service.wrapping_add(task.service).to_be())?;
        task.service = task.service.wrapping_add(1);
        if task.service >= task.services {
            task.service = 0;
        }
    }
    Some(())
}

#[inline(always)]
fn swap(context: &XdpContext) -> Option<()> {
    let [a, b, c, d, e, f, ether_type]: [u16; 7] = get(context, 0)?;
    let [version, protocol]: [u8; 2] = [get(context, ETHERNET)?, get(context, ETHERNET + 9)?];
    let _ports: u32 = get(context, ETHERNET + IPV4)?;
    if ether_type != ETHERTYPE_IPV4 || version != 0x45 || protocol != TCP {
        return None;
    }
    put(context, 0, [d, e, f, a, b, c])
}

/// The checksum (RFC 1071) is computed like that of any header of which all is known but the length.
#[inline(always)]
fn encapsulate(context: &XdpContext) -> Option<()> {
    /// Version to flags, TTL and protocol, source, destination, each two bytes of it as a big-endian number.
    const SUM: u32 = 0x4500 + 0x4000 + 0x4004 + 0xc000 + 0x0201 + 0xc633 + 0x6402;
    let inner: u16 = get(context, ETHERNET + 2)?;
    let total_len = u16::from_be(inner).wrapping_add(IPV4 as u16);
    let sum = SUM + u32::from(total_len);
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    adjust_head(context, -(IPV4 as i32))?;
    put(context, 0, [0x0200_0000_u32.to_be(), 0x0102_0200_u32.to_be(), 0x0000_0101_u32.to_be()])?;
    put(context, 12, ETHERTYPE_IPV4)?;
    put(context, ETHERNET, (0x4500_0000 | u32::from(total_len)).to_be())?;
    put(context, ETHERNET + 4, 0x0000_4000_u32.to_be())?;
    put(context, ETHERNET + 8, (0x4004_0000 | u32::from(check)).to_be())?;
    put(context, ETHERNET + 12, [0xc000_0201_u32.to_be(), 0xc633_6402_u32.to_be()])
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn adjust_head(context: &XdpContext, delta: i32) -> Option<()> {
    // SAFETY: the context is the kernel's; every pointer into the packet is computed anew after this call.
    let refused = unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), delta) };
    (refused == 0).then_some(())
}

/// `data` and `data_end` as they are now; see `lb_ebpf::frame`.
#[inline(always)]
fn bounds(context: &XdpContext) -> (usize, usize) {
    let md: *const xdp_md = context.ctx;
    // SAFETY: the kernel hands every XDP program a valid context.
    let md = unsafe { &*md };
    // SAFETY: a reference is valid.
    let start = unsafe { read_volatile(&raw const md.data) };
    // SAFETY: as above.
    let end = unsafe { read_volatile(&raw const md.data_end) };
    (start as usize, end as usize)
}

/// Where a `T` at `offset` is, if the packet has it.
#[inline(always)]
fn window<T>(context: &XdpContext, offset: usize) -> Option<*mut T> {
    if offset > MAX_OFFSET {
        return None;
    }
    let (start, end) = bounds(context);
    (start + offset + size_of::<T>() <= end).then_some((start + offset) as *mut T)
}

#[inline(always)]
fn get<T>(context: &XdpContext, offset: usize) -> Option<T> {
    let window = window(context, offset)?;
    // SAFETY: `window` has checked that the bytes are packet data, and only integers are read.
    Some(unsafe { read_unaligned(window) })
}

#[inline(always)]
fn put<T>(context: &XdpContext, offset: usize, value: T) -> Option<()> {
    let window = window(context, offset)?;
    // SAFETY: `window` has checked that the bytes are packet data.
    unsafe { write_unaligned(window, value) };
    Some(())
}
