//! Dates and times as RFC 3339 writes them, without a library's format string for each row.

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = pairs();

const fn pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
}

/// An instant, `2024-02-29T12:00:00.25Z`: as many digits of a second as it needs.
pub(super) fn instant(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    date(seconds.div_euclid(DAY), out);
    out.push(b'T');
    time_of_day(seconds.rem_euclid(DAY) as u32, nanos, out);
    out.push(b'Z');
}

/// A day, counted from 1970-01-01. Years beyond four digits have a sign and at least six, as
/// ECMAScript has them.
pub(super) fn date(days: i64, out: &mut Vec<u8>) {
    // Howard Hinnant's civil_from_days: years begin in March, so that leap days end them.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if (0..10_000).contains(&year) {
        pair(year as u32 / 100, out);
        pair(year as u32 % 100, out);
    } else {
        out.extend_from_slice(format!("{year:+07}").as_bytes());
    }
    out.push(b'-');
    pair(month as u32, out);
    out.push(b'-');
    pair(day as u32, out);
}

/// A time of day, `23:59:59.999`.
pub(super) fn time_of_day(seconds: u32, nanos: u32, out: &mut Vec<u8>) {
    pair(seconds / 3_600 % 100, out);
    out.push(b':');
    pair(seconds / 60 % 60, out);
    out.push(b':');
    pair(seconds % 60, out);
    fraction(nanos, out);
}

/// A length of time in seconds, as ISO 8601 has it: `PT1.5S`, `-PT0.001S`.
pub(super) fn length(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    if total < 0 {
        out.push(b'-');
    }
    let total = total.unsigned_abs();
    out.extend_from_slice(b"PT");
    out.extend_from_slice(itoa::Buffer::new().format(total / 1_000_000_000).as_bytes());
    fraction((total % 1_000_000_000) as u32, out);
    out.push(b'S');
}

fn fraction(nanos: u32, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    out.push(b'.');
    pair(nanos / 10_000_000 % 100, out);
    pair(nanos / 100_000 % 100, out);
    pair(nanos / 1_000 % 100, out);
    pair(nanos / 10 % 100, out);
    out.push(b'0' + (nanos % 10) as u8);
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

fn pair(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&PAIRS[number as usize]);
}

#[cfg(test)]
mod tests {
    use arrow_array::temporal_conversions::timestamp_ns_to_datetime;
    use proptest::prelude::*;

    use super::*;

    fn said(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn instants_have_the_digits_they_need() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_827_696, 250_000_000, "2000-02-29T12:34:56.25Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (253_402_300_799, 1, "9999-12-31T23:59:59.000000001Z"),
            (253_402_300_800, 0, "+010000-01-01T00:00:00Z"),
            (-62_167_219_201, 0, "-000001-12-31T23:59:59Z"),
        ] {
            assert_eq!(said(|out| instant(seconds, nanos, out)), text);
        }
        said(|out| instant(i64::MAX, 0, out));
        said(|out| instant(i64::MIN, 0, out));
    }

    #[test]
    fn lengths_of_time_keep_sign_and_fraction() {
        for (seconds, nanos, text) in [
            (0, 0, "PT0S"),
            (90, 500_000_000, "PT90.5S"),
            (-1, 999_000_000, "-PT0.001S"),
            (i64::MIN, 0, "-PT9223372036854775808S"),
        ] {
            assert_eq!(said(|out| length(seconds, nanos, out)), text);
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_chrono(nanos in any::<i64>()) {
            let theirs = format!("{:?}", timestamp_ns_to_datetime(nanos).unwrap());
            let theirs = match theirs.split_once('.') {
                Some((whole, part)) => format!("{whole}.{}", part.trim_end_matches('0')),
                None => theirs,
            };
            let seconds = nanos.div_euclid(1_000_000_000);
            let rest = nanos.rem_euclid(1_000_000_000) as u32;
            prop_assert_eq!(said(|out| instant(seconds, rest, out)), theirs + "Z");
        }
    }
}
