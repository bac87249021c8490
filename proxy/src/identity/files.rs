//! The files: their paths, what they hold, and the mark by which a change is noticed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;
use sidegate_certs::UnixTime;
use sidegate_policy::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

/// Where an identity and the trust in others stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityFiles {
    /// The certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key, PEM; may be the same file.
    pub key: PathBuf,
    /// The roots of the trust domain: PEM certificates, or a SPIFFE bundle (a JWK set).
    pub bundle: PathBuf,
    /// Whose roots the bundle holds, and whose ID the certificate has.
    #[serde(serialize_with = "shown")]
    pub trust_domain: TrustDomain,
    /// Revocation lists: one in DER, or any number in PEM, beside the certificates of issuers that are no roots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<PathBuf>,
    /// The ID that the certificate has to have; `None`: any of the trust domain.
    #[serde(skip)]
    pub workload: Option<SpiffeId>,
}

impl IdentityFiles {
    /// What the identity is made of.
    pub(super) fn of_identity(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }

    /// What trust is made of.
    pub(super) fn of_trust(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.bundle.clone()];
        paths.extend_from_slice(&self.revocations);
        paths
    }
}

fn shown<S: serde::Serializer>(domain: &TrustDomain, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(domain.as_str())
}

/// Reads a regular file of at most `largest` bytes, wiped when dropped: it may hold a key. Anything but a regular file
/// might have no end, or never begin (a pipe that nobody writes to).
pub(crate) fn read(path: &Path, largest: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Without waiting: for a regular file it makes no difference.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let expected = usize::try_from(meta.len()).unwrap_or(usize::MAX).min(largest);
    // A buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.saturating_add(32)));
    let limit = u64::try_from(largest).unwrap_or(u64::MAX).saturating_add(1);
    if file.take(limit).read_to_end(&mut bytes)? > largest {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {largest} bytes"),
        ));
    }
    Ok(bytes)
}

/// Identity, size and times of the files that paths lead to, links followed: what counts is what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark(Vec<Option<FileMark>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileMark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that changed within so many seconds are read again at the next look: a second change of equal size within a
/// tick of the file system's clock would leave the mark as it is.
const YOUNG: i64 = 2;

impl Mark {
    /// As the files are now.
    pub(super) fn of(paths: &[PathBuf]) -> Mark {
        let mark = |meta: fs::Metadata| FileMark {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        Mark(paths.iter().map(|path| fs::metadata(path).ok().map(mark)).collect())
    }

    /// Whether one of them changed so short a time before `now` that a later change may look the same.
    pub(super) fn is_young(&self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.0.iter().flatten().any(|file| now <= file.changed.0.saturating_add(YOUNG))
    }
}
