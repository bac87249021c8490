//! The running proxy: listeners, worker threads, and the way to stop them.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use crate::{
    access_log::AccessLog,
    addrs::OriginalDst,
    dns::{Names, Resolver, SyntheticAddresses},
    policy_store::PolicyStore,
    settings::Settings,
};

/// Bound sockets, made by whoever starts the proxy (in `sidegate run`, inside the command's network namespace).
/// Several sockets of one kind are spread over the workers (SO_REUSEPORT).
#[derive(Debug, Default)]
pub struct Listeners {
    /// Redirected outbound TCP (15001).
    pub outbound: Vec<TcpListener>,
    /// DNS over UDP (15053).
    pub dns_udp: Vec<UdpSocket>,
    /// DNS over TCP (15053).
    pub dns_tcp: Vec<TcpListener>,
}

/// How the original destination of a captured connection is learnt; tests give their own.
pub type OriginalDstSource = Arc<dyn Fn(&tokio::net::TcpStream) -> io::Result<OriginalDst> + Send + Sync>;

/// Everything that the stages of a connection share.
pub struct Gate {
    /// The current policies.
    pub policies: PolicyStore,
    /// The proxy's own resolver.
    pub resolver: Resolver,
    /// Names behind synthetic addresses.
    pub synthetic: SyntheticAddresses,
    /// What the application was told of names, and how many it may ask for.
    pub names: Names,
    /// Where records go.
    pub access_log: AccessLog,
    /// Deadlines and limits.
    pub settings: Settings,
    /// How original destinations are learnt.
    pub original_dst: OriginalDstSource,
    /// The workload's SPIFFE ID for records.
    pub workload: Option<String>,
}

/// A started proxy.
pub struct Running {
    _gate: Arc<Gate>,
}

impl Running {
    /// Starts the worker threads. Ready to serve when it returns.
    pub fn start(gate: Arc<Gate>, listeners: Listeners) -> io::Result<Running> {
        let _ = (gate, listeners);
        todo!()
    }

    /// Stops accepting, lets live connections end within `deadline`, closes the rest, joins the threads.
    pub fn drain(self, deadline: Duration) {
        let _ = deadline;
        todo!()
    }
}
