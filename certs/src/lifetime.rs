//! How long certificates live, and when they are renewed: pure functions of the times given.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rustls::pki_types::UnixTime;

/// A leaf's default life. An hour bounds what a stolen key is worth, yet lets half an hour without a control
/// plane pass unnoticed.
pub const LEAF: Duration = Duration::from_secs(60 * 60);
/// The shortest life of a leaf: below, clocks that differ and renewal under load would cost connections.
pub const MIN_LEAF: Duration = Duration::from_secs(5 * 60);
/// The longest life of a leaf: revocation should not be all that ends an identity.
pub const MAX_LEAF: Duration = Duration::from_secs(24 * 60 * 60);
/// An issuing authority's default life: its key is online, so that it is replaced often.
pub const INTERMEDIATE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// A root's default life: rotated once a year, so that the rotation is known to work.
pub const ROOT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Certificates begin this much before they are issued, for verifiers whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(60);

/// From when until when a certificate holds, both inclusive. RFC 5280 section 4.1.2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second in which it holds.
    pub not_before: UnixTime,
    /// The last second in which it holds.
    pub not_after: UnixTime,
}

impl Validity {
    /// A life of `lifetime` from `now` on, begun earlier by [`BACKDATE`].
    pub fn from_now(now: UnixTime, lifetime: Duration) -> Self {
        Validity {
            not_before: at(now.as_secs().saturating_sub(BACKDATE.as_secs())),
            not_after: later(now, lifetime),
        }
    }

    /// The same, but no longer than that of `issuer`: a chain ends with its first certificate that does.
    #[must_use]
    pub fn within(self, issuer: Validity) -> Self {
        Validity {
            not_before: self.not_before.max(issuer.not_before),
            not_after: self.not_after.min(issuer.not_after),
        }
    }

    /// Whether it holds at `now`.
    pub fn holds(self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it is over at `now`.
    pub fn expired(self, now: UnixTime) -> bool {
        now > self.not_after
    }

    /// Its whole length.
    pub fn length(self) -> Duration {
        Duration::from_secs(self.not_after.as_secs().saturating_sub(self.not_before.as_secs()))
    }

    /// The share of it that is over at `now`, from 0 to 1.
    pub fn spent(self, now: UnixTime) -> f64 {
        let gone = now.as_secs().saturating_sub(self.not_before.as_secs());
        (gone as f64 / self.length().as_secs().max(1) as f64).min(1.0)
    }

    /// When to renew: at half of the life, moved by up to a tenth of it in either direction, so that workloads
    /// which started together don't come back together.
    ///
    /// `jitter` is in 0..=1 and drawn by the caller, once per certificate; what is outside is clamped.
    pub fn renew_at(self, jitter: f64) -> UnixTime {
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        later(self.not_before, self.length().mul_f64(0.4 + 0.2 * jitter))
    }
}

/// When to try again after `failures` failed renewals in a row: a second, doubled with each, at most a minute
/// and never more than an eighth of what is left, so that a short life isn't slept through.
pub fn retry_after(failures: u32, left: Duration, jitter: f64) -> Duration {
    let longest = Duration::from_secs(60).min(left / 8).max(Duration::from_secs(1));
    let doubled = Duration::from_secs(1u64 << failures.min(6)).min(longest);
    doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn later(time: UnixTime, by: Duration) -> UnixTime {
    at(time.as_secs().saturating_add(by.as_secs()))
}
