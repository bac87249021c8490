//! What the rules are to do, before it is said in rules.

use sidegate_policy::set::UdpDestination;

/// The proxy's outbound listener.
pub const OUTBOUND_PORT: u16 = 15001;
/// The proxy's inbound listener.
pub const INBOUND_PORT: u16 = 15006;
/// The proxy's DNS server.
pub const DNS_PORT: u16 = 15053;
/// The uid that the proxy runs as beside a workload.
pub const PROXY_UID: u32 = 1337;
/// The NFLOG group that refusals are told through.
pub const NFLOG_GROUP: u16 = 15001;
/// Admin (where it has a port), HBONE, metrics, readiness: closed to the workload.
const SERVICE_PORTS: [u16; 4] = [15000, 15008, 15020, 15021];

/// Whose own traffic leaves without being redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// Nobody: the proxy dials from another network namespace. Nothing to forge.
    None,
    /// The proxy's uid. A workload that can become this uid gets past the rules; preflight checks that it can't.
    Uid(u32),
}

/// Everything that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Listener for redirected TCP, on 127.0.0.1 and ::1.
    pub outbound: u16,
    /// Listener for TCP that arrives from outside; `None`: arriving connections go straight to the workload.
    pub inbound: Option<u16>,
    /// DNS over UDP and TCP, on 127.0.0.1 and ::1.
    pub dns: u16,
    /// Further ports of the proxy that outsiders may reach and the workload may not.
    pub services: Vec<u16>,
    /// Whose own traffic is let out.
    pub exempt: Exempt,
    /// Redirect port 53 of local addresses too (such as 127.0.0.53). Off where containers of one task serve
    /// DNS to each other.
    pub loopback_dns: bool,
    /// Datagrams that may leave.
    pub udp: Vec<UdpDestination>,
    /// NFLOG group for refusals; `None`: refusals are only counted.
    pub nflog_group: Option<u16>,
}

impl Spec {
    /// For `sidegate run`: a namespace of its own, the proxy outside.
    pub fn run() -> Spec {
        Spec {
            outbound: OUTBOUND_PORT,
            inbound: None,
            dns: DNS_PORT,
            services: Vec::new(),
            exempt: Exempt::None,
            loopback_dns: true,
            udp: Vec::new(),
            nflog_group: Some(NFLOG_GROUP),
        }
    }

    /// For a sidecar that shares the workload's namespace and runs as `uid`.
    pub fn sidecar(uid: u32) -> Spec {
        Spec {
            inbound: Some(INBOUND_PORT),
            services: SERVICE_PORTS.to_vec(),
            exempt: Exempt::Uid(uid),
            loopback_dns: false,
            ..Spec::run()
        }
    }
}
