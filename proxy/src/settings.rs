//! What a running proxy can be told, with defaults; files and command lines are turned into this.

use std::{net::SocketAddr, time::Duration};

use sidegate_policy::HostName;

/// Deadlines, limits and behaviour. `Default` is what the docs name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker threads, each with its own listener sockets and event loop.
    pub workers: usize,
    /// Longest wait for enough of the client's first bytes. Default 5 s.
    pub classify_timeout: Duration,
    /// Most bytes read before the verdict. Default 64 KiB.
    pub classify_bytes: usize,
    /// Longest wait for one dial, over all addresses. Default 10 s.
    pub connect_timeout: Duration,
    /// Close a connection on which nothing moved for this long. Default 1 h.
    pub idle_timeout: Duration,
    /// How long live connections may go on after SIGTERM. Default 25 s.
    pub drain_timeout: Duration,
    /// Concurrent connections in total. Default 8192.
    pub connections: usize,
    /// Concurrent connections from one source address. Default 4096.
    pub connections_per_source: usize,
    /// Descriptors kept free for control, DNS and health: a quarter for DNS streams, a quarter for questions to resolvers.
    /// Default 64.
    pub descriptor_reserve: usize,
    /// Upstream resolvers; the first answers, the next is asked on failure.
    pub resolvers: Vec<SocketAddr>,
    /// Answer denied names with NXDOMAIN instead of REFUSED.
    pub dns_denied_nxdomain: bool,
    /// Search domains of the application: denied names under them get NXDOMAIN, so that clients try the next candidate.
    pub dns_search: Vec<HostName>,
    /// Different names per wildcard rule that may be asked upstream within a minute. Default 60.
    pub dns_names_per_minute: usize,
    /// Let a ClientHello with ECH pass name rules (for clients that send GREASE). Default false.
    pub allow_ech: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            classify_timeout: Duration::from_secs(5),
            classify_bytes: 64 * 1024,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(25),
            connections: 8192,
            connections_per_source: 4096,
            descriptor_reserve: 64,
            resolvers: Vec::new(),
            dns_denied_nxdomain: false,
            dns_search: Vec::new(),
            dns_names_per_minute: 60,
            allow_ech: false,
        }
    }
}
