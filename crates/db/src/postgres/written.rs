//! Values as Postgres writes them: what a key says, and types that have none of their own in Arrow.

use std::fmt::Write;

/// A numeric in its binary form, as its digits; none where that makes no sense.
///
/// The form ([`numeric_send`]): four numbers of 16 bits, how many digits follow, the weight of the
/// first, the sign, and how many decimals to show; then digits to the base of 10,000.
///
/// [`numeric_send`]: https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/numeric.c
#[derive(Clone, Copy, Debug)]
pub(super) struct Numeric<'v> {
    digits: &'v [[u8; 2]],
    // Of the first digit: it counts for 10,000 to the power of this.
    weight: i16,
    sign: Sign,
    scale: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
    NaN,
    Infinity,
    MinusInfinity,
}

impl<'v> Numeric<'v> {
    pub(super) fn read(value: &'v [u8]) -> Option<Self> {
        let (head, digits) = value.split_first_chunk::<8>()?;
        let [c0, c1, w0, w1, s0, s1, d0, d1] = *head;
        let (digits, rest) = digits.as_chunks::<2>();
        let whole = usize::from(u16::from_be_bytes([c0, c1])) == digits.len() && rest.is_empty();
        let sign = match u16::from_be_bytes([s0, s1]) {
            0x0000 => Sign::Plus,
            0x4000 => Sign::Minus,
            0xc000 => Sign::NaN,
            0xd000 => Sign::Infinity,
            0xf000 => Sign::MinusInfinity,
            _ => return None,
        };
        let sound = digits.iter().all(|digit| u16::from_be_bytes(*digit) < 10_000);
        let weight = i16::from_be_bytes([w0, w1]);
        let scale = u16::from_be_bytes([d0, d1]);
        (whole && sound).then_some(Self { digits, weight, sign, scale })
    }

    pub(super) fn sign(&self) -> Sign {
        self.sign
    }

    /// The digit that counts for 10,000 to a power.
    fn digit(&self, power: i32) -> u16 {
        let place = i32::from(self.weight) - power;
        let digit = usize::try_from(place).ok().and_then(|place| self.digits.get(place));
        digit.map_or(0, |digit| u16::from_be_bytes(*digit))
    }

    /// As a whole number of steps of a scale; none where it is no number, has more decimals than
    /// that, or is too long.
    pub(super) fn scaled<N: Wide>(&self, scale: i8) -> Option<N> {
        if !matches!(self.sign, Sign::Plus | Sign::Minus) {
            return None;
        }
        let scale = i32::from(scale);
        let decimals = scale.div_euclid(4) + i32::from(scale.rem_euclid(4) > 0);
        let lowest = i32::from(self.weight) - (self.digits.len() as i32 - 1);
        let mut number = N::ZERO;
        // From the first digit to the last that the scale reaches into.
        for power in (-decimals..=i32::from(self.weight).max(-decimals)).rev() {
            let digit = self.digit(power);
            // Of the last one, only as many decimals as the scale has.
            let beyond = (-power * 4 - scale).clamp(0, 4) as u32;
            let (kept, cut) = (digit / 10_u16.pow(beyond), digit % 10_u16.pow(beyond));
            if cut != 0 {
                return None;
            }
            number = number.shifted(10_u16.pow(4 - beyond), kept)?;
        }
        let finer = !self.digits.is_empty() && lowest < -decimals;
        if finer && (lowest..-decimals).any(|power| self.digit(power) != 0) {
            return None;
        }
        Some(if self.sign == Sign::Minus { number.negated() } else { number })
    }

    /// As Postgres writes it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let word = match self.sign {
            Sign::NaN => "NaN",
            Sign::Infinity => "Infinity",
            Sign::MinusInfinity => "-Infinity",
            Sign::Minus => "-",
            Sign::Plus => "",
        };
        out.extend_from_slice(word.as_bytes());
        if !matches!(self.sign, Sign::Plus | Sign::Minus) {
            return;
        }
        let highest = i32::from(self.weight).max(0);
        for power in (0..=highest).rev() {
            let digit = decimal(self.digit(power));
            let skip = match power == highest {
                true => digit.iter().take(3).take_while(|letter| **letter == b'0').count(),
                false => 0,
            };
            out.extend_from_slice(&digit[skip..]);
        }
        if self.scale > 0 {
            out.push(b'.');
            let mut left = usize::from(self.scale);
            let mut power = -1;
            while left > 0 {
                let digit = decimal(self.digit(power));
                let take = left.min(4);
                out.extend_from_slice(&digit[..take]);
                left -= take;
                power -= 1;
            }
        }
    }
}

/// A digit to the base of 10,000 as four decimal ones.
fn decimal(digit: u16) -> [u8; 4] {
    [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|letter| b'0' + letter as u8)
}

/// A whole number that is wide enough for decimals.
pub(super) trait Wide: Sized {
    const ZERO: Self;
    /// `self * factor + digit`, where that fits.
    fn shifted(self, factor: u16, digit: u16) -> Option<Self>;
    fn negated(self) -> Self;
}

impl Wide for i128 {
    const ZERO: Self = 0;

    fn shifted(self, factor: u16, digit: u16) -> Option<Self> {
        self.checked_mul(factor.into())?.checked_add(digit.into())
    }

    fn negated(self) -> Self {
        -self
    }
}

impl Wide for arrow_buffer::i256 {
    const ZERO: Self = Self::ZERO;

    fn shifted(self, factor: u16, digit: u16) -> Option<Self> {
        let (factor, digit) = (Self::from_i128(factor.into()), Self::from_i128(digit.into()));
        self.checked_mul(factor)?.checked_add(digit)
    }

    fn negated(self) -> Self {
        -self
    }
}

/// A UUID in lower case.
pub(super) fn uuid(value: &[u8; 16], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in value.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

/// Days from 2000-01-01 as a date, for a key.
pub(super) fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => {
            let (date, era) = civil(days.into());
            format!("{date}{era}")
        }
    }
}

/// Microseconds from 2000-01-01 as a date and time, for a key.
pub(super) fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        micros => {
            let (date, era) = civil(micros.div_euclid(86_400_000_000));
            let time = time(micros.rem_euclid(86_400_000_000));
            format!("{date} {time}{zone}{era}")
        }
    }
}

/// Microseconds of a day, for a key.
pub(super) fn time(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if micros % 1_000_000 != 0 {
        let _ = write!(text, ".{:06}", micros % 1_000_000);
    }
    text
}

/// Days from 2000-01-01 in the Gregorian calendar (Hinnant, [`civil_from_days`]), and what says that
/// it is before Christ.
///
/// [`civil_from_days`]: https://howardhinnant.github.io/date_algorithms.html
fn civil(days: i64) -> (String, &'static str) {
    let days = days + 730_425; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // There is no year 0.
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

#[cfg(test)]
mod tests {
    use arrow_buffer::i256;

    use super::*;

    /// A numeric's binary form.
    fn sent(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let head = [digits.len() as u16, weight as u16, sign, scale];
        head.iter().chain(digits).flat_map(|part| part.to_be_bytes()).collect()
    }

    #[test]
    fn numerics_are_written_with_their_digits() {
        for (value, text) in [
            (sent(0, 0, 0, &[]), "0"),
            (sent(0, 0, 2, &[]), "0.00"),
            (sent(0, 0, 2, &[1, 2300]), "1.23"),
            (sent(1, 0x4000, 3, &[12, 3456, 7890]), "-123456.789"),
            (sent(-1, 0, 4, &[5]), "0.0005"),
            (sent(-2, 0, 8, &[5]), "0.00000005"),
            (sent(2, 0, 0, &[1]), "100000000"),
            (sent(0, 0, 6, &[9999, 9999, 9900]), "9999.999999"),
            (sent(0, 0xc000, 0, &[]), "NaN"),
            (sent(0, 0xd000, 0, &[]), "Infinity"),
            (sent(0, 0xf000, 0, &[]), "-Infinity"),
        ] {
            let mut out = Vec::new();
            Numeric::read(&value).unwrap().write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        for wrong in
            [&[][..], &[0, 1, 0, 0, 0, 0, 0, 0], &sent(0, 1, 0, &[]), &sent(0, 0, 0, &[10_000])]
        {
            assert!(Numeric::read(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn numerics_are_scaled_exactly() {
        let scaled = |value: &[u8], scale| Numeric::read(value).unwrap().scaled::<i128>(scale);
        assert_eq!(scaled(&sent(0, 0, 2, &[1, 2300]), 2), Some(123));
        assert_eq!(scaled(&sent(0, 0, 2, &[1, 2300]), 4), Some(12_300));
        assert_eq!(scaled(&sent(0, 0, 2, &[1, 2300]), 1), None, "a decimal would be lost");
        assert_eq!(scaled(&sent(1, 0x4000, 3, &[12, 3456, 7890]), 3), Some(-123_456_789));
        assert_eq!(scaled(&sent(2, 0, 0, &[1]), 2), Some(10_000_000_000));
        assert_eq!(scaled(&sent(-1, 0, 4, &[5]), 4), Some(5));
        assert_eq!(scaled(&sent(-1, 0, 4, &[5]), 5), Some(50));
        assert_eq!(scaled(&sent(-2, 0, 8, &[5]), 4), None);
        assert_eq!(scaled(&sent(0, 0, 0, &[]), 10), Some(0));
        assert_eq!(scaled(&sent(0, 0xc000, 0, &[]), 0), None);
        assert_eq!(scaled(&sent(9, 0, 0, &[9999; 10]), 0), None, "it is too long");
        let wide = Numeric::read(&sent(9, 0, 0, &[9999; 10])).unwrap().scaled::<i256>(0);
        assert_eq!(wide.unwrap().to_string(), "9".repeat(40));
    }

    #[test]
    fn dates_and_times_are_written_as_postgres_does() {
        for (days, text) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (-730_120, "0001-12-31 BC"),
            (-730_119, "0001-01-01"),
            (2_921_939, "9999-12-31"),
            (2_921_940, "10000-01-01"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(date(days), text, "{days}");
        }
        assert_eq!(timestamp(-1, "+00"), "1999-12-31 23:59:59.999999+00");
        assert_eq!(timestamp(86_400_000_000, ""), "2000-01-02 00:00:00");
        assert_eq!(timestamp(i64::MIN, "+00"), "-infinity");
        let mut out = Vec::new();
        uuid(&[0x0a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff], &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "0a010203-0405-0607-0809-0a0b0c0d0eff");
    }
}
