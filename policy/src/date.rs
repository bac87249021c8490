//! A calendar day, so that audit modes can end without a clock in this crate.

/// A proleptic Gregorian day in UTC, `YYYY-MM-DD`, from 1970-01-01 to 9999-12-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(pub(crate) i32);

impl Date {
    /// Days since 1970-01-01.
    pub const fn from_days(days: i32) -> Self {
        Date(days)
    }
}
