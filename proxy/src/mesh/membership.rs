//! What makes this proxy a member of the mesh, and the watch over those it is connected with.

use std::{sync::Arc, time::Duration};

use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use sidegate_certs::{TrustStore, UnixTime};

use super::{
    client::{Mesh, MeshSetup},
    roster::Roster,
};
use crate::{connection::connect::Dialler, files::keep_looking, identity::Identities, limits::Limits};

/// Who we are, whom we believe, and who is connected: of the whole process.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Swapped by whoever follows their source.
    pub identities: Arc<Identities>,
    /// Both ways and of all workers.
    pub roster: Arc<Roster>,
    /// When it is.
    pub time: Arc<dyn TimeProvider>,
}

impl Membership {
    /// By the clock of the system; nobody is connected.
    pub fn new(identities: Arc<Identities>) -> Self {
        Self::at(identities, Arc::new(DefaultTimeProvider))
    }

    /// By a stated clock.
    pub fn at(identities: Arc<Identities>, time: Arc<dyn TimeProvider>) -> Self {
        Membership { identities, roster: Arc::new(Roster::new()), time }
    }

    /// What opens streams on one worker.
    pub(crate) fn mesh(&self, dial: Arc<Dialler>, limits: Arc<Limits>, patience: Duration) -> Mesh {
        Mesh::new(MeshSetup {
            identity: Arc::clone(&self.identities.identity),
            trust: Arc::clone(&self.identities.trust),
            time: Arc::clone(&self.time),
            roster: Arc::clone(&self.roster),
            dial,
            limits: Some(limits),
            patience,
        })
    }

    /// Ends connections whose peer no longer holds, for as long as it is polled. Signatures are verified on a thread of
    /// their own.
    pub async fn watch(self) {
        keep_looking(Vigil::new(self), |vigil, _| vigil.look(), "peers are not verified again").await;
    }
}

/// What was seen at the last look.
#[derive(Debug)]
pub(crate) struct Vigil {
    membership: Membership,
    trust: Arc<TrustStore>,
    /// When the first root of that trust ends.
    root_end: Option<UnixTime>,
    /// The epoch of our certificate.
    epoch: u64,
}

impl Vigil {
    pub(crate) fn new(membership: Membership) -> Self {
        // Of another trust than any that comes: the first look reviews whoever is connected by then.
        Vigil { membership, trust: Arc::default(), root_end: None, epoch: 0 }
    }

    /// Looks once: everybody is verified again when trust has changed or a root has ended, and those whose own time has
    /// come.
    pub(crate) fn look(&mut self) {
        let Membership { identities, roster, time } = &self.membership;
        let Some(now) = time.current_time() else { return };
        let trust = identities.trust.current();
        let changed = !Arc::ptr_eq(&trust, &self.trust);
        let ended = self.root_end.is_some_and(|end| now > end);
        let ours = identities.identity.current();
        let renewed = ours.as_ref().is_some_and(|ours| ours.identity.validity().holds(now));
        let mut gone = roster.expire(&trust, now, renewed && !roster.is_disowned());
        let epoch = ours.map_or(0, |current| current.epoch);
        if changed || ended || epoch != self.epoch {
            self.tell_disowned(now);
            self.epoch = epoch;
        }
        if changed || ended {
            gone += self.membership.roster.review(&trust, now);
            self.root_end = trust.next_end(now);
            self.trust = trust;
        }
        if gone > 0 {
            tracing::warn!(connections = gone, "closed: their certificates no longer hold");
        }
    }

    fn tell_disowned(&self, now: UnixTime) {
        let revoked = self.membership.identities.is_revoked(now);
        if !self.membership.roster.disown(revoked) {
            return;
        }
        if revoked {
            tracing::error!("this workload's own certificate was revoked: no streams of the mesh are opened");
        } else {
            tracing::info!("this workload's certificate is not revoked any more");
        }
    }
}
