//! Streams between workloads: HTTP/2 CONNECT over mutual TLS 1.3, in the shape of Istio's HBONE.
//!
//! A [`Mesh`] opens streams, a [`MeshServer`] takes them; one connection between two workloads carries many. Both ends
//! have proven a SPIFFE ID before the first frame, and [`Roster`] ends connections whose peer must go.

mod alive;
mod client;
mod h2_settings;
mod membership;
mod pool;
pub(crate) mod relay;
mod request;
mod roster;
mod server;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

pub use client::{Mesh, MeshSetup, OpenError};
pub use membership::Membership;
#[cfg(test)]
pub(crate) use membership::Vigil;
pub(crate) use relay::Transfer;
pub use relay::{Broken, Ended, relay};
pub use roster::Roster;
pub use server::{Admitted, Asked, MeshServer, Refusal, ServeError, Tunnels};
pub use stream::MeshStream;

/// The port on which workloads take streams of the mesh, as Istio's do.
pub const MESH_PORT: u16 = 15008;
