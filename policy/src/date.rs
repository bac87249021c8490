//! A calendar day, so that audit modes can end without a clock in this crate.

/// A proleptic Gregorian day in UTC, `YYYY-MM-DD`, from 1970-01-01 to 9999-12-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(pub(crate) i32);

/// Why a text is no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// Not four, two and two digits with hyphens between.
    #[error("it is not of the form YYYY-MM-DD")]
    Form,
    /// A month outside 1-12.
    #[error("there is no such month")]
    Month,
    /// A day that the month does not have.
    #[error("there is no such day in that month")]
    Day,
    /// Before 1970-01-01.
    #[error("it lies before 1970-01-01")]
    TooEarly,
}

impl Date {
    /// Days since 1970-01-01.
    pub const fn from_days(days: i32) -> Self {
        Date(days)
    }

    /// Days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.0
    }

    /// Parses `YYYY-MM-DD`; nothing else of ISO 8601 is accepted.
    pub fn parse(text: &str) -> Result<Self, DateError> {
        let bytes: &[u8; 10] = text.as_bytes().try_into().map_err(|_| DateError::Form)?;
        let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *bytes else { return Err(DateError::Form) };
        let year = number(&[y0, y1, y2, y3]).ok_or(DateError::Form)?;
        let month = number(&[m0, m1]).ok_or(DateError::Form)?;
        let day = number(&[d0, d1]).ok_or(DateError::Form)?;
        if !(1..=12).contains(&month) {
            return Err(DateError::Month);
        }
        if !(1..=days_in_month(year, month)).contains(&day) {
            return Err(DateError::Day);
        }
        if year < 1970 {
            return Err(DateError::TooEarly);
        }
        Ok(Date(days_from_civil(year, month, day)))
    }

    /// Year, month (1-12) and day (1-31).
    pub fn year_month_day(self) -> (i32, i32, i32) {
        civil_from_days(self.0)
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.year_month_day();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

fn number(digits: &[u8]) -> Option<i32> {
    digits
        .iter()
        .try_fold(0, |sum, &digit| digit.is_ascii_digit().then(|| sum * 10 + i32::from(digit - b'0')))
}

fn days_in_month(year: i32, month: i32) -> i32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, counted in 400-year eras of years that begin in March, so that the leap day comes last.
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`]. Wide integers: `from_days` takes any `i32`.
fn civil_from_days(days: i32) -> (i32, i32, i32) {
    let days = i64::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
    (small(year), small(month), small(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1970-03-01", 59),
            ("2000-02-29", 11_016),
            ("2026-12-31", 20_818),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(Date::parse(text), Ok(Date(days)), "{text}");
            assert_eq!(Date(days).to_string(), text);
        }
    }

    #[test]
    fn every_day_round_trips_and_follows_the_one_before() {
        for days in 0..=2_932_896 {
            assert_eq!(Date::parse(&Date(days).to_string()), Ok(Date(days)));
        }
    }

    #[test]
    fn bad_dates_are_refused() {
        for (text, error) in [
            ("", DateError::Form),
            ("2026-1-1", DateError::Form),
            ("2026-12-31T", DateError::Form),
            ("2026/12/31", DateError::Form),
            ("+026-12-31", DateError::Form),
            ("２026-12-1", DateError::Form),
            ("2026-13-01", DateError::Month),
            ("2026-00-01", DateError::Month),
            ("2026-02-29", DateError::Day),
            ("1900-02-29", DateError::Day),
            ("2026-04-31", DateError::Day),
            ("2026-01-00", DateError::Day),
            ("1969-12-31", DateError::TooEarly),
        ] {
            assert_eq!(Date::parse(text), Err(error), "{text}");
        }
        let _ = (Date(i32::MIN).to_string(), Date(i32::MAX).to_string());
    }
}
