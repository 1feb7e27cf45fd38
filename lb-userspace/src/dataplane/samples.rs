//! Sampled packets: what the program is told to sample, and the ring buffer that it hands them out by.

use aya::maps::{Array, Map, MapData, RingBuf};
use lb_common::abi::names::{CONTROL, SAMPLER, SAMPLES};
use lb_common::abi::{Control, Sample, SampleFilter};
use zerocopy::FromBytes;

use super::{Error, Pins};

/// Sampling, switched on; dropping it switches it off.
pub struct Sampling {
    control: Array<MapData, Control>,
    samples: RingBuf<MapData>,
}

impl Sampling {
    /// Has the programs on the pinned maps sample what passes the filter. The caller sees to it that nobody else does
    /// the same.
    pub fn start(pins: &Pins, filter: &SampleFilter) -> Result<Self, Error> {
        let map = |name: &'static str| MapData::from_pin(pins.map(name)).map_err(Error::map(name));
        let mut sampler: Array<_, SampleFilter> =
            Array::try_from(Map::Array(map(SAMPLER)?)).map_err(Error::map(SAMPLER))?;
        let samples = RingBuf::try_from(Map::RingBuf(map(SAMPLES)?)).map_err(Error::map(SAMPLES))?;
        let control = Array::try_from(Map::Array(map(CONTROL)?)).map_err(Error::map(CONTROL))?;
        let mut sampling = Self { control, samples };
        // What an earlier capture has left is not this one's.
        sampling.set(Switch::Off)?;
        while sampling.pop().is_some() {}
        sampler.set(0, *filter, 0).map_err(Error::map(SAMPLER))?;
        sampling.set(Switch::On)?;
        Ok(sampling)
    }

    fn set(&mut self, switch: Switch) -> Result<(), Error> {
        let control = self.control.get(&0, 0).map_err(Error::map(CONTROL))?;
        let flags = match switch {
            Switch::On => control.flags | Control::CAPTURE,
            Switch::Off => control.flags & !Control::CAPTURE,
        };
        self.control.set(0, Control { flags, ..control }, 0).map_err(Error::map(CONTROL))
    }

    /// The next sample, if there is one.
    pub fn pop(&mut self) -> Option<Sample> {
        loop {
            let item = self.samples.next()?;
            // One of another size is no sample.
            if let Ok((sample, _)) = Sample::read_from_prefix(&item) {
                return Some(sample);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Switch {
    On,
    Off,
}

impl Drop for Sampling {
    fn drop(&mut self) {
        if let Err(error) = self.set(Switch::Off) {
            tracing::error!(%error, "packets are still sampled, which costs; run `lb capture` once more");
        }
    }
}
