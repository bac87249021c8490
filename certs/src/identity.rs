//! What a workload proves itself with, and the cell in which it is swapped while connections come and go.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;

use crate::{
    Validity,
    key::PrivateKey,
    svid::{Svid, Violations},
};

/// Why certificate and key don't make an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificates.
    #[error(transparent)]
    Form(#[from] Violations),
    /// The key.
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
    /// They don't belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// An X.509-SVID with its key.
#[derive(Clone)]
pub struct Identity {
    svid: Svid,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Puts them together.
    ///
    /// # Errors
    /// The key is not the one that was certified.
    pub fn new(svid: Svid, key: &PrivateKey) -> Result<Self, IdentityError> {
        if svid.key() != key.public() {
            return Err(IdentityError::Mismatch);
        }
        let certified = Arc::new(CertifiedKey::new(svid.chain().to_vec(), key.usable()));
        Ok(Identity { svid, certified })
    }

    /// Reads both from PEM.
    ///
    /// # Errors
    /// No SVID, no usable key, or not of each other.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        Self::new(Svid::from_pem(chain)?, &PrivateKey::from_pem(key)?)
    }

    /// Its certificates.
    pub fn svid(&self) -> &Svid {
        &self.svid
    }

    /// From when until when it holds.
    pub fn validity(&self) -> Validity {
        self.svid.validity()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.svid).finish()
    }
}

/// An identity and its epoch: which one it is in the life of the cell, from 1.
#[derive(Clone, Debug)]
pub struct Current {
    /// The identity.
    pub identity: Identity,
    /// Rises with each replacement; pools of connections go by it.
    pub epoch: u64,
}

/// The identity of the moment. Readers never wait.
#[derive(Debug, Default)]
pub struct IdentityCell {
    current: ArcSwapOption<Current>,
    /// Writers, one after the other: epochs rise without gaps.
    epoch: Mutex<u64>,
}

impl IdentityCell {
    /// Nobody yet.
    pub fn empty() -> Self {
        IdentityCell::default()
    }

    /// The identity of the moment; `None` before the first one.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// Replaces it for every handshake from now on; those under way end as they began. Returns the new epoch.
    pub fn replace(&self, identity: Identity) -> u64 {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        *epoch += 1;
        self.current.store(Some(Arc::new(Current { identity, epoch: *epoch })));
        *epoch
    }
}
