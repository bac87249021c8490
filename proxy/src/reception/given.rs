//! Certificates by label for clients whose TLS ends here: the operator says which files a label stands for, and whoever
//! renews them need not restart anything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use sidegate_certs::{
    UnixTime,
    tls::{Credential, CredentialError},
};

use crate::{
    files::{Attempts, keep_looking},
    identity::{ERRORS, Fault, Ground, bytes_of},
};

/// The largest file of a certificate or a key, in bytes.
const LARGEST: usize = 1024 * 1024;

/// A label's certificate with its key; none before the first good pair.
pub type GivenCell = ArcSwapOption<Credential>;

/// Where a certificate for clients is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFiles {
    /// The chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key, PEM.
    pub key: PathBuf,
}

/// Follows the files of labelled certificates. A pair is taken whole or not at all.
#[derive(Debug, Default)]
pub struct CertificatesFollower {
    pairs: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    label: Box<str>,
    files: CertificateFiles,
    attempts: Attempts<Fault>,
    cell: Arc<GivenCell>,
    /// The chain that was loaded last: only one key belongs to it.
    chain: Vec<u8>,
}

impl CertificatesFollower {
    /// Follows these files by label; nothing was read yet.
    pub fn new(files: &BTreeMap<String, CertificateFiles>) -> Self {
        let followed = |(label, files): (&String, &CertificateFiles)| Followed {
            label: label.as_str().into(),
            files: files.clone(),
            attempts: Attempts::new(vec![files.certificate.clone(), files.key.clone()], Fault::moving),
            cell: Arc::default(),
            chain: Vec::new(),
        };
        CertificatesFollower { pairs: files.iter().map(followed).collect() }
    }

    /// The same, looked at once.
    pub fn begun(files: &BTreeMap<String, CertificateFiles>) -> Self {
        let mut follower = Self::new(files);
        follower.look(UnixTime::now());
        follower
    }

    /// What handshakes read.
    pub fn cells(&self) -> BTreeMap<Box<str>, Arc<GivenCell>> {
        self.pairs.iter().map(|pair| (pair.label.clone(), Arc::clone(&pair.cell))).collect()
    }

    /// What is wrong with the files at `now`, all of it.
    pub fn check(files: &BTreeMap<String, CertificateFiles>, now: UnixTime) -> Vec<Fault> {
        files.values().filter_map(|files| load(files, now).err()).collect()
    }

    /// Looks at the files for as long as it is polled.
    pub async fn run(self) {
        if !self.pairs.is_empty() {
            keep_looking(self, Self::look, "files of certificates are not followed").await;
        }
    }

    /// Looks once: takes over what changed, or tells what is wrong with it; then what was there before stays in force,
    /// until it expires.
    pub fn look(&mut self, now: UnixTime) {
        for pair in &mut self.pairs {
            match pair.attempts.look(now, || load(&pair.files, now)) {
                Some(Ok((credential, chain))) => pair.replace(credential, chain),
                Some(Err(fault)) => pair.refuse(&fault),
                None => {}
            }
        }
    }
}

impl Followed {
    fn replace(&mut self, credential: Credential, chain: Vec<u8>) {
        if self.chain == chain {
            return;
        }
        self.chain = chain;
        let until = credential.validity().not_after.as_secs();
        self.cell.store(Some(Arc::new(credential)));
        tracing::info!(label = &*self.label, until, "a new certificate is shown to clients from now on");
    }

    fn refuse(&self, fault: &Fault) {
        metrics::counter!(ERRORS, "part" => "certificates").increment(1);
        let then = if self.chain.is_empty() {
            "connections of rules that name the label are refused until it is mended"
        } else {
            "what was there before stays in force until it expires"
        };
        let (label, file, message) = (&*self.label, fault.path.display(), &fault.ground);
        tracing::error!(label, %file, fix = fault.fix(), "refused: {message}; {then}");
    }
}

/// The pair that may be served from `now` on, and its chain as it was read.
fn load(files: &CertificateFiles, now: UnixTime) -> Result<(Credential, Vec<u8>), Fault> {
    let chain = bytes_of(&files.certificate, LARGEST)?;
    let key = bytes_of(&files.key, LARGEST)?;
    let credential =
        Credential::from_pem(&chain, &key).map_err(|error| Fault::new(at(files, &error), error))?;
    let validity = credential.validity();
    if validity.expired(now) {
        return Err(Fault::new(&files.certificate, Ground::Expired(validity.not_after)));
    }
    if !validity.holds(now) {
        return Err(Fault::new(&files.certificate, Ground::NotYet(validity.not_before)));
    }
    Ok((credential, chain.to_vec()))
}

fn at<'a>(files: &'a CertificateFiles, error: &CredentialError) -> &'a Path {
    match error {
        CredentialError::Key(_) | CredentialError::Mismatch => &files.key,
        CredentialError::Chain | CredentialError::Authority => &files.certificate,
    }
}
