//! Ending the TLS of clients that mean the workload itself: they know it by a name, or prove who they are, or neither.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    pki_types::UnixTime,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    time_provider::TimeProvider,
};

use super::{
    Credential, SetupError, TrustCell,
    mesh::{PeerVerifier, usable},
    server, without_resumption,
};
use crate::IdentityCell;

/// What clients are shown. Read at every handshake, and never once it has expired.
#[derive(Clone)]
pub enum Shown {
    /// The workload's own identity.
    Identity(Arc<IdentityCell>),
    /// A certificate that an operator gave; none before the first good one.
    Given(Arc<ArcSwapOption<Credential>>),
}

impl Shown {
    /// Whether there is something to show at `now`.
    pub fn holds(&self, now: UnixTime) -> bool {
        match self {
            Shown::Identity(cell) => {
                cell.current().is_some_and(|current| !current.identity.validity().expired(now))
            }
            Shown::Given(cell) => {
                cell.load().as_ref().is_some_and(|credential| !credential.validity().expired(now))
            }
        }
    }

    fn at(&self, time: &dyn TimeProvider) -> Option<Arc<CertifiedKey>> {
        match self {
            Shown::Identity(cell) => usable(&cell.current()?.identity, time),
            Shown::Given(cell) => {
                let credential = cell.load_full()?;
                let now = time.current_time()?;
                (!credential.validity().expired(now)).then(|| Arc::clone(&credential.certified))
            }
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shown::Identity(_) => "Identity",
            Shown::Given(_) => "Given",
        })
    }
}

/// For accepting clients as the server that they mean. They may show a certificate; if they do, it has to be an SVID of
/// a trust domain we know. Where we know none they are not asked. `protocols`: as in [`super::serve()`].
///
/// # Errors
/// This build's cryptography can't do TLS 1.3.
pub fn terminate(
    shown: Shown,
    trust: Arc<TrustCell>,
    protocols: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, SetupError> {
    let resolver = Arc::new(Server { shown, time: Arc::clone(&time) });
    let verifier = Arc::new(PeerVerifier::optional(trust));
    let mut config = server(time)?.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(without_resumption(config))
}

struct Server {
    shown: Shown,
    time: Arc<dyn TimeProvider>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Server {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown.at(self.time.as_ref())
    }
}
