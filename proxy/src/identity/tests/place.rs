//! A trust domain, and its files in the layouts of those who renew them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use sidegate_certs::{
    Authority, PrivateKey, Profile, Svid, TrustBundle, UnixTime, authority::Revoked, lifetime,
};
use sidegate_policy::{SpiffeId, TrustDomain};
use tempfile::TempDir;

use crate::identity::IdentityFiles;

const DOMAIN: &str = "example.org";

pub(super) fn now() -> UnixTime {
    UnixTime::now()
}

pub(super) fn hour_later(time: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs() + 3_600))
}

/// A root and the intermediate that issues.
pub(super) struct World {
    root: Authority,
    issuing: Authority,
}

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) svid: Svid,
    pub(super) key: PrivateKey,
}

impl World {
    pub(super) fn new() -> World {
        World::of(DOMAIN)
    }

    pub(super) fn of(domain: &str) -> World {
        let key = || PrivateKey::generate().unwrap();
        let domain = TrustDomain::parse(domain).unwrap();
        let root = Authority::root(&domain, key(), now(), lifetime::ROOT).unwrap();
        let issuing = root.intermediate(key(), now(), lifetime::INTERMEDIATE).unwrap();
        World { root, issuing }
    }

    pub(super) fn bundle(&self) -> TrustBundle {
        let root = self.root.root_certificate().unwrap().clone();
        TrustBundle::from_roots(self.root.trust_domain().clone(), vec![root]).unwrap()
    }

    /// A pair for an hour.
    pub(super) fn pair(&self, path: &str) -> Pair {
        let key = PrivateKey::generate().unwrap();
        let id = SpiffeId::parse(&format!("spiffe://{}{path}", self.root.trust_domain().as_str())).unwrap();
        let profile = Profile::new(id, lifetime::LEAF).unwrap();
        Pair { svid: self.issuing.issue(key.public(), &profile, now()).unwrap(), key }
    }

    /// A revocation list in PEM, its issuer's certificate beside it.
    pub(super) fn list(&self, revoked: &[&Pair]) -> String {
        let entry = |pair: &&Pair| Revoked { serial: pair.svid.serial().to_vec(), at: now() };
        let entries: Vec<_> = revoked.iter().map(entry).collect();
        let list = self.issuing.revocation_list(&entries, 1, now(), hour_later(now())).unwrap();
        pem("CERTIFICATE", &self.issuing.chain()[0]) + &pem("X509 CRL", &list)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
            for at in 0..4 {
                let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
                text.push(if at <= three.len() { char::from(letter) } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// How files are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Truncated and written.
    InPlace,
    /// Written beside and renamed.
    RenamedOver,
    /// As Kubernetes mounts secrets and the secrets CSI driver writes them: `tls.crt` is a link to `..data/tls.crt`, and
    /// `..data` a link to a folder, swapped.
    SwappedLink,
}

/// `tls.crt`, `tls.key` and `ca.crt` in a folder.
pub(super) struct Place {
    folder: TempDir,
    layout: Layout,
    version: AtomicU64,
}

impl Place {
    pub(super) fn new(layout: Layout, pair: &Pair, bundle: &TrustBundle) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap(), layout, version: AtomicU64::new(0) };
        if layout == Layout::SwappedLink {
            for name in ["tls.crt", "tls.key", "ca.crt"] {
                symlink(Path::new("..data").join(name), place.path(name)).unwrap();
            }
        }
        place.put(pair, bundle);
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn files(&self) -> IdentityFiles {
        IdentityFiles {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            bundle: self.path("ca.crt"),
            trust_domain: TrustDomain::parse(DOMAIN).unwrap(),
            revocations: Vec::new(),
            workload: None,
        }
    }

    /// Replaces all three.
    pub(super) fn put(&self, pair: &Pair, bundle: &TrustBundle) {
        let version = format!("..{}", self.version.fetch_add(1, Relaxed));
        let target = if self.layout == Layout::SwappedLink { self.path(&version) } else { self.path("") };
        fs::create_dir_all(&target).unwrap();
        let key = pair.key.to_pem();
        for (name, text) in
            [("tls.crt", &pair.svid.to_pem()), ("tls.key", &*key), ("ca.crt", &bundle.to_pem())]
        {
            let beside = target.join(format!(".{name}.next"));
            let written = if self.layout == Layout::RenamedOver { &beside } else { &target.join(name) };
            fs::write(written, text).unwrap();
            if self.layout == Layout::RenamedOver {
                fs::rename(&beside, target.join(name)).unwrap();
            }
        }
        if self.layout == Layout::SwappedLink {
            symlink(&version, self.path("..data_tmp")).unwrap();
            fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        }
    }
}
