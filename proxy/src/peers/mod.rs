//! Which workloads are where: SPIFFE IDs and their addresses, from a file that somebody else keeps up to date.
//!
//! A connection to an address of the table is one to that workload: rules with `workloads` match it, and it is carried
//! over the mesh, whose handshake proves who is there. The table itself proves nothing.

mod document;
mod follow;
mod table;
#[cfg(test)]
mod tests;

pub use document::parse;
pub(crate) use follow::unconfigured;
pub use follow::{Follower, Refused, Told, load};
pub use table::{Peer, Peers};

/// Workloads in the table that counts.
pub const PEERS: &str = "sidegate_peers";
/// Times that the peers file was refused.
pub const ERRORS: &str = "sidegate_peers_errors_total";

/// Describes the metrics and lets them begin at zero.
pub(crate) fn describe() {
    metrics::describe_gauge!(PEERS, "Workloads in the table of peers.");
    metrics::describe_counter!(ERRORS, "Times that the peers file was refused.");
    metrics::gauge!(PEERS).set(0.0);
    let _ = metrics::counter!(ERRORS);
}
