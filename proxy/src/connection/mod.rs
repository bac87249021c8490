//! The connection's story, one file a stage.
//!
//! accept -> observe -> decide -> connect -> version gate -> relay, with the record open all along. Each stage
//! consumes the value of the one before, and only `outbound` calls them in order.

use std::sync::Arc;

use crate::{limits::Limits, metrics::Meters, server::Gate};

pub(crate) mod accept;
pub mod classify;
pub mod connect;
pub mod decide;
mod dial;
pub(crate) mod explain;
pub(crate) mod farewell;
pub(crate) mod inbound;
pub(crate) mod link;
pub(crate) mod live;
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
    /// Connections to far ends that wait for another request.
    pub(crate) pool: crate::http::upstream::Pool,
    /// How sockets towards the far end are opened.
    pub(crate) dial: Arc<connect::Dialler>,
}
