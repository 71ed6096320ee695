//! Numbers with all their digits, in the form that Postgres' `numeric_recv` takes: digits to the base
//! of 10,000, how many of them stand before the point, a sign, and how many decimals are shown.

use super::Misfit;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const MINUS_INFINITY: u16 = 0xf000;

/// The most decimals that Postgres shows.
const DECIMALS_MAX: i64 = 0x3fff;

/// Four decimals to a digit.
const DIGIT: usize = 4;

/// Of these 38 decimals at the most there are so many digits, one of them cut at both ends.
const DIGITS_MAX: usize = 11;

/// Appends `sign magnitude · 10^-scale` with its length.
pub(super) fn write_unscaled(is_negative: bool, magnitude: u128, scale: i8, out: &mut Vec<u8>) {
    // The last digit stands for 10,000^last, and what is there of it is moved up to that.
    let last = (-i64::from(scale)).div_euclid(4);
    let moved = (-i64::from(scale)).rem_euclid(4) as u32;
    let mut digits = [0_u16; DIGITS_MAX];
    let mut count = 0;
    let mut push = |digit: u64| {
        digits[count] = digit as u16;
        count += 1;
    };
    let (mut rest, first) = match u64::try_from(magnitude) {
        Ok(small) => {
            let cut = 10_u64.pow(4 - moved);
            (u128::from(small / cut), small % cut)
        }
        Err(_) => {
            let cut = 10_u128.pow(4 - moved);
            (magnitude / cut, (magnitude % cut) as u64)
        }
    };
    push(first * 10_u64.pow(moved));
    // Division of 128 bits is slow, so four digits go at once.
    while rest > u128::from(u64::MAX) {
        let mut four = (rest % 10_u128.pow(16)) as u64;
        rest /= 10_u128.pow(16);
        for _ in 0..4 {
            push(four % 10_000);
            four /= 10_000;
        }
    }
    let mut rest = rest as u64;
    while rest > 0 {
        push(rest % 10_000);
        rest /= 10_000;
    }
    let digits = &digits[..count];
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let end = digits.iter().rposition(|digit| *digit != 0).map_or(zeros, |most| most + 1);
    let shown = digits.get(zeros..end).unwrap_or_default();
    let weight = if shown.is_empty() { 0 } else { last + end as i64 - 1 };
    let sign = if is_negative && !shown.is_empty() { NEGATIVE } else { 0 };
    let decimals = u16::from(scale.max(0).unsigned_abs());
    out.extend_from_slice(&head(shown.len(), weight as i16, sign, decimals));
    for digit in shown.iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// The length, and all that comes before the digits.
fn head(digits: usize, weight: i16, sign: u16, decimals: u16) -> [u8; 12] {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&(8 + 2 * digits as u32).to_be_bytes());
    head[4..6].copy_from_slice(&(digits as u16).to_be_bytes());
    head[6..8].copy_from_slice(&weight.to_be_bytes());
    head[8..10].copy_from_slice(&sign.to_be_bytes());
    head[10..].copy_from_slice(&decimals.to_be_bytes());
    head
}

/// Appends what a text says, with its length: `-12.50`, `1e-7`, `NaN`, `Infinity`.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let misfit = || Misfit::from(format!("{} is no number for it", super::binary::shown(text)));
    let trimmed = text.trim_ascii();
    let (is_negative, unsigned) = match trimmed.as_bytes() {
        [b'-', ..] => (true, &trimmed[1..]),
        [b'+', ..] => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let is = |word: &str| unsigned.eq_ignore_ascii_case(word);
    if is("infinity") || is("inf") {
        let sign = if is_negative { MINUS_INFINITY } else { INFINITY };
        out.extend_from_slice(&head(0, 0, sign, 0));
        return Ok(());
    }
    if trimmed.eq_ignore_ascii_case("nan") {
        out.extend_from_slice(&head(0, 0, NAN, 0));
        return Ok(());
    }
    let parts = Parts::of(unsigned).ok_or_else(misfit)?;
    parts.write(is_negative, out).ok_or_else(misfit)
}

/// The decimals of a number as it is written.
struct Parts<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => {
                // So far no number of Postgres goes, and sums of it can't overflow.
                let exponent = text[at + 1..].parse::<i64>().ok();
                (&text[..at], exponent.filter(|exponent| exponent.abs() < 1 << 20)?)
            }
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (whole, fraction) = (whole.as_bytes(), fraction.as_bytes());
        let are_decimals = whole.iter().chain(fraction).all(u8::is_ascii_digit);
        let is_number = are_decimals && whole.len() + fraction.len() > 0;
        is_number.then_some(Self { whole, fraction, exponent })
    }

    /// `None` where there is no room for so many digits.
    fn write(&self, is_negative: bool, out: &mut Vec<u8>) -> Option<()> {
        let Self { whole, fraction, exponent } = self;
        let decimals = (fraction.len() as i64 - exponent).max(0);
        if decimals > DECIMALS_MAX {
            return None;
        }
        // So many decimals stand before the point, the first ones of which may be zeros.
        let before = whole.len() as i64 + exponent;
        let mut weight = before.div_euclid(4) + i64::from(before.rem_euclid(4) > 0) - 1;
        let lead = ((weight + 1) * 4 - before) as usize;
        let zeros = std::iter::repeat_n(b'0', lead);
        let mut decimals_left = zeros.chain(whole.iter().copied()).chain(fraction.iter().copied());
        let start = out.len();
        out.extend_from_slice(&[0; 12]);
        let first = out.len();
        // Where the last digit that is not zero ends.
        let mut end = first;
        while let Some(decimal) = decimals_left.next() {
            let mut digit = u16::from(decimal - b'0');
            for _ in 1..DIGIT {
                digit = digit * 10 + u16::from(decimals_left.next().unwrap_or(b'0') - b'0');
            }
            if digit == 0 && out.len() == first {
                weight -= 1;
                continue;
            }
            out.extend_from_slice(&digit.to_be_bytes());
            if digit != 0 {
                end = out.len();
            }
        }
        out.truncate(end);
        let count = (end - first) / 2;
        if count == 0 {
            weight = 0;
        }
        let (weight, _) = (i16::try_from(weight).ok()?, u16::try_from(count).ok()?);
        let sign = if is_negative && count > 0 { NEGATIVE } else { 0 };
        out.get_mut(start..first)?.copy_from_slice(&head(count, weight, sign, decimals as u16));
        Some(())
    }
}
