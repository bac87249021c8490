//! Keeps the identity and the trust of the moment those of the files.

use std::sync::Arc;

use sidegate_certs::UnixTime;

use super::{Fault, Identities, IdentityFiles, Part, load, take::Taker};
use crate::files::{Attempts, keep_looking};

/// Follows the files of an identity.
#[derive(Debug)]
pub struct Follower {
    files: IdentityFiles,
    taker: Taker,
    identity: Attempts<Fault>,
    trust: Attempts<Fault>,
}

impl Follower {
    /// Follows these files; nothing was read yet.
    pub fn new(files: IdentityFiles) -> Self {
        let taker = Taker::new(files.trust_domain.clone());
        let attempts = |paths| Attempts::new(paths, Fault::moving);
        let (identity, trust) = (attempts(files.of_identity()), attempts(files.of_trust()));
        Follower { files, taker, identity, trust }
    }

    /// Where handshakes take their identity and their trust from.
    pub fn identities(&self) -> Arc<Identities> {
        self.taker.identities()
    }

    /// Looks at the files for as long as it is polled.
    pub async fn run(self) {
        keep_looking(self, Self::look, "identity files are not followed").await;
    }

    /// Looks once: reads what changed, takes it over or tells what is wrong with it, and tells of an end that is near.
    pub fn look(&mut self, now: UnixTime) {
        let mut changed = false;
        let Follower { files, trust, identity, .. } = self;
        let believed = trust.look(now, || load::trust(files, now));
        let shown = identity.look(now, || load::identity(files, now));
        match believed {
            Some(Ok(store)) => changed |= self.taker.believe(store),
            Some(Err(fault)) => self.taker.refuse(Part::Trust, fault, now),
            None => {}
        }
        match shown {
            Some(Ok(identity)) => changed |= self.taker.show(identity),
            Some(Err(fault)) => self.taker.refuse(Part::Identity, fault, now),
            None => {}
        }
        self.taker.looked(changed, now);
    }
}
