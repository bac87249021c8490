//! The wall clock, as records and audit ends need it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sidegate_policy::Date;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// The current day in UTC.
pub fn today() -> Date {
    Date::from_days((unix_millis(SystemTime::now()) / MILLIS_PER_DAY) as i32)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-24T08:15:38.042Z`. Times before 1970 show as 1970.
pub fn rfc3339_millis(time: SystemTime) -> String {
    let millis = unix_millis(time);
    let (year, month, day) = civil(millis / MILLIS_PER_DAY);
    let (seconds, fraction) = (millis % MILLIS_PER_DAY / 1000, millis % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// Milliseconds, to the microsecond: no digit of a record is noise.
pub fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn unix_millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Year, month and day of a day number, in 400-year eras that begin on 1 March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_three_decimals() {
        for nanoseconds in [0, 1, 499, 71_523, 1_234_567, 98_765_432_109, 3_600_000_000_001] {
            let text = serde_json::to_string(&millis(Duration::from_nanos(nanoseconds))).unwrap();
            let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            assert!(decimals <= 3, "{text}");
        }
        assert_eq!(millis(Duration::from_nanos(1_234_567)), 1.235);
    }

    #[test]
    fn known_moments() {
        for (seconds, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.001Z"),
            (1_798_761_599, 999, "2026-12-31T23:59:59.999Z"),
            (4_107_542_400, 42, "2100-03-01T00:00:00.042Z"),
            (1_709_208_000, 500, "2024-02-29T12:00:00.500Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
            assert_eq!(rfc3339_millis(time), text);
        }
    }

    #[test]
    fn every_day_of_an_era_follows_the_one_before() {
        let mut before = civil(0);
        for day in 1..146_097 {
            let now = civil(day);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            let next_year = (before.0 + 1, 1, 1);
            assert!([next_day, next_month, next_year].contains(&now), "{before:?} {now:?}");
            before = now;
        }
    }
}
