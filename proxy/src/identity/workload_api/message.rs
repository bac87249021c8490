//! The messages of the Workload API, and what is made of them. SPIFFE Workload API, section 5.

use std::collections::HashMap;

use prost::Message;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sidegate_certs::{
    Identity, PrivateKey, Revocations, Svid, TrustBundle, TrustStore, UnixTime, identity::IdentityError,
};
use sidegate_policy::{SpiffeId, TrustDomain};

use super::{super::Ground, Endpoint};

/// `X509SVIDRequest`: it has no field.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Response {
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<GivenSvid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) crl: Vec<Vec<u8>>,
    /// By trust domain, such as `spiffe://other.example`.
    #[prost(map = "string, bytes", tag = "3")]
    pub(super) federated_bundles: HashMap<String, Vec<u8>>,
}

/// `X509SVID`. Never printed: it holds a key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct GivenSvid {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) hint: String,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("svids", &self.svids.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GivenSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenSvid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

/// Judges all of a message before anything of it counts.
///
/// # Errors
/// The first ground to refuse it.
pub(super) fn judge(
    mut message: Response,
    endpoint: &Endpoint,
    now: UnixTime,
) -> Result<(Identity, TrustStore), Ground> {
    let given = endpoint.choose(&mut message.svids)?;
    // Keys of those that are not chosen, too.
    let keys = message.svids.iter_mut().map(|svid| std::mem::take(&mut svid.x509_svid_key));
    keys.map(zeroize::Zeroizing::new).for_each(drop);
    let key = PrivateKey::from_der(PrivatePkcs8KeyDer::from(given.x509_svid_key).into());
    let svid = Svid::from_der(&given.x509_svid).map_err(IdentityError::from)?;
    if svid.id().as_str() != given.spiffe_id {
        return Err(Ground::Api(format!("it calls {} by another ID", svid.id().as_str())));
    }
    unfit(&svid, endpoint, now)?;
    let identity = Identity::new(svid, &key.map_err(IdentityError::from)?)?;
    let own = TrustBundle::from_der(endpoint.trust_domain.clone(), &given.bundle)?;
    if !own.holds(now) {
        return Err(Ground::NoRootHolds);
    }
    let mut bundles = vec![own];
    for (domain, der) in &message.federated_bundles {
        let named = domain.strip_prefix("spiffe://").unwrap_or(domain);
        let domain = TrustDomain::parse(named)
            .map_err(|_| Ground::Api("a federated bundle is of no trust domain".to_owned()))?;
        // Whoever federates with us does not say whom we believe of our own.
        if domain != endpoint.trust_domain {
            bundles.push(TrustBundle::from_der(domain, der)?);
        }
    }
    let mut revocations = Revocations::default();
    let between = identity.svid().chain().iter().skip(1).cloned().collect::<Vec<_>>();
    let issuers: Vec<_> = bundles.iter().flat_map(|bundle| bundle.authorities(between.clone())).collect();
    for list in &message.crl {
        revocations.admit(list, &issuers)?;
    }
    Ok((identity, TrustStore::new(bundles).with_revocations(revocations)))
}

fn unfit(svid: &Svid, endpoint: &Endpoint, now: UnixTime) -> Result<(), Ground> {
    let (id, validity) = (svid.id(), svid.validity());
    let found = || id.as_str().to_owned();
    if id.trust_domain() != endpoint.trust_domain {
        let expected = endpoint.trust_domain.as_str().to_owned();
        return Err(Ground::TrustDomain { expected, found: found() });
    }
    if let Some(workload) = endpoint.workload.as_ref().filter(|workload| *workload != id) {
        return Err(Ground::Workload { expected: workload.as_str().to_owned(), found: found() });
    }
    if validity.expired(now) {
        return Err(Ground::Expired(validity.not_after));
    }
    if validity.holds(now) { Ok(()) } else { Err(Ground::NotYet(validity.not_before)) }
}

impl Endpoint {
    /// By hint, by the workload's ID, or the first: the default of the specification.
    fn choose(&self, svids: &mut Vec<GivenSvid>) -> Result<GivenSvid, Ground> {
        let wanted = |svid: &GivenSvid| match (&self.hint, &self.workload) {
            (Some(hint), _) => svid.hint == *hint,
            (None, Some(id)) => svid.spiffe_id == id.as_str(),
            (None, None) => true,
        };
        let position = svids.iter().position(wanted).ok_or_else(|| {
            let among = SpiffeId::parse(svids.first().map_or("", |svid| &svid.spiffe_id));
            let first = among.map(|id| format!(" (the first is {})", id.as_str())).unwrap_or_default();
            Ground::Api(format!("none of its {} identities is the one to be chosen{first}", svids.len()))
        })?;
        Ok(svids.swap_remove(position))
    }
}
