//! What keeps the identity up to date, whichever source it comes from.

use std::sync::Arc;

use sidegate_certs::UnixTime;

use crate::identity::{Follower, Identities, IdentitySource, WorkloadApi};

/// What keeps the identity up to date.
pub(super) enum Followed {
    Files(Box<Follower>),
    WorkloadApi(WorkloadApi),
}

impl Followed {
    /// Files are looked at once: what is wrong with them keeps the proxy from being ready, not from starting, since they
    /// may come later.
    pub(super) fn begun(source: IdentitySource) -> Followed {
        match source {
            IdentitySource::Files(files) => {
                let mut follower = Follower::new(files);
                follower.look(UnixTime::now());
                Followed::Files(Box::new(follower))
            }
            IdentitySource::WorkloadApi(endpoint) => Followed::WorkloadApi(WorkloadApi::new(endpoint)),
        }
    }

    pub(super) fn identities(&self) -> Arc<Identities> {
        match self {
            Followed::Files(follower) => follower.identities(),
            Followed::WorkloadApi(api) => api.identities(),
        }
    }

    pub(super) async fn run(self) {
        match self {
            Followed::Files(follower) => follower.run().await,
            Followed::WorkloadApi(api) => api.run().await,
        }
    }
}
