//! `lb capture`: sampled packets with what became of them.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lb_common::abi::{Reason, Sample, SampleFilter, VerdictKind, mapped};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::args::Context;
use super::attach::runtime;
use super::error::Failure;
use super::packet_args::CaptureArgs;
use super::{output, view};
use crate::config;
use crate::daemon::{self, Instance, Saved, names};
use crate::dataplane::{KernelPlane, Sampling, monotonic_ns};
use crate::simulate::Names;
use crate::simulate::capture_file::{Captured, Writer};
use crate::simulate::language::describe;

/// How often the ring buffer is emptied.
const LOOK: Duration = Duration::from_millis(50);

/// Samples taken at a time: more may come in than can be written, and Ctrl-C is to be heard.
const BATCH: usize = 10_000;

/// `lb capture`.
pub(super) fn run(context: &Context, args: &CaptureArgs) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let plane = KernelPlane::open(&instance.pins)?;
    let observed = plane.glance()?;
    let saved = Saved::load(&instance.state)?.unwrap_or_default();
    let model = config::parse(&saved.origin, &saved.config).map(|loaded| loaded.model).ok();
    let names = model.map_or_else(Names::default, |model| names(&model, &observed, view::interface_name));
    let filter = filter(args, &names)?;
    let _only_one = OnlyOne::here(&instance)?;
    let mut sink = Sink::new(args)?;
    let taken = runtime()?.block_on(follow(&instance, &filter, args.count, &names, &mut sink));
    let count = sink.finish()?;
    taken?;
    eprintln!("{count} packets");
    Ok(ExitCode::SUCCESS)
}

/// Keeps a second capture away: there is one filter.
struct OnlyOne {
    path: PathBuf,
    _lock: Flock<File>,
}

impl OnlyOne {
    fn here(instance: &Instance) -> Result<Self, Failure> {
        instance.prepare()?;
        let path = instance.socket.with_extension("capture");
        let file = File::create(&path)
            .map_err(|error| Failure::failed(format!("creating {}: {error}", path.display())))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Failure::failed("another `lb capture` runs here")),
            Err((_, errno)) => Err(Failure::failed(format!("locking {}: {errno}", path.display()))),
        }
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
        // Where nothing else of ours is in it.
        let _shared = self.path.parent().map(std::fs::remove_dir);
    }
}

fn filter(args: &CaptureArgs, names: &Names) -> Result<SampleFilter, Failure> {
    let mut filter = SampleFilter { every: args.every.get(), ..SampleFilter::default() };
    if let Some(wanted) = &args.service {
        let found: Vec<_> =
            names.services.iter().filter(|(_, (name, id))| name == wanted || id == wanted).collect();
        filter.service = match found.as_slice() {
            [(number, _)] => **number,
            [] => return Err(Failure::bad_input(format!("there is no service {wanted}"))),
            several => {
                let ids: Vec<&str> = several.iter().map(|(_, (_, id))| id.as_str()).collect();
                let message = format!("{wanted} is several services: name one of {}", ids.join(", "));
                return Err(Failure::bad_input(message));
            }
        };
        filter.flags |= SampleFilter::SERVICE;
    }
    if let Some(verdict) = args.verdict {
        filter.verdict = verdict.kind() as u32;
        filter.flags |= SampleFilter::VERDICT;
    }
    if let Some(prefix) = args.source {
        let (address, bits) = match prefix.network {
            IpAddr::V4(network) => (mapped(network.octets()), 96 + u32::from(prefix.length)),
            IpAddr::V6(network) => (network.octets(), prefix.length.into()),
        };
        (filter.source, filter.source_bits) = (address, bits);
        filter.flags |= SampleFilter::SOURCE;
    }
    Ok(filter)
}

/// Samples until enough are there or somebody ends it; then nothing is sampled any more.
async fn follow(
    instance: &Instance,
    filter: &SampleFilter,
    most: Option<u64>,
    names: &Names,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut sampling = Sampling::start(&instance.pins, filter)?;
    eprintln!("capturing; Ctrl-C ends it");
    let booted = daemon::now().saturating_sub(Duration::from_nanos(monotonic_ns()));
    let mut look = interval(LOOK);
    loop {
        let ended = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = look.tick() => false,
        };
        // Also at the end: what was sampled before it is wanted.
        for _ in 0..BATCH {
            let Some(sample) = sampling.pop() else { break };
            sink.take(&sample, booted, names)?;
            if most == Some(sink.count) {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        sink.flush()?;
    }
}

/// Where samples go.
struct Sink {
    file: Option<Writer>,
    count: u64,
}

impl Sink {
    fn new(args: &CaptureArgs) -> Result<Self, Failure> {
        Ok(Self { file: args.out.as_deref().map(Writer::create).transpose()?, count: 0 })
    }

    fn take(&mut self, sample: &Sample, booted: Duration, names: &Names) -> Result<(), Failure> {
        self.count += 1;
        let bytes = sample.bytes.get(..sample.captured as usize).unwrap_or(&sample.bytes);
        let comment = comment(sample, names);
        let Some(file) = &mut self.file else {
            return output::text(&format!("{comment}  {}\n", describe(bytes)));
        };
        let time = booted + Duration::from_nanos(sample.time_ns);
        Ok(file.write(&Captured { time, frame: bytes.to_vec(), original_len: sample.length }, &comment)?)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.file.as_mut().map_or(Ok(()), |file| Ok(file.flush()?))
    }

    fn finish(self) -> Result<u64, Failure> {
        self.file.map_or(Ok(()), Writer::finish)?;
        Ok(self.count)
    }
}

/// The fate of a packet in a line: `drop no_backend, service web 203.0.113.10:80/tcp, in by eth0`.
fn comment(sample: &Sample, names: &Names) -> String {
    let kinds = [VerdictKind::Pass, VerdictKind::Drop, VerdictKind::Transmit];
    let verdict =
        kinds.into_iter().find(|kind| *kind as u32 == sample.verdict).map_or("?", VerdictKind::name);
    let reason = Reason::ALL.get(sample.reason as usize).map_or("forwarded", |reason| reason.name());
    let mut text = format!("{verdict} {reason}");
    if sample.service != Sample::NOBODY {
        let unknown = || ("id".to_owned(), sample.service.to_string());
        let (name, id) = names.services.get(&sample.service).cloned().unwrap_or_else(unknown);
        text += &format!(", service {name} {id}");
    }
    if sample.backend != 0 {
        let address = names
            .addresses
            .get(&sample.backend)
            .map_or_else(|| format!("id {}", sample.backend), ToString::to_string);
        text += &format!(", backend {address}");
    }
    let port = u16::try_from(sample.ingress).ok().and_then(|port| names.ports.get(&port));
    text + &port.map_or_else(String::new, |port| format!(", in by {port}"))
}
