//! The connection's story, one file a stage.
//!
//! accept -> observe -> decide -> connect -> version gate -> relay, with the record open all along. Each stage
//! consumes the value of the one before, and only `outbound` calls them in order.

use std::sync::Arc;

use crate::{limits::Limits, mesh::Mesh, metrics::Meters, server::Gate};

pub(crate) mod accept;
pub mod classify;
pub(crate) mod client_address;
pub mod connect;
pub mod decide;
mod dial;
pub(crate) mod explain;
pub(crate) mod farewell;
pub(crate) mod inbound;
pub(crate) mod link;
pub(crate) mod live;
pub(crate) mod mesh;
mod observe;
pub(crate) mod outbound;
pub(crate) mod record;
mod relay;
pub(crate) mod scratch;
#[cfg(test)]
mod tests;
mod version_gate;
mod words;
#[cfg(test)]
pub(crate) mod world;

pub use live::LiveConnection;

/// What the connections of one worker share.
pub(crate) struct Worker {
    pub(crate) gate: Arc<Gate>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) live: Arc<live::Registry>,
    /// Connections of the mesh, which end with their streams: neither idle nor judged by themselves.
    pub(crate) carriers: Arc<live::Registry>,
    /// Connections to far ends that wait for another request.
    pub(crate) pool: crate::http::upstream::Pool,
    /// Streams to other workloads; `None`: this one has no identity.
    pub(crate) mesh: Option<Mesh>,
    /// How sockets towards the far end are opened.
    pub(crate) dial: Arc<connect::Dialler>,
}

/// What opens streams to other workloads on one worker.
pub(crate) fn mesh_of(gate: &Gate, dial: &Arc<connect::Dialler>, limits: &Arc<Limits>) -> Option<Mesh> {
    let membership = gate.membership.as_ref()?;
    Some(membership.mesh(Arc::clone(dial), Arc::clone(limits), gate.settings.connect_timeout))
}
