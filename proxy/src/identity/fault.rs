//! Why files are refused, and what to do about it.

use std::path::{Path, PathBuf};

use sidegate_certs::{
    UnixTime,
    bundle::BundleError,
    identity::IdentityError,
    revocation::ListError,
    tls::{CredentialError, OriginError},
};
use sidegate_policy::{Diagnostic, Source};

use super::told::rfc3339;

/// A file and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {ground}", path.display())]
pub struct Fault {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong.
    pub ground: Ground,
}

/// What is wrong with a file. No word of it comes from a private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ground {
    /// It is not there.
    #[error("it is not there")]
    Absent,
    /// The system does not give it.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// It, or one that belongs to it, is being written.
    #[error("it changed while it was read")]
    Moving,
    /// Certificate and key make no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is over.
    #[error("the certificate expired at {}", rfc3339(*.0))]
    Expired(UnixTime),
    /// The certificate has not begun.
    #[error("the certificate holds only from {} on; the clock here may be behind", rfc3339(*.0))]
    NotYet(UnixTime),
    /// The certificate is of another trust domain than the configured one.
    #[error("the certificate's ID is {found}, of another trust domain than {expected}")]
    TrustDomain {
        /// The configured one.
        expected: String,
        /// The certificate's SPIFFE ID.
        found: String,
    },
    /// The certificate is another workload's.
    #[error("the certificate's ID is {found}, but the workload is {expected}")]
    Workload {
        /// The configured one.
        expected: String,
        /// The certificate's SPIFFE ID.
        found: String,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// No root of the bundle holds now.
    #[error("every root in the bundle has expired, or has not begun")]
    NoRootHolds,
    /// A revocation list.
    #[error(transparent)]
    List(#[from] ListError),
    /// A file for revocation lists that has none.
    #[error("there is no revocation list in it")]
    NoList,
    /// The Workload API gives nothing, or nothing that can be used.
    #[error("the Workload API: {0}")]
    Api(String),
    /// Roots that servers outside the mesh are verified by.
    #[error(transparent)]
    Roots(#[from] OriginError),
    /// A certificate for clients, and its key.
    #[error(transparent)]
    Certificate(#[from] CredentialError),
    /// A file for revocation lists with too many certificates.
    #[error("there are more than 32 certificates in it")]
    Issuers,
}

impl Fault {
    pub(crate) fn new(path: &Path, ground: impl Into<Ground>) -> Fault {
        Fault { path: path.to_owned(), ground: ground.into() }
    }

    /// The file changed while it was read.
    pub(crate) fn moving(path: &Path) -> Fault {
        Fault::new(path, Ground::Moving)
    }

    /// How to mend it.
    pub fn fix(&self) -> &'static str {
        match &self.ground {
            Ground::Absent => {
                "check the path in the configuration; a file that comes later is taken when it is there"
            }
            Ground::Unreadable(_) => "check that it is a file and that the proxy's user may read it",
            Ground::Moving => "write the files anew beside the old ones and rename them, or swap a link",
            Ground::Identity(IdentityError::Form(_)) => {
                "issue an X.509-SVID: PEM, leaf first, one URI name with the SPIFFE ID, serverAuth and clientAuth"
            }
            Ground::Identity(IdentityError::Key(_)) => {
                "give the private key in PEM: P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits"
            }
            Ground::Identity(IdentityError::Mismatch) => {
                "give the key that the certificate was issued for; where both are renewed, replace both at once"
            }
            Ground::Expired(_) => "renew it, and see why whoever renews it did not",
            Ground::NotYet(_) => "set the clock, or wait",
            Ground::TrustDomain { .. } => "issue a certificate of `identity.trustDomain`, or correct that",
            Ground::Workload { .. } => "issue a certificate for `workload`, or correct that",
            Ground::Bundle(_) => {
                "give the trust domain's roots: PEM certificates, or a SPIFFE bundle (a JWK set)"
            }
            Ground::Api(_) => {
                "see that the agent runs and that an entry for this workload is registered with it"
            }
            Ground::Roots(_) => "give root certificates in PEM, each of them readable",
            Ground::Certificate(CredentialError::Chain | CredentialError::Authority) => {
                "give the server's certificate chain in PEM, leaf first"
            }
            Ground::Certificate(CredentialError::Key(_)) => {
                "give the private key in PEM: P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits"
            }
            Ground::Certificate(CredentialError::Mismatch) => {
                "give the key that the certificate was issued for; where both are renewed, replace both at once"
            }
            Ground::NoRootHolds => "replace the bundle by the trust domain's present one",
            Ground::List(_) | Ground::NoList | Ground::Issuers => {
                "give complete lists (DER, or `X509 CRL` in PEM); the certificate of an issuer that is no root of the \
                 bundle stands beside its list, in PEM"
            }
        }
    }

    /// The same with a code and a place.
    pub fn diagnostic(&self) -> Diagnostic {
        let code = match &self.ground {
            Ground::Absent | Ground::Unreadable(_) | Ground::Moving => "unreadable",
            Ground::Identity(IdentityError::Mismatch) | Ground::Certificate(CredentialError::Mismatch) => {
                "key-mismatch"
            }
            Ground::Certificate(_) => "certificate",
            Ground::Identity(_) => "identity",
            Ground::Expired(_) | Ground::NotYet(_) | Ground::NoRootHolds => "expired",
            Ground::TrustDomain { .. } | Ground::Workload { .. } => "identity-other",
            Ground::Bundle(_) => "bundle",
            Ground::Api(_) => "workload-api",
            Ground::Roots(_) => "roots",
            Ground::List(_) | Ground::NoList | Ground::Issuers => "revocations",
        };
        let source = Source::new(self.path.display().to_string(), "");
        Diagnostic::new(&source, code, 0..0, self.ground.to_string(), self.fix())
    }
}
