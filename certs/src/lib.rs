//! Identity: who a workload is, who vouches for it, until when, and the TLS that proves it.
//!
//! [`Authority`] issues [`Svid`]s for the [`PublicKey`] of a [`CertificateRequest`]; [`TrustBundle`]s and
//! [`Revocations`] say whom to believe; [`tls`] holds the only code that builds rustls configurations.
//! No sockets, no files, no clock: time is an argument, in whole seconds since 1970.
#![forbid(unsafe_code)]

pub mod authority;
pub mod bundle;
pub mod identity;
pub mod inspection;
pub mod key;
pub mod lifetime;
mod random;
pub mod request;
pub mod revocation;
pub mod rotation;
pub mod svid;
#[cfg(test)]
mod testing;
pub mod tls;
mod x509;

pub use authority::{Authority, Profile};
pub use bundle::{TrustBundle, TrustStore};
pub use identity::{Identity, IdentityCell};
pub use inspection::InspectionAuthority;
pub use key::{KeyKind, PrivateKey, PublicKey};
pub use lifetime::Validity;
pub use request::CertificateRequest;
pub use revocation::Revocations;
pub use rustls::pki_types::UnixTime;
pub use svid::Svid;
pub use x509::certificate_to_pem;
