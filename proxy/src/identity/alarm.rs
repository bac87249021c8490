//! When a certificate's end is to be told.

use std::time::Duration;

use sidegate_certs::{UnixTime, Validity};

/// From this share of its life on, a certificate that was not renewed is told of.
const HALF: f64 = 0.5;
/// How often, in seconds.
const AGAIN: u64 = 3_600;

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// Half of its life or more is over; so much is left.
    Late(Duration),
    /// It is over, and the certificate is not served any more.
    Over,
}

/// Remembers what was told of the certificate of the moment.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    last: Option<(UnixTime, bool)>,
}

impl Alarm {
    /// There is a new certificate.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }

    /// What to tell at `now`: at half of its life, at its end, and hourly from then on.
    pub(super) fn ring(&mut self, validity: Validity, now: UnixTime) -> Option<Ring> {
        if validity.spent(now) < HALF {
            return None;
        }
        let over = validity.expired(now);
        if let Some((last, told_over)) = self.last
            && told_over == over
            && now.as_secs().saturating_sub(last.as_secs()) < AGAIN
        {
            return None;
        }
        self.last = Some((now, over));
        let left = validity.not_after.as_secs().saturating_sub(now.as_secs());
        Some(if over { Ring::Over } else { Ring::Late(Duration::from_secs(left)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn it_rings_at_half_of_life_hourly_and_at_the_end() {
        let day = Validity { not_before: at(0), not_after: at(86_400) };
        let mut alarm = Alarm::default();
        let rang: Vec<u64> = (0..90_100).filter(|now| alarm.ring(day, at(*now)).is_some()).collect();
        let mut expected: Vec<u64> = (12..=24).map(|hour| hour * 3_600).collect();
        expected.extend([86_401, 90_001]);
        assert_eq!(rang, expected);
        alarm.reset();
        assert_eq!(alarm.ring(day, at(43_200)), Some(Ring::Late(Duration::from_secs(43_200))));
        assert_eq!(alarm.ring(day, at(86_401)), Some(Ring::Over), "the end is told at once");
    }

    #[test]
    fn a_renewed_certificate_is_silent() {
        let mut alarm = Alarm::default();
        assert!(alarm.ring(Validity { not_before: at(0), not_after: at(100) }, at(50)).is_some());
        alarm.reset();
        assert_eq!(alarm.ring(Validity { not_before: at(50), not_after: at(150) }, at(51)), None);
    }
}
