//! Issuing: a root, the intermediate that works every day, and the leaves and revocation lists it signs.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use sidegate_policy::{HostName, SpiffeId, TrustDomain};
use time::OffsetDateTime;

use crate::{
    Validity,
    key::{KeyError, PrivateKey, PublicKey},
    lifetime, random,
    svid::{Svid, Violations},
    x509,
};

/// What is certified: made from the identity that was attested, never from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    id: SpiffeId,
    names: Vec<HostName>,
    lifetime: Duration,
}

/// Why an authority can't be made, or doesn't issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is no authority's.
    #[error("the authority's certificate is malformed or no authority's (CA:TRUE, keyCertSign, cRLSign)")]
    NoAuthority,
    /// The key is not that of the certificate.
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,
    /// The authority's own certificate does not name a trust domain.
    #[error("the authority's certificate names no trust domain (one URI `spiffe://<trust domain>`)")]
    TrustDomain,
    /// The profile's ID belongs to somebody else's authority.
    #[error("{id} is not of the authority's trust domain {domain}")]
    ForeignId {
        /// The ID that was to be certified.
        id: String,
        /// The authority's own.
        domain: String,
    },
    /// An ID that names no workload.
    #[error("{0} names the trust domain itself; a workload's ID has a path")]
    PathMissing(String),
    /// A life that is too short or too long, in seconds.
    #[error("a leaf lives 300 to 86400 seconds, not {0}")]
    Lifetime(u64),
    /// The authority is about to expire, or has.
    #[error("the authority's certificate ends in {left} s: too soon to issue; renew the authority first")]
    Expiring {
        /// What is left of it, in seconds.
        left: u64,
    },
    /// An authority without the right to have another below it.
    #[error("this authority may not certify another (path length 0)")]
    PathLength,
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] random::NoRandomness),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Signing(String),
    /// What was signed is not what it should be; it is not given out.
    #[error("the certificate that was made is wrong: {0}")]
    Made(#[from] Violations),
}

impl Profile {
    /// For a workload, with a life of [`lifetime::MIN_LEAF`] to [`lifetime::MAX_LEAF`].
    ///
    /// # Errors
    /// The ID has no path, or the life is out of bounds.
    pub fn new(id: SpiffeId, lifetime: Duration) -> Result<Self, AuthorityError> {
        if id.path().is_empty() {
            return Err(AuthorityError::PathMissing(id.as_str().to_owned()));
        }
        if !(lifetime::MIN_LEAF..=lifetime::MAX_LEAF).contains(&lifetime) {
            return Err(AuthorityError::Lifetime(lifetime.as_secs()));
        }
        Ok(Profile { id, names: Vec::new(), lifetime })
    }

    /// Certifies host names too, for clients that know the workload by them.
    #[must_use]
    pub fn with_names(mut self, names: Vec<HostName>) -> Self {
        self.names = names;
        self
    }

    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
}

/// A certificate that no longer holds, although its time has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: UnixTime,
}

/// Somebody who certifies: a root, or an intermediate that a root certified.
#[derive(Debug)]
pub struct Authority {
    key: PrivateKey,
    domain: TrustDomain,
    validity: Validity,
    may_certify_authorities: bool,
    /// Its own certificate, then those up to the root, which comes last.
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A new root, which certifies itself and may have one level of authorities below it.
    ///
    /// # Errors
    /// No randomness; the key can't sign.
    pub fn root(
        domain: &TrustDomain,
        key: PrivateKey,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Self, AuthorityError> {
        let validity = Validity::from_now(now, lifetime);
        let params = authority_params(domain, "root", validity, 1)?;
        let certificate = params.self_signed(&key).map_err(signing)?.der().clone();
        Ok(Authority {
            key,
            domain: domain.clone(),
            validity,
            may_certify_authorities: true,
            chain: vec![certificate],
        })
    }

    /// A new intermediate below this one; it certifies leaves alone.
    ///
    /// # Errors
    /// This authority is about to expire or may not certify authorities; no randomness.
    pub fn intermediate(
        &self,
        key: PrivateKey,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Self, AuthorityError> {
        let chain = self.certify_intermediate(key.public(), now, lifetime)?;
        Self::load(chain, key)
    }

    /// Certifies the key of an intermediate that is kept elsewhere; its chain, the root last.
    ///
    /// # Errors
    /// As [`Authority::intermediate`].
    pub fn certify_intermediate(
        &self,
        key: &PublicKey,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        if !self.may_certify_authorities {
            return Err(AuthorityError::PathLength);
        }
        let params = authority_params(&self.domain, "intermediate", self.within(now, lifetime)?, 0)?;
        let mut chain = vec![self.sign(&params, key)?];
        chain.extend_from_slice(&self.chain);
        Ok(chain)
    }

    /// An authority from what was stored: its certificate first, those up to the root after it, and its key.
    ///
    /// # Errors
    /// The first certificate is no authority's, names no trust domain, or has another key.
    pub fn load(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, AuthorityError> {
        let first = chain.first().ok_or(AuthorityError::NoAuthority)?;
        let certificate = x509::parse(first).ok_or(AuthorityError::NoAuthority)?;
        let signs_lists = matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.crl_sign());
        if !x509::may_issue(&certificate) || !signs_lists {
            return Err(AuthorityError::NoAuthority);
        }
        if certificate.public_key().raw != key.public().spki() {
            return Err(AuthorityError::KeyMismatch);
        }
        let domain = x509::trust_domain_of_authority(&certificate).ok_or(AuthorityError::TrustDomain)?;
        let depth =
            certificate.basic_constraints().ok().flatten().and_then(|limit| limit.value.path_len_constraint);
        let validity = x509::validity(&certificate);
        Ok(Authority { key, domain, validity, may_certify_authorities: depth != Some(0), chain })
    }

    /// Certifies `key` for the identity of `profile`. The chain goes up to, not including, the root.
    ///
    /// # Errors
    /// Another trust domain; less than [`lifetime::MIN_LEAF`] is left of this authority; no randomness.
    pub fn issue(&self, key: &PublicKey, profile: &Profile, now: UnixTime) -> Result<Svid, AuthorityError> {
        if profile.id.trust_domain() != self.domain {
            return Err(AuthorityError::ForeignId {
                id: profile.id.as_str().to_owned(),
                domain: self.domain.as_str().to_owned(),
            });
        }
        let params = leaf_params(profile, self.within(now, profile.lifetime)?)?;
        let mut chain = vec![self.sign(&params, key)?];
        let (_root, intermediates) = self.chain.split_last().ok_or(AuthorityError::NoAuthority)?;
        chain.extend_from_slice(intermediates);
        Ok(Svid::from_chain(chain)?)
    }

    /// Signs the list of what no longer holds; `number` rises with each list. RFC 5280 section 5.
    ///
    /// # Errors
    /// `next` is not after `now`; the key can't sign.
    pub fn revocation_list(
        &self,
        revoked: &[Revoked],
        number: u64,
        now: UnixTime,
        next: UnixTime,
    ) -> Result<CertificateRevocationListDer<'static>, AuthorityError> {
        let entry = |revoked: &Revoked| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&revoked.serial),
            revocation_time: instant(revoked.at),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: instant(now),
            next_update: instant(next),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer()?).map_err(signing)?.der().clone())
    }

    /// The trust domain it certifies for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// From when until when its certificate holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its certificate first, those up to the root after it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The last of the chain: what a trust bundle holds.
    pub fn root_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    /// Its key, to be stored.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    fn within(&self, now: UnixTime, lifetime: Duration) -> Result<Validity, AuthorityError> {
        let left = self.validity.not_after.as_secs().saturating_sub(now.as_secs());
        if left < lifetime::MIN_LEAF.as_secs() {
            return Err(AuthorityError::Expiring { left });
        }
        Ok(Validity::from_now(now, lifetime).within(self.validity))
    }

    fn issuer(&self) -> Result<Issuer<'_, &PrivateKey>, AuthorityError> {
        let own = self.chain.first().ok_or(AuthorityError::NoAuthority)?;
        Issuer::from_ca_cert_der(own, &self.key).map_err(signing)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &PublicKey,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let certificate = params.signed_by(&key.certifiable()?, &self.issuer()?).map_err(signing)?;
        Ok(certificate.der().clone())
    }
}

fn authority_params(
    domain: &TrustDomain,
    role: &str,
    validity: Validity,
    below: u8,
) -> Result<CertificateParams, AuthorityError> {
    let serial = random::serial()?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, domain.as_str());
    // A name of its own for each key: path building and revocation go by it.
    let tail = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
    name.push(DnType::CommonName, format!("Sidegate {role} {tail}"));
    let mut params = params(serial, validity);
    params.distinguished_name = name;
    params.subject_alt_names = vec![uri(&format!("spiffe://{}", domain.as_str()))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(profile: &Profile, validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(random::serial()?, validity);
    params.subject_alt_names = vec![uri(profile.id.as_str())?];
    for name in &profile.names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(signing)?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(serial: SerialNumber, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial);
    params.not_before = instant(validity.not_before);
    params.not_after = instant(validity.not_after);
    params.use_authority_key_identifier_extension = true;
    params
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(text.try_into().map_err(signing)?))
}

pub(crate) fn signing(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Signing(error.to_string())
}

/// X.509 can't say more than the year 9999. RFC 5280 section 4.1.2.5.
pub(crate) fn instant(time: UnixTime) -> OffsetDateTime {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(time.as_secs()).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
