//! Which authorities a bundle vouches for: its roots, and those below them.

use rustls::pki_types::CertificateDer;

use super::TrustBundle;
use crate::x509;

impl TrustBundle {
    /// The roots, and of `candidates` those authorities that one of them signed, directly or through others of them.
    ///
    /// For the issuers of revocation lists, which nothing but the list itself would name otherwise; whether an
    /// authority's own life is over does not matter to what it revoked.
    pub fn authorities(&self, mut candidates: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
        let mut vouched: Vec<CertificateDer<'static>> = self.roots().cloned().collect();
        // Each round has another candidate vouched for, or is the last.
        while let Some(next) =
            candidates.iter().position(|candidate| vouched.iter().any(|issuer| signed(issuer, candidate)))
        {
            vouched.push(candidates.swap_remove(next));
        }
        vouched
    }
}

/// Whether `issuer` signed the authority `candidate`.
fn signed(issuer: &CertificateDer<'_>, candidate: &CertificateDer<'_>) -> bool {
    let (Some(issuer), Some(candidate)) = (x509::parse(issuer), x509::parse(candidate)) else { return false };
    x509::may_issue(&issuer)
        && x509::may_issue(&candidate)
        && issuer.subject().as_raw() == candidate.issuer().as_raw()
        && candidate.verify_signature(Some(issuer.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use crate::{PrivateKey, testing::World};

    #[test]
    fn only_authorities_below_a_root_are_vouched_for() {
        let (world, other) = (World::of("example.org"), World::of("example.org"));
        let leaf = world.svid("/a", &PrivateKey::generate().unwrap()).chain()[0].clone();
        let (own, foreign) = (world.issuing.chain()[0].clone(), other.issuing.chain()[0].clone());
        let foreign_root = other.root.root_certificate().unwrap().clone();
        let bundle = world.bundle();
        let root = bundle.roots().next().unwrap().clone();
        let vouched = bundle.authorities(vec![foreign, foreign_root, leaf, own.clone()]);
        assert_eq!(vouched, [root, own]);
    }
}
