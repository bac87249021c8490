//! Kernel settings of the network namespace that behave badly behind a redirect.
//!
//! The redirect brings connections to many destinations to one listener. A source port that one destination's
//! connection just used is soon reused for another, meets the listener's TIME_WAIT of what is now the same four-tuple,
//! and its SYN is dropped as an old duplicate (PAWS, RFC 7323 section 5) because timestamps begin at a random offset
//! per destination. The client retries after a second. `tcp_timestamps=2` drops the offset, so time never runs back.

use std::{fs, io};

const TCP_TIMESTAMPS: &str = "/proc/sys/net/ipv4/tcp_timestamps";
/// On, without random offset per destination; off is as good.
const WITHOUT_OFFSET: &str = "2";

/// Whether short connections can stall for a second behind the redirect.
#[derive(Debug)]
pub enum Timestamps {
    /// Set: no stalls.
    Tuned,
    /// The setting could not be written: where many short connections are made, a few of a hundred wait a second.
    Untuned(io::Error),
}

/// Sets `net.ipv4.tcp_timestamps=2` (which IPv6 obeys too) in this network namespace.
pub fn tune() -> Timestamps {
    match fs::read_to_string(TCP_TIMESTAMPS) {
        Ok(now) if ["0", WITHOUT_OFFSET].contains(&now.trim()) => return Timestamps::Tuned,
        Ok(_) => {}
        Err(error) => return Timestamps::Untuned(error),
    }
    match fs::write(TCP_TIMESTAMPS, WITHOUT_OFFSET) {
        Ok(()) => Timestamps::Tuned,
        Err(error) => Timestamps::Untuned(error),
    }
}
