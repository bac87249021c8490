//! Kernel settings of the network namespace that behave badly behind a redirect.
//!
//! The redirect brings connections to many destinations to one listener. A source port that one destination's
//! connection just used is soon reused for another, meets the listener's TIME_WAIT of what is now the same four-tuple,
//! and its SYN is dropped as an old duplicate (PAWS, RFC 7323 section 5) because timestamps begin at a random offset
//! per destination. The client retries after a second. `tcp_timestamps=2` drops the offset, so time never runs back.
//!
//! The proxy dials the same few destinations over and over, and often closes first: each connection keeps its source port
//! in TIME_WAIT for a minute, and some 28,000 ports are soon gone. `tcp_tw_reuse=1` lets connect(2) take such a port after
//! a second, which timestamps make safe (RFC 6191).

use std::{fs, io};

const TCP_TIMESTAMPS: &str = "/proc/sys/net/ipv4/tcp_timestamps";
/// On, without random offset per destination; off is as good against stalls.
const WITHOUT_OFFSET: &str = "2";
const TCP_TW_REUSE: &str = "/proc/sys/net/ipv4/tcp_tw_reuse";
/// For every destination; the kernel's default is loopback alone.
const EVERYWHERE: &str = "1";

/// What became of the settings. IPv6 obeys both too.
#[derive(Debug)]
pub struct Tuned {
    /// `net.ipv4.tcp_timestamps=2`. Failed: where many short connections are made, a few of a hundred wait a second.
    pub timestamps: io::Result<()>,
    /// `net.ipv4.tcp_tw_reuse=1`. Failed: many short connections to one destination use up the source ports.
    pub reuse: io::Result<()>,
}

/// Sets what it can in this network namespace.
pub fn tune() -> Tuned {
    Tuned {
        timestamps: set(TCP_TIMESTAMPS, WITHOUT_OFFSET, &["0", WITHOUT_OFFSET]),
        reuse: set(TCP_TW_REUSE, EVERYWHERE, &[EVERYWHERE]),
    }
}

/// Writes only where needed: `/proc/sys` may be read-only and already right.
fn set(path: &str, value: &str, good: &[&str]) -> io::Result<()> {
    if good.contains(&fs::read_to_string(path)?.trim()) { Ok(()) } else { fs::write(path, value) }
}
