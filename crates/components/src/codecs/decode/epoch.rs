//! Times that are numbers: since the epoch, in the unit that their size tells.

const NANOS: i64 = 1_000_000_000;

/// A number since the epoch, whose size tells its unit: seconds, perhaps with a fraction, or
/// milliseconds, microseconds, nanoseconds.
pub(super) fn since_epoch(number: &str) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let Ok(count) = whole.parse::<i64>() else { return float(number) };
    let (negative, digits) = (whole.starts_with('-'), whole.trim_start_matches('-').len());
    let unit = match digits {
        0..=11 => NANOS,
        12..=14 => 1_000_000,
        15..=17 => 1_000,
        _ => 1,
    };
    let mut nanos = count.checked_mul(unit)?;
    let mut step = unit;
    for digit in fraction.bytes() {
        if !digit.is_ascii_digit() {
            return float(number);
        }
        step /= 10;
        let part = i64::from(digit - b'0') * step;
        nanos = if negative { nanos.checked_sub(part)? } else { nanos.checked_add(part)? };
    }
    Some(nanos)
}

/// With an exponent: seconds, as exact as they are.
fn float(number: &str) -> Option<i64> {
    let seconds: f64 = number.parse().ok()?;
    let unit = match seconds.abs() {
        small if small < 1e11 => 1e9,
        small if small < 1e14 => 1e6,
        small if small < 1e17 => 1e3,
        _ => 1.0,
    };
    let nanos = seconds * unit;
    (nanos.abs() < i64::MAX as f64).then_some(nanos as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        for (number, nanos) in [
            ("0", Some(0)),
            ("1445191307", Some(1_445_191_307_000_000_000)),
            ("1445191307.123456789", Some(1_445_191_307_123_456_789)),
            ("1445191307.1234567899", Some(1_445_191_307_123_456_789)),
            ("1445191307978", Some(1_445_191_307_978_000_000)),
            ("1445191307978.5", Some(1_445_191_307_978_500_000)),
            ("1445191307978123", Some(1_445_191_307_978_123_000)),
            ("1445191307978123456", Some(1_445_191_307_978_123_456)),
            ("-1.5", Some(-1_500_000_000)),
            ("1.445191307e9", Some(1_445_191_307_000_000_000)),
            ("1e300", None),
            ("99999999999999999999", None),
            ("x", None),
        ] {
            assert_eq!(since_epoch(number), nanos, "{number}");
        }
    }
}
