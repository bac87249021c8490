//! The redirect rules in real network namespaces, without root.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod capture;
mod lifetime;
mod probes;
mod stalls;
mod told;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    time::Duration,
};

use sidegate_harness::{Case, world};
use sidegate_policy::set::UdpDestination;
use sidegate_proxy::redirect::{DNS_PORT, Netlink, OUTBOUND_PORT, Spec, install};

/// A place in the world that no rule allows.
const TARGET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const PATIENCE: Duration = Duration::from_secs(10);
/// The user that is exempt in these tests; nobody here is it.
const NOBODY_HERE: u32 = 1337;

fn main() -> ExitCode {
    let cases: [&[Case]; 5] = [capture::CASES, lifetime::CASES, probes::CASES, stalls::CASES, told::CASES];
    sidegate_harness::main(&cases.concat())
}

/// The rules of a sidecar that let the world's fences pass.
fn sidecar() -> Spec {
    Spec { inbound: None, udp: vec![allow("10.77.0.1/32", world::FENCE_PORT)], ..Spec::sidecar(NOBODY_HERE) }
}

fn allow(net: &str, port: u16) -> UdpDestination {
    UdpDestination { net: net.parse().unwrap(), ports: port..=port }
}

fn put_in_place(spec: &Spec) {
    install(&mut Netlink::netfilter().unwrap(), spec).unwrap();
}

/// The proxy's outbound listeners, and a stand-in for its other ports.
fn listeners() -> Vec<TcpListener> {
    let at = |port| [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
    [OUTBOUND_PORT, DNS_PORT, 15021]
        .into_iter()
        .flat_map(at)
        .map(|at| TcpListener::bind(at).unwrap())
        .collect()
}

fn dial(to: SocketAddr) -> std::io::Result<TcpStream> {
    dial_for(PATIENCE, to)
}

#[allow(clippy::disallowed_methods, reason = "plays the application")]
fn dial_for(patience: Duration, to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, patience)
}
