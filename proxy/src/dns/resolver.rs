//! A forwarding stub over the configured resolvers: never a recursor.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use sidegate_policy::{HostName, Reason};

/// Address families to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// Addresses of a name, pinned until they expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// In the order of the answer, without duplicates; unfiltered by policy.
    pub addresses: Vec<IpAddr>,
    /// Seconds they may still be used (TTL, clamped to 5-3600 s, less their age).
    pub ttl: u32,
}

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// NXDOMAIN.
    #[error("no such name")]
    NotFound,
    /// The name exists without an address of this family.
    #[error("no address of this family")]
    NoAddress,
    /// Every resolver failed or answered nonsense.
    #[error("every resolver failed")]
    Failed,
    /// No resolver answered in time.
    #[error("no resolver answered in time")]
    Timeout,
}

impl ResolveError {
    /// The reason word.
    pub fn reason(self) -> Reason {
        match self {
            ResolveError::NotFound | ResolveError::NoAddress => Reason::ResolveNotFound,
            ResolveError::Failed => Reason::ResolveFailed,
            ResolveError::Timeout => Reason::ResolveTimeout,
        }
    }
}

/// Asks, checks, caches. Cheap to clone; usable from every worker.
#[derive(Clone, Debug)]
pub struct Resolver {
    _servers: Arc<[SocketAddr]>,
}

impl Resolver {
    /// A resolver over `servers`, asked in order.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Resolver { _servers: servers.into() }
    }

    /// The resolvers that `/etc/resolv.conf` names.
    ///
    /// # Errors
    /// The file can't be read or names none.
    pub fn system_servers() -> std::io::Result<Vec<SocketAddr>> {
        todo!()
    }

    /// Addresses of one family, from cache or upstream. Concurrent questions for one name are asked once.
    pub async fn resolve(&self, host: &HostName, family: Family) -> Result<Resolved, ResolveError> {
        let _ = (host, family);
        todo!()
    }
}
