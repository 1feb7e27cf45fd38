//! Hash maps read and written many entries at a time, for which aya has no call: one system call for some thousands of
//! entries instead of two for each (`BPF_MAP_LOOKUP_BATCH`, kernel/bpf/hashtab.c; Linux 5.6).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::Pod;
use aya::maps::{HashMap, IterableMap, MapData};
use nix::errno::Errno;
use nix::libc::{SYS_bpf, c_long, syscall};

/// How many entries are read at a time; more where a bucket of the map has more.
const BATCH: usize = 4096;
/// A bucket with so many entries is none of a map that spreads its keys.
const LARGEST: usize = 1 << 20;
/// `ENOTSUPP` (include/linux/errno.h), for maps that have no such operation.
const NOT_SUPPORTED: i32 = 524;

/// Commands of `bpf(2)` (`enum bpf_cmd`, include/uapi/linux/bpf.h).
#[derive(Clone, Copy)]
enum Command {
    Lookup = 24,
    Update = 26,
}

/// Its argument for them (`union bpf_attr`, the struct `batch`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How far a map could be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Read {
    /// Every entry that was there all the time was shown.
    Whole,
    /// The kernel cannot read maps in batches.
    Unsupported,
}

/// Memory for the entries of a batch, used again and again.
pub(super) struct Batches<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod + Default, V: Pod + Default> Batches<K, V> {
    pub(super) fn new() -> Self {
        Self { keys: vec![K::default(); BATCH], values: vec![V::default(); BATCH] }
    }

    /// Shows all entries of a hash map whose keys and values are these, batch by batch. The kernel goes from bucket to
    /// bucket, and holds one only while it copies it: entries that come and go meanwhile disturb nothing.
    fn each(&mut self, map: BorrowedFd<'_>, mut see: impl FnMut(&[K], &[V])) -> io::Result<Read> {
        // The next bucket's number; a pointer to nothing says the first.
        let (mut next, mut started) = (0u32, false);
        loop {
            let from = next;
            let mut attributes = Attributes {
                in_batch: if started { &raw const from as u64 } else { 0 },
                out_batch: &raw mut next as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: self.keys.len() as u32,
                map_fd: map.as_raw_fd() as u32,
                ..Attributes::default()
            };
            let result = call(Command::Lookup, &mut attributes);
            let count = attributes.count as usize;
            match result {
                Err(Errno::ENOSPC) if self.keys.len() < LARGEST => {
                    next = from;
                    let more = 2 * self.keys.len();
                    self.keys.resize(more, K::default());
                    self.values.resize(more, V::default());
                    continue;
                }
                Err(Errno::EINVAL | Errno::ENOTSUP) if !started => return Ok(Read::Unsupported),
                // The end, with what was left.
                Ok(()) | Err(Errno::ENOENT) => {
                    see(
                        self.keys.get(..count).unwrap_or_default(),
                        self.values.get(..count).unwrap_or_default(),
                    );
                }
                Err(error) => return Err(error.into()),
            }
            if result.is_err() {
                return Ok(Read::Whole);
            }
            started = true;
        }
    }
}

/// How many entries more than there is room for are read before a walk counts as restarted.
const WALK_SLACK: usize = 1024;

/// Shows all entries of a map with room for `capacity`, many at a time; `false` where they changed too fast to be read
/// completely, which is so only in kernels that cannot read in batches: there the walk starts over when the entry at
/// which it stands is evicted, so it is bounded.
pub(super) fn walk<K: Pod + Default, V: Pod + Default>(
    map: &HashMap<MapData, K, V>,
    capacity: u32,
    batches: &mut Batches<K, V>,
    mut see: impl FnMut(&[K], &[V]),
) -> io::Result<bool> {
    if batches.each(map.map().fd().as_fd(), &mut see)? == Read::Whole {
        return Ok(true);
    }
    let most = capacity as usize + WALK_SLACK;
    let (keys, entries): (Vec<K>, Vec<V>) = map.iter().take(most).filter_map(Result::ok).unzip();
    see(&keys, &entries);
    Ok(keys.len() < most)
}

/// Sets many entries of a hash map at once; for filling maps, where each may take an older one's place.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let mut attributes = Attributes {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.as_raw_fd() as u32,
        ..Attributes::default()
    };
    Ok(call(Command::Update, &mut attributes)?)
}

fn call(command: Command, attributes: &mut Attributes) -> nix::Result<()> {
    let size = size_of::<Attributes>() as c_long;
    // SAFETY: the kernel reads and writes `size` bytes of the attributes, and as many keys and values as they count
    // where they point to: to buffers of that length, whose types hold any bytes (`Pod`) and are those of the map (whoever
    // opens it checks that). All of them are borrowed by the callers for the time of the call.
    let result = unsafe { syscall(SYS_bpf, command as c_long, &raw mut *attributes, size) };
    if result >= 0 {
        return Ok(());
    }
    match Errno::last_raw() {
        NOT_SUPPORTED => Err(Errno::ENOTSUP),
        raw => Err(Errno::from_raw(raw)),
    }
}
