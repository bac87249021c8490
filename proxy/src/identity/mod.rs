//! Who this proxy is to its peers and whom it believes: an X.509-SVID with its key, and a trust bundle, from files that
//! somebody else renews (cert-manager, the secrets CSI driver, spiffe-helper), or from the SPIFFE Workload API.
//!
//! [`Follower`] looks at the files twice a second and swaps what [`Identities`] holds; a handshake reads it there.
//! The pair of certificate and key is taken whole or not at all, and so is trust, which is the bundle and the
//! revocation lists. What is wrong leaves in force what was there before, is told, and is tried again.

mod alarm;
mod fault;
mod files;
mod follow;
mod load;
mod take;
#[cfg(test)]
mod tests;
mod told;
mod workload_api;

pub use fault::{Fault, Ground};
pub use files::IdentityFiles;
pub use follow::Follower;
pub(crate) use load::bytes_of;
pub use load::check;
pub use told::Identities;
pub(crate) use told::unconfigured;
pub use workload_api::{Endpoint, VARIABLE, WorkloadApi};

/// When the certificate that is served ends, in seconds since 1970; there once a certificate was loaded.
pub const EXPIRY: &str = "sidegate_identity_expiry_seconds";
/// Times that a certificate replaced another one.
pub const ROTATIONS: &str = "sidegate_identity_rotations_total";
/// Times that files were refused, by `part`: `identity` (certificate and key), `trust` (bundle and revocation lists), `roots` or
/// `certificates` (files by label).
pub const ERRORS: &str = "sidegate_identity_errors_total";

/// Where an identity comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum IdentitySource {
    /// Files that somebody else renews.
    Files(IdentityFiles),
    /// The SPIFFE Workload API.
    WorkloadApi(Endpoint),
}

/// What several files make together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Certificate chain and private key.
    Identity,
    /// Bundle and revocation lists.
    Trust,
}

impl Part {
    /// The label of [`ERRORS`].
    pub const fn word(self) -> &'static str {
        match self {
            Part::Identity => "identity",
            Part::Trust => "trust",
        }
    }
}

/// Describes the metrics and lets the counters begin at zero.
pub(crate) fn describe() {
    metrics::describe_gauge!(EXPIRY, metrics::Unit::Seconds, "When the served certificate ends, since 1970.");
    metrics::describe_counter!(ROTATIONS, "Times that a certificate replaced another one.");
    metrics::describe_counter!(ERRORS, "Times that identity files were refused, by part.");
    let _ = metrics::counter!(ROTATIONS);
    for part in [Part::Identity, Part::Trust] {
        let _ = metrics::counter!(ERRORS, "part" => part.word());
    }
}
