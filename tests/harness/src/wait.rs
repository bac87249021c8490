//! Waiting for conditions, never for time to pass.

use std::{
    thread::yield_now,
    time::{Duration, Instant},
};

/// Asks again and again until the answer is yes.
///
/// # Panics
/// It is not within `limit`.
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        yield_now();
    }
}
