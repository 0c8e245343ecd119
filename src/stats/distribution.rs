//! Distributions of lengths and ages: a histogram with a small relative error, of bounded size.

/// Buckets to each power of two, so that the error of a quantile is below one in this number. Smaller values than twice
/// that are exact.
const FINE: u64 = 64;
const FINE_BITS: u32 = FINE.trailing_zeros();

/// How a figure is distributed over the entries of a map; see [`MapCensus`](crate::MapCensus).
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// for length in 1..=100 {
///     store.insert(format!("key {length}"), vec![7; length])?;
/// }
/// let census = store.census()?;
/// let values: &slotlog::Distribution = &census.maps[1].values;
/// assert_eq!((values.count, values.min, values.max), (100, 1, 100));
/// assert_eq!((values.p50, values.p99), (50, 99));
/// assert_eq!(values.mean(), Some(50.5));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Distribution {
    /// How many entries were counted. If there are none, everything else is zero.
    pub count: u64,
    /// The sum of their figures.
    pub sum: u64,
    /// The smallest.
    pub min: u64,
    /// The median. Up to 127 it is exact, above that at most 2 % too large; the same holds for `p90` and `p99`.
    pub p50: u64,
    /// Nine of ten entries have at most this.
    pub p90: u64,
    /// 99 of 100 entries have at most this.
    pub p99: u64,
    /// The largest.
    pub max: u64,
    /// The entries by powers of two, in ascending order, without empty buckets.
    pub buckets: Vec<Bucket>,
}

impl Distribution {
    /// The average; `None` without entries.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }
}

/// The entries whose figure lies in one range; see [`Distribution::buckets`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// for length in [5, 6, 100] {
///     store.insert(format!("key {length}"), vec![7; length])?;
/// }
/// let census = store.census()?;
/// let buckets: &[slotlog::Bucket] = &census.maps[1].values.buckets;
/// let ranges = buckets.iter().map(|bucket| (bucket.from, bucket.to, bucket.count));
/// assert_eq!(ranges.collect::<Vec<_>>(), [(4, 7, 2), (64, 127, 1)]);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Bucket {
    /// The smallest figure that belongs here.
    pub from: u64,
    /// The largest.
    pub to: u64,
    /// How many entries have such a figure.
    pub count: u64,
    /// The sum of these figures.
    pub sum: u64,
}

/// What a distribution is made from.
#[derive(Clone)]
pub(super) struct Histogram {
    /// By fine buckets.
    counts: Vec<u64>,
    /// The sums of the figures of each length in bits.
    sums: [u64; 65],
    min: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { counts: Vec::new(), sums: [0; 65], min: u64::MAX, max: 0 }
    }

    #[inline]
    pub(super) fn add(&mut self, figure: u64) {
        let place = place(figure);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        let sum = &mut self.sums[bits(figure)];
        *sum = sum.saturating_add(figure);
        self.min = self.min.min(figure);
        self.max = self.max.max(figure);
    }

    pub(super) fn distribution(&self) -> Distribution {
        let count = self.counts.iter().sum();
        if count == 0 {
            return Distribution::default();
        }
        let mut buckets: Vec<Bucket> = Vec::new();
        for (place, &count) in self.counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let (from, to) = bounds_of_bits(bits(largest(place)));
            match buckets.last_mut().filter(|last| last.from == from) {
                Some(last) => last.count += count,
                None => buckets.push(Bucket { from, to, count, sum: self.sums[bits(from)] }),
            }
        }
        Distribution {
            count,
            sum: self.sums.iter().fold(0, |sum, more| sum.saturating_add(*more)),
            min: self.min,
            p50: self.quantile(count, 50),
            p90: self.quantile(count, 90),
            p99: self.quantile(count, 99),
            max: self.max,
            buckets,
        }
    }

    /// The figure that `percent` of all entries do not exceed.
    fn quantile(&self, count: u64, percent: u64) -> u64 {
        let wanted = (u128::from(count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|&count| {
            seen += u128::from(count);
            seen >= wanted
        });
        place.map_or(self.max, largest).clamp(self.min, self.max)
    }
}

/// How many bits a figure has.
fn bits(figure: u64) -> usize {
    (u64::BITS - figure.leading_zeros()) as usize
}

/// The figures that have this many bits.
fn bounds_of_bits(bits: usize) -> (u64, u64) {
    match bits {
        0 => (0, 0),
        64 => (1 << 63, u64::MAX),
        bits => (1 << (bits - 1), (1 << bits) - 1),
    }
}

/// The fine bucket of a figure.
#[inline]
fn place(figure: u64) -> usize {
    if figure < 2 * FINE {
        return figure as usize;
    }
    let shift = u64::BITS - 1 - figure.leading_zeros() - FINE_BITS;
    (u64::from(shift) * FINE + (figure >> shift)) as usize
}

/// The largest figure of a fine bucket.
fn largest(place: usize) -> u64 {
    let place = place as u64;
    if place < 2 * FINE {
        return place;
    }
    let shift = place / FINE - 1;
    let first = (place % FINE + FINE) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn of(figures: impl IntoIterator<Item = u64>) -> Distribution {
        let mut histogram = Histogram::new();
        figures.into_iter().for_each(|figure| histogram.add(figure));
        histogram.distribution()
    }

    #[test]
    fn each_figure_has_a_place_in_order() {
        let mut last = None;
        let near_powers =
            (0..64).flat_map(|bit| (0..200u64).map(move |more| (1u64 << bit).saturating_add(more << (bit / 2))));
        let mut figures: Vec<u64> = (0..5000).chain(near_powers).chain([u64::MAX - 1, u64::MAX]).collect();
        figures.sort_unstable();
        for figure in figures {
            let place = place(figure);
            let top = largest(place);
            assert!(figure <= top && (top - figure) * FINE <= figure, "{figure} is in a bucket up to {top}");
            assert!(last.is_none_or(|last| last <= place), "{figure}");
            last = Some(place);
        }
        assert_eq!(largest(place(u64::MAX)), u64::MAX);
    }

    #[test]
    fn small_figures_are_exact() {
        let found = of(1..=100);
        assert_eq!((found.count, found.sum, found.min, found.max), (100, 5050, 1, 100));
        assert_eq!((found.p50, found.p90, found.p99), (50, 90, 99));
        assert_eq!(of([]), Distribution::default());
        assert_eq!(of([0]).buckets, [Bucket { from: 0, to: 0, count: 1, sum: 0 }]);
    }

    #[test]
    fn quantiles_of_large_figures_are_a_little_too_large_at_most() {
        let found = of((1..=100_000).map(|number| number * 977));
        for (quantile, exact) in [(found.p50, 50_000 * 977), (found.p90, 90_000 * 977), (found.p99, 99_000 * 977)] {
            assert!(quantile >= exact && quantile < exact + exact / 50, "{quantile}, and exactly {exact}");
        }
        assert_eq!(found.max, 97_700_000);
        assert_eq!(of([1_000_003; 7]).p50, 1_000_003, "never beyond the largest");
    }

    #[test]
    fn buckets_are_powers_of_two_and_leave_nothing_out() {
        let found = of([0, 1, 2, 3, 4, 1000, 1023, 1024, u64::MAX]);
        let ranges: Vec<_> = found.buckets.iter().map(|bucket| (bucket.from, bucket.to, bucket.count)).collect();
        let expected = [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 1), (512, 1023, 2), (1024, 2047, 1)];
        assert_eq!(ranges[..6], expected);
        assert_eq!(ranges[6], (1 << 63, u64::MAX, 1));
        assert_eq!(found.buckets[4].sum, 2023);
    }
}
