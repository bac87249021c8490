//! From files to an identity and to trust. All of it is judged before anything of it counts.

use std::{io, path::Path};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use sidegate_certs::{
    Identity, PrivateKey, Revocations, Svid, TrustBundle, TrustStore, UnixTime,
    identity::IdentityError,
    revocation::{ListError, MAX_LIST},
};
use zeroize::Zeroizing;

use super::{
    fault::{Fault, Ground},
    files::IdentityFiles,
};
use crate::files::read;

/// The largest certificate, key and bundle file, in bytes.
const LARGEST: usize = 1024 * 1024;
/// The largest file of revocation lists, in bytes: PEM takes a third more than what it holds.
const LARGEST_LISTS: usize = 2 * MAX_LIST;

/// The most certificates of issuers beside the lists of a file: each costs signatures to verify.
const MOST_ISSUERS: usize = 32;

/// What is wrong with the files at `now`, all of it.
pub fn check(files: &IdentityFiles, now: UnixTime) -> Vec<Fault> {
    let mut faults = Vec::new();
    match (certificate(files, now), key(files)) {
        (Ok(svid), Ok(key)) => faults.extend(paired(svid, &key, files).err()),
        (svid, key) => faults.extend([svid.err(), key.err()].into_iter().flatten()),
    }
    match bundle(files, now) {
        Ok(bundle) => {
            let lists = files.revocations.iter();
            faults.extend(lists.filter_map(|path| revoke(&mut Revocations::default(), path, &bundle).err()));
        }
        Err(fault) => faults.push(fault),
    }
    faults
}

/// The identity that may be served from `now` on.
pub(super) fn identity(files: &IdentityFiles, now: UnixTime) -> Result<Identity, Fault> {
    paired(certificate(files, now)?, &key(files)?, files)
}

/// Whom to believe from `now` on.
pub(super) fn trust(files: &IdentityFiles, now: UnixTime) -> Result<TrustStore, Fault> {
    let bundle = bundle(files, now)?;
    let mut revocations = Revocations::default();
    for path in &files.revocations {
        revoke(&mut revocations, path, &bundle)?;
    }
    Ok(TrustStore::new([bundle]).with_revocations(revocations))
}

fn certificate(files: &IdentityFiles, now: UnixTime) -> Result<Svid, Fault> {
    let path = &files.certificate;
    let svid = Svid::from_pem(&bytes_of(path, LARGEST)?)
        .map_err(|violations| Fault::new(path, IdentityError::from(violations)))?;
    match unfit(&svid, files, now) {
        Some(ground) => Err(Fault::new(path, ground)),
        None => Ok(svid),
    }
}

fn unfit(svid: &Svid, files: &IdentityFiles, now: UnixTime) -> Option<Ground> {
    let id = svid.id();
    let found = || id.as_str().to_owned();
    if id.trust_domain() != files.trust_domain {
        let expected = files.trust_domain.as_str().to_owned();
        return Some(Ground::TrustDomain { expected, found: found() });
    }
    if let Some(workload) = files.workload.as_ref().filter(|workload| *workload != id) {
        return Some(Ground::Workload { expected: workload.as_str().to_owned(), found: found() });
    }
    let validity = svid.validity();
    if validity.expired(now) {
        return Some(Ground::Expired(validity.not_after));
    }
    (!validity.holds(now)).then_some(Ground::NotYet(validity.not_before))
}

fn key(files: &IdentityFiles) -> Result<PrivateKey, Fault> {
    let bytes = bytes_of(&files.key, LARGEST)?;
    PrivateKey::from_pem(&bytes).map_err(|error| Fault::new(&files.key, IdentityError::from(error)))
}

fn paired(svid: Svid, key: &PrivateKey, files: &IdentityFiles) -> Result<Identity, Fault> {
    Identity::new(svid, key).map_err(|error| Fault::new(&files.key, error))
}

fn bundle(files: &IdentityFiles, now: UnixTime) -> Result<TrustBundle, Fault> {
    let bytes = bytes_of(&files.bundle, LARGEST)?;
    let domain = files.trust_domain.clone();
    let json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let bundle =
        if json { TrustBundle::from_jwks(domain, &bytes) } else { TrustBundle::from_pem(domain, &bytes) };
    let bundle = bundle.map_err(|error| Fault::new(&files.bundle, error))?;
    if bundle.holds(now) { Ok(bundle) } else { Err(Fault::new(&files.bundle, Ground::NoRootHolds)) }
}

/// Adds the lists of one file.
fn revoke(revocations: &mut Revocations, path: &Path, bundle: &TrustBundle) -> Result<(), Fault> {
    admit(revocations, &bytes_of(path, LARGEST_LISTS)?, bundle).map_err(|ground| Fault::new(path, ground))
}

fn admit(revocations: &mut Revocations, bytes: &[u8], bundle: &TrustBundle) -> Result<(), Ground> {
    // DER of a list is a SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(revocations.admit(bytes, &bundle.authorities(Vec::new()))?);
    }
    let beside = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let beside = beside.map_err(|_| ListError::Malformed)?;
    if beside.len() > MOST_ISSUERS {
        return Err(Ground::Issuers);
    }
    // An issuer that nobody vouches for could take the place of the true one, whose entries would be forgotten.
    let issuers = bundle.authorities(beside);
    let mut lists = 0;
    for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
        revocations.admit(list.map_err(|_| ListError::Malformed)?.as_ref(), &issuers)?;
        lists += 1;
    }
    if lists == 0 { Err(Ground::NoList) } else { Ok(()) }
}

pub(crate) fn bytes_of(path: &Path, largest: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    read(path, largest).map_err(|error| {
        let ground = match error.kind() {
            io::ErrorKind::NotFound => Ground::Absent,
            _ => Ground::Unreadable(error.to_string()),
        };
        Fault::new(path, ground)
    })
}
