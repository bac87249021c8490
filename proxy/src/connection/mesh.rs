//! Connecting to a workload over the mesh, which demands a [`Permit`] too. There is no other way to one: a peer that can't
//! be reached so is not reached.

use std::{error::Error, io};

use rustls::CertificateError;
use sidegate_certs::bundle::TrustError;
use sidegate_policy::{Reason, SpiffeId};

use super::{
    Worker,
    connect::{ConnectError, dial_error, too_slow},
    decide::Permit,
};
use crate::{
    addrs::UpstreamAddr,
    mesh::{MeshStream, OpenError},
    policy_store::PolicyStore,
};

/// A permitted stream to a workload that has proven who it is.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) stream: MeshStream,
    /// Where its proxy was reached.
    pub(crate) address: UpstreamAddr,
    pub(crate) peer: SpiffeId,
}

/// Opens a stream to the workload that the permit is for, within `connect_timeout`.
///
/// # Errors
/// We have no identity, the peer can't be reached, is not the one expected, or refuses; or the peers file no longer names
/// it at the destination.
pub(crate) async fn join(permit: &Permit, worker: &Worker) -> Result<Joined, ConnectError> {
    let Some(mesh) = &worker.mesh else {
        return Err(ConnectError::new(Reason::MeshIdentityMissing, "no identity is configured"));
    };
    let (peer, address) = whom(permit, &worker.gate.policies)?;
    match mesh.open(&peer, address, permit.facts().original).await {
        Ok(stream) => Ok(Joined { stream, address, peer }),
        Err(error) => Err(fault(address, &error)),
    }
}

/// The peer that was judged, and where it is now.
fn whom(permit: &Permit, policies: &PolicyStore) -> Result<(SpiffeId, UpstreamAddr), ConnectError> {
    let facts = permit.facts();
    let destination = facts.original.ip();
    let peers = policies.peers();
    let there = peers.at(destination).filter(|peer| Some(&peer.id) == facts.peer.as_ref());
    let there = there.ok_or_else(|| {
        ConnectError::new(Reason::MeshPeerMoved, format!("{destination} belongs to somebody else now"))
    })?;
    Ok((there.id.clone(), there.mesh_address(destination)))
}

/// The stable reason of a stream that was not opened.
fn fault(address: UpstreamAddr, error: &OpenError) -> ConnectError {
    let reason = match error {
        OpenError::Dial(error) => return dial_error(address, error),
        OpenError::TimedOut => return too_slow(&address.to_string()),
        OpenError::NoIdentity => Reason::MeshIdentityMissing,
        OpenError::NoDescriptors => Reason::LimitDescriptors,
        OpenError::Setup(_) => Reason::Internal,
        OpenError::Handshake(error) => of_handshake(error),
        OpenError::NotHttp2 => Reason::MeshHandshake,
        OpenError::Dismissed => Reason::MeshPeerUntrusted,
        OpenError::Refused(status) => of_status(status.as_u16()),
        // In TLS 1.3 the client has done its part before the server has seen its certificate.
        OpenError::Lost(error) if is_alert(error) => Reason::MeshIdentityRefused,
        OpenError::Lost(_) => Reason::UpstreamClosed,
    };
    ConnectError::new(reason, format!("{address}: {error}"))
}

fn of_handshake(error: &io::Error) -> Reason {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(error) if matches!(TrustError::of(error), Some(TrustError::OtherId { .. })) => {
            Reason::MeshPeerMismatch
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => Reason::MeshHandshake,
        Some(rustls::Error::InvalidCertificate(_)) => Reason::MeshPeerUntrusted,
        Some(rustls::Error::AlertReceived(_)) => Reason::MeshIdentityRefused,
        _ => Reason::MeshHandshake,
    }
}

/// The answers that HBONE knows; any other is none of it.
fn of_status(status: u16) -> Reason {
    match status {
        401 | 403 => Reason::MeshRefused,
        404 | 502..=504 => Reason::MeshUnavailable,
        _ => Reason::UpstreamMalformed,
    }
}

/// HTTP/2 keeps of an error of the connection below it only kind and words.
fn is_alert(error: &h2::Error) -> bool {
    let below = error.get_io().filter(|error| error.kind() == io::ErrorKind::InvalidData);
    below.is_some_and(|error| {
        let cause: Option<&(dyn Error + Send + Sync)> = error.get_ref();
        let typed = cause.and_then(|cause| cause.downcast_ref::<rustls::Error>());
        matches!(typed, Some(rustls::Error::AlertReceived(_))) || error.to_string().contains("fatal alert")
    })
}
