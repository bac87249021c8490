//! What no longer holds: revocation lists, merged by issuer. RFC 5280 section 5.
//!
//! A list counts once its signature was found to be its issuer's; then only its serial numbers are kept, with those
//! of the issuer's other lists. A handshake looks a number up and verifies no signature again. An entry is never
//! forgotten because its list is late: [`Revocations::stale`] says so instead.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::x509;

/// The largest list read, in bytes: about 100,000 entries.
pub const MAX_LIST: usize = 4 * 1024 * 1024;

/// Why a list is refused; those admitted before stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// More than [`MAX_LIST`] bytes.
    #[error("the revocation list is larger than {MAX_LIST} bytes")]
    TooLarge,
    /// Not DER, or followed by more bytes.
    #[error("the revocation list is malformed")]
    Malformed,
    /// An extension that changes what entries mean (delta, indirect or partial lists).
    #[error("the revocation list has a critical extension; only complete lists of one issuer are understood")]
    Critical,
    /// Nobody known has its issuer's name and may sign lists.
    #[error("the revocation list's issuer is none of the authorities at hand; add the issuer's certificate")]
    UnknownIssuer,
    /// Signed by another key.
    #[error("the revocation list is not signed by the issuer it names")]
    Signature,
}

/// The serial numbers that were revoked, by issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// By the issuer's key (SubjectPublicKeyInfo, DER): names may be shared, keys are not.
    issuers: HashMap<Vec<u8>, Issued>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Issued {
    /// Without leading zeros.
    serials: HashSet<Vec<u8>>,
    /// When the newest list should be replaced; `None`: it doesn't say.
    next: Option<UnixTime>,
    /// The newest list's number, big-endian without leading zeros; `None`: it has none. RFC 5280 section 5.2.3.
    number: Option<Vec<u8>>,
}

impl Revocations {
    /// Takes a list over, if one of `issuers` signed it.
    ///
    /// # Errors
    /// Too large, malformed, not understood, or not signed by one of them. Nothing of it is kept then.
    pub fn admit(&mut self, list: &[u8], issuers: &[CertificateDer<'_>]) -> Result<(), ListError> {
        if list.len() > MAX_LIST {
            return Err(ListError::TooLarge);
        }
        let Ok(([], list)) = CertificateRevocationList::from_der(list) else {
            return Err(ListError::Malformed);
        };
        let issuer = issuer_of(&list, issuers)?;
        let mut serials = HashSet::new();
        if list.extensions().iter().any(|extension| extension.critical) {
            return Err(ListError::Critical);
        }
        for entry in list.iter_revoked_certificates() {
            if entry.extensions().iter().any(|extension| extension.critical) {
                return Err(ListError::Critical);
            }
            serials.insert(significant(entry.raw_serial()).to_vec());
        }
        let next = list.next_update().map(|next| x509::unix(&next));
        let known = self.issuers.entry(issuer).or_default();
        known.serials.extend(serials);
        known.next = known.next.max(next);
        let number = list.crl_number().map(|number| significant(&number.to_bytes_be()).to_vec());
        if older(&known.number, &number) {
            known.number = number;
        }
        Ok(())
    }

    /// Takes back from `before` what it knows of issuers whose newest list here is older than there. How many those are.
    pub(crate) fn keep_newer(&mut self, before: &Revocations) -> usize {
        let mut kept = 0;
        for (issuer, known) in &before.issuers {
            if let Some(now) = self.issuers.get_mut(issuer)
                && older(&now.number, &known.number)
            {
                *now = known.clone();
                kept += 1;
            }
        }
        kept
    }

    /// Whether the authority with this key (SubjectPublicKeyInfo, DER) revoked that serial number.
    pub fn revoked(&self, issuer: &[u8], serial: &[u8]) -> bool {
        self.issuers.get(issuer).is_some_and(|issued| issued.serials.contains(significant(serial)))
    }

    /// How many issuers' newest list should have been replaced before `now`.
    pub fn stale(&self, now: UnixTime) -> usize {
        self.issuers.values().filter(|issued| issued.next.is_some_and(|next| next < now)).count()
    }

    /// How many serial numbers there are.
    pub fn len(&self) -> usize {
        self.issuers.values().map(|issued| issued.serials.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether the number `one` is lower than `other`; a list without a number is older than any that has one.
fn older(one: &Option<Vec<u8>>, other: &Option<Vec<u8>>) -> bool {
    let rank = |number: &Option<Vec<u8>>| number.as_ref().map(|bytes| (bytes.len(), bytes.clone()));
    rank(one) < rank(other)
}

/// The key of the issuer that signed the list.
fn issuer_of(
    list: &CertificateRevocationList<'_>,
    issuers: &[CertificateDer<'_>],
) -> Result<Vec<u8>, ListError> {
    let mut named = false;
    for der in issuers {
        let Some(issuer) = x509::parse(der) else { continue };
        let signs = matches!(issuer.key_usage(), Ok(Some(usage)) if usage.value.crl_sign());
        if issuer.subject().as_raw() != list.issuer().as_raw() || !signs {
            continue;
        }
        named = true;
        if list.verify_signature(issuer.public_key()).is_ok() {
            return Ok(issuer.public_key().raw.to_vec());
        }
    }
    Err(if named { ListError::Signature } else { ListError::UnknownIssuer })
}

/// A number without the zeros that DER puts before it.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}
