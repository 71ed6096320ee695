//! Days and years, as the Gregorian calendar has them.

/// Whether a text begins with the short name of a day.
pub(super) fn is_weekday(text: &[u8]) -> bool {
    let Some(name) = text.first_chunk::<3>() else { return false };
    let ends = text.get(3).is_some_and(|after| b" ,".contains(after));
    ends && [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"].contains(&name)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// How many days a month has.
pub(super) fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant, *chrono-Compatible Low-Level Date Algorithms*, `days_from_civil`.
pub(super) fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The same paper, `civil_from_days`.
pub(super) fn year_of(days: i64) -> i64 {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    years + era * 400 + i64::from(of_year >= 306)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_years_agree_over_eight_centuries() {
        let mut days = days_since_epoch(1_600, 1, 1);
        for year in 1_600..2_400 {
            for month in 1..=12 {
                for day in 1..=days_of(year, month) {
                    assert_eq!((days_since_epoch(year, month, day), year_of(days)), (days, year));
                    days += 1;
                }
            }
        }
    }
}
