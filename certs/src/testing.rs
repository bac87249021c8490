//! A small world of authorities for the tests of this crate.

use std::{sync::Arc, time::Duration};

use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use sidegate_policy::{SpiffeId, TrustDomain};

use crate::{
    Authority, Identity, PrivateKey, Profile, Svid, TrustBundle,
    lifetime::{self, at},
};

/// The present of the tests.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn now() -> UnixTime {
    at(NOW)
}

pub(crate) fn after(seconds: u64) -> UnixTime {
    at(NOW + seconds)
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// A clock that stands.
#[derive(Debug)]
pub(crate) struct Standing(pub(crate) UnixTime);

impl TimeProvider for Standing {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

pub(crate) fn clock(time: UnixTime) -> Arc<dyn TimeProvider> {
    Arc::new(Standing(time))
}

/// A trust domain with its root and the intermediate that issues.
pub(crate) struct World {
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
}

impl World {
    pub(crate) fn of(name: &str) -> Self {
        let key = || PrivateKey::generate().unwrap();
        let root = Authority::root(&domain(name), key(), now(), lifetime::ROOT).unwrap();
        let issuing = root.intermediate(key(), now(), lifetime::INTERMEDIATE).unwrap();
        World { root, issuing }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        let root = self.root.root_certificate().unwrap().clone();
        TrustBundle::from_roots(self.root.trust_domain().clone(), vec![root]).unwrap()
    }

    pub(crate) fn svid(&self, path: &str, key: &PrivateKey) -> Svid {
        let id = id(&format!("spiffe://{}{path}", self.root.trust_domain().as_str()));
        self.issuing.issue(key.public(), &Profile::new(id, lifetime::LEAF).unwrap(), now()).unwrap()
    }

    pub(crate) fn identity(&self, path: &str) -> Identity {
        let key = PrivateKey::generate().unwrap();
        Identity::new(self.svid(path, &key), &key).unwrap()
    }
}

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
