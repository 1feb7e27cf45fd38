//! A mean that forgets exponentially, whenever samples come. Time is handed in.

use std::time::{Duration, Instant};

/// The mean of what has been said lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ewma {
    value: f64,
    at: Option<Instant>,
}

impl Ewma {
    /// Takes a sample; what was said `memory` ago counts for 1/e of what it did. The first sample counts alone.
    pub fn add(&mut self, sample: f64, at: Instant, memory: Duration) {
        let weight = match self.at {
            Some(before) => {
                let age = at.saturating_duration_since(before).as_secs_f64();
                1.0 - (-age / memory.as_secs_f64()).exp()
            }
            None => 1.0,
        };
        self.value += weight * (sample - self.value);
        self.at = Some(at);
    }

    /// The mean; zero before the first sample.
    pub fn value(&self) -> f64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(5);

    #[test]
    fn how_often_it_is_told_does_not_matter() {
        let begin = Instant::now();
        let after = |steps: u32| {
            let mut mean = Ewma::default();
            mean.add(0.0, begin, MEMORY);
            for step in 1..=steps {
                mean.add(100.0, begin + MEMORY * step / steps, MEMORY);
            }
            mean.value()
        };
        let wanted = 100.0 * (1.0 - (-1.0f64).exp());
        for steps in [1, 3, 50] {
            assert!((after(steps) - wanted).abs() < 1e-6, "{steps}: {}", after(steps));
        }
    }

    #[test]
    fn the_first_sample_is_the_mean() {
        let mut mean = Ewma::default();
        mean.add(7.0, Instant::now(), MEMORY);
        assert!((mean.value() - 7.0).abs() < f64::EPSILON);
    }
}
