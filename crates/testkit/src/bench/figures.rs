//! Numbers of many rounds made one, and printed.

/// The middle of the values; NaN of none.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile, interpolated between the two nearest values; NaN of none.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = sorted.len().saturating_sub(1) as f64 * part;
    let below = place.floor();
    match sorted.get(below as usize..) {
        Some([low, high, ..]) => low + (high - low) * (place - below),
        Some([only]) => *only,
        _ => f64::NAN,
    }
}

/// A median and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let (low, high) = (quantile(values, 0.25), quantile(values, 0.75));
        Self { median: median(values), low, high }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}–{})", times(self.median), times(self.low), times(self.high))
    }
}

/// Three digits that mean something.
pub(super) fn nanoseconds(value: f64) -> String {
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        middle if middle < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Nanoseconds in the unit that suits them.
pub(super) fn time(nanos: f64) -> String {
    match nanos.abs() {
        small if small < 999.5 => format!("{} ns", nanoseconds(nanos)),
        small if small < 999.5e3 => format!("{} µs", nanoseconds(nanos / 1e3)),
        middle if middle < 999.5e6 => format!("{} ms", nanoseconds(nanos / 1e6)),
        _ => format!("{} s", nanoseconds(nanos / 1e9)),
    }
}

/// Two decimals, or as many as it takes to show that it is not nothing.
pub(super) fn times(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_nearest_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[5.0, 1.0, 2.0, 3.0, 4.0], 0.25), 2.0);
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.75), 3.25);
        assert_eq!(quantile(&[7.0], 0.25), 7.0);
        assert_eq!(quantile(&[1.0, 2.0], 1.0), 2.0);
        assert!(median(&[]).is_nan());
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, low: 1.5, high: 2.5 });
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.123, 9.996, 12.34, 99.96, -3.456, 1234.5].map(nanoseconds);
        assert_eq!(texts, ["0.12", "10.0", "12.3", "100", "-3.46", "1234"]);
        assert_eq!([0.00123, 0.5, 12.345].map(times), ["0.0012", "0.50", "12.35"]);
        let texts = [4.2, 4.2e3, 42e6, 4.2e9].map(time);
        assert_eq!(texts, ["4.20 ns", "4.20 µs", "42.0 ms", "4.20 s"]);
    }
}
