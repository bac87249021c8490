//! Connecting, which demands a [`Permit`]: by a name that the proxy resolves itself, or to the original destination.

use std::{io, net::IpAddr, sync::Arc};

use sidegate_policy::{HostName, Reason, decision::Dial};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

use super::{
    decide::{self, Permit, decide},
    dial::{Attempt, Lookup, Race, race},
};
use crate::{
    addrs::UpstreamAddr,
    dns::{resolve_permitted, resolver::Family},
    limits::Limits,
    policy_store::PolicyStore,
    server::Gate,
};

/// A permitted connection that is established.
#[derive(Debug)]
pub struct Connected {
    /// The permit, judged again if the policy changed meanwhile.
    pub permit: Permit,
    /// The socket towards the far end.
    pub upstream: TcpStream,
    /// Where it leads.
    pub address: UpstreamAddr,
}

/// Why a permitted connection was not established. Side and meaning are those of the reason.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct ConnectError {
    /// The stable reason.
    pub reason: Reason,
    /// What exactly, in words.
    pub detail: String,
}

impl ConnectError {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        ConnectError { reason, detail: detail.into() }
    }
}

/// Dials what the permit allows, within `connect_timeout` over all addresses.
///
/// For a name rule the name is resolved here and every address of the answer is judged; the client's address is
/// never used. Otherwise the original destination is dialled.
///
/// # Errors
/// The name does not resolve, none of its addresses may be dialled, none answers, or the policy changed meanwhile.
pub async fn connect(permit: Permit, gate: &Gate) -> Result<Connected, ConnectError> {
    connect_by(permit, gate, &dial, None).await
}

/// How a socket is opened; tests give their own.
pub(crate) type Dialler = dyn Fn(UpstreamAddr) -> Attempt<TcpStream> + Send + Sync;

/// As [`connect`], with a stated way of opening sockets, and within limits.
pub(crate) async fn connect_by(
    permit: Permit,
    gate: &Gate,
    dial: &Dialler,
    limits: Option<&Arc<Limits>>,
) -> Result<Connected, ConnectError> {
    let deadline = Instant::now() + gate.settings.connect_timeout;
    let (upstream, address) = match target(&permit)? {
        Target::Address(address) => (to_address(address, dial, deadline).await?, address),
        Target::Name(host, port) => {
            let judge = |answer: IpAddr| judge_answer(&gate.policies, &permit, answer);
            by_name(gate, &host, Race { what: host.as_str(), port, judge: &judge, dial, limits, deadline })
                .await?
        }
    };
    Ok(Connected { permit, upstream, address })
}

enum Target {
    Address(UpstreamAddr),
    Name(HostName, u16),
}

fn target(permit: &Permit) -> Result<Target, ConnectError> {
    let facts = permit.facts();
    let by_name = match permit.treatment().dial {
        Dial::Name => true,
        // A synthetic address leads nowhere: in audit mode its name stands for it.
        Dial::OriginalDestination => facts.synthetic,
        // Never in the clear, to whatever the address is: see `mesh`.
        Dial::Workload => {
            return Err(ConnectError::new(Reason::Internal, "a workload, dialled without mesh"));
        }
    };
    match &facts.host {
        Some((_, host)) if by_name => Ok(Target::Name(host.clone(), facts.original.port())),
        None if by_name => Err(ConnectError::new(Reason::HostMissing, "the destination is no real address")),
        _ => Ok(Target::Address(UpstreamAddr::new(facts.original.socket_addr()))),
    }
}

async fn to_address(
    address: UpstreamAddr,
    dial: &Dialler,
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    match timeout_at(deadline, dial(address)).await {
        Ok(outcome) => outcome.map_err(|error| dial_error(address, &error)),
        Err(_) => Err(too_slow(&address.to_string())),
    }
}

async fn by_name(
    gate: &Gate,
    host: &HostName,
    racing: Race<'_, TcpStream>,
) -> Result<(TcpStream, UpstreamAddr), ConnectError> {
    let lookup = |family| -> Lookup<'_> { Box::pin(resolve_permitted(gate, host, family)) };
    race(racing, lookup(Family::V6), lookup(Family::V4)).await
}

/// Judges an answer by the set of the moment: the one that permitted, or one that came since and must permit too.
fn judge_answer(policies: &PolicyStore, permit: &Permit, answer: IpAddr) -> Result<(), Reason> {
    let (set, peers) = (policies.current(), policies.peers());
    let facts = permit.facts();
    let newer = (set.generation() != permit.decision().generation).then(|| decide(&set, Arc::clone(facts)));
    let decision = match &newer {
        None => permit.decision(),
        Some(Ok(permit)) => permit.decision(),
        Some(Err(denied)) => return Err(denied.decision.reason),
    };
    decide::judge_answer((&set, &peers), facts, decision, answer)
}

/// Opens one socket. Nagle's algorithm is off: a relay must not hold back what it was given.
pub(crate) fn dial(address: UpstreamAddr) -> Attempt<TcpStream> {
    Box::pin(async move {
        let address = address.socket_addr();
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_nodelay(true)?;
        socket.connect(address).await
    })
}

/// Errors of this host come first: none of them may be blamed on the far end. connect(2), socket(2).
pub(crate) fn dial_error(address: UpstreamAddr, error: &io::Error) -> ConnectError {
    use io::ErrorKind::*;
    let reason = match (error.raw_os_error(), error.kind()) {
        (Some(libc::EMFILE | libc::ENFILE), _) => Reason::LimitDescriptors,
        (Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE), _) => Reason::LimitPorts,
        (Some(libc::ENOBUFS | libc::ENOMEM), _) => Reason::LimitMemory,
        (Some(libc::EPERM | libc::EACCES), _) => Reason::DialForbidden,
        (_, ConnectionRefused | ConnectionReset) => Reason::DialRefused,
        (_, TimedOut) => Reason::DialTimeout,
        _ => Reason::DialUnreachable,
    };
    ConnectError::new(reason, format!("{address}: {error}"))
}

pub(crate) fn too_slow(what: &str) -> ConnectError {
    ConnectError::new(Reason::DialTimeout, format!("{what}: no answer in time"))
}
