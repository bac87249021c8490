//! Replacing a root without a failed handshake: publish, wait, use, wait, retire. SPIFFE Trust Domain and Bundle
//! section 5.2 wants three to five refresh hints between publishing a root and using it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rustls::pki_types::UnixTime;

use crate::lifetime::{BACKDATE, later};

/// How a root is replaced: when it began, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    started: UnixTime,
    refresh_hint: Duration,
    hints: u32,
    longest_leaf: Duration,
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Both roots are in the bundle; the old one signs, until everybody has had time to fetch the bundle.
    Publish,
    /// Both roots are in the bundle; the new one signs, until the last leaf below the old one has expired.
    Use,
    /// The new root alone.
    Retired,
}

impl Rotation {
    /// Begins at `started`. `hints` refresh hints pass before the new root signs, clamped to 3..=5; leaves live
    /// `longest_leaf` at most.
    pub fn new(started: UnixTime, refresh_hint: Duration, hints: u32, longest_leaf: Duration) -> Self {
        Rotation { started, refresh_hint, hints: hints.clamp(3, 5), longest_leaf }
    }

    /// When the new root begins to sign.
    pub fn use_at(&self) -> UnixTime {
        later(self.started, self.refresh_hint * self.hints)
    }

    /// When the old root leaves the bundle: no leaf below it holds any more, by clocks that are behind too.
    pub fn retire_at(&self) -> UnixTime {
        later(self.use_at(), self.longest_leaf + 2 * BACKDATE)
    }

    /// Where it stands at `now`. A clock that went back never takes a step back past the start.
    pub fn phase(&self, now: UnixTime) -> Phase {
        if now < self.use_at() {
            Phase::Publish
        } else if now < self.retire_at() {
            Phase::Use
        } else {
            Phase::Retired
        }
    }

    /// When the next phase begins; `None`: there is none.
    pub fn next(&self, now: UnixTime) -> Option<UnixTime> {
        match self.phase(now) {
            Phase::Publish => Some(self.use_at()),
            Phase::Use => Some(self.retire_at()),
            Phase::Retired => None,
        }
    }
}
