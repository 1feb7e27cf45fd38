//! Sampled packets: what the program is told to sample, and the ring buffer that it hands them out by.

use aya::maps::{Array, Map, MapData, RingBuf};
use lb_common::abi::names::{SAMPLER, SAMPLES};
use lb_common::abi::{Control, Sample, SampleFilter};
use zerocopy::FromBytes;

use super::maps::control;
use super::mmap::Words;
use super::{Error, Pins};

/// Sampling, switched on; dropping it switches it off.
pub struct Sampling {
    control: Words,
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
        let mut sampling = Self { control: control(pins)?, samples };
        // What an earlier capture has left is not this one's.
        sampling.set(false);
        while sampling.pop().is_some() {}
        sampler.set(0, *filter, 0).map_err(Error::map(SAMPLER))?;
        sampling.set(true);
        Ok(sampling)
    }

    /// A word of its own: whoever changes the configuration meanwhile leaves it alone.
    fn set(&self, sampling: bool) {
        self.control.store(Control::SAMPLING_WORD, sampling.into());
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

impl Drop for Sampling {
    fn drop(&mut self) {
        self.set(false);
    }
}
