//! What roots are, for people who look at a bundle.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::UnixTime;

use super::TrustBundle;
use crate::{Validity, x509};

/// A root in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSummary {
    /// Its subject, RFC 4514. Written by whoever made the root: escape it before it is shown.
    pub subject: String,
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// From when until when it holds.
    pub validity: Validity,
    /// SHA-256 of its DER: what `openssl x509 -fingerprint -sha256` shows.
    pub fingerprint: [u8; 32],
}

impl TrustBundle {
    /// Every root in a few words, in their order.
    pub fn summaries(&self) -> Vec<RootSummary> {
        let summary = |root: &super::Root| {
            let parsed = x509::parse(&root.certificate)?;
            let mut fingerprint = [0; 32];
            fingerprint.copy_from_slice(digest(&SHA256, &root.certificate).as_ref());
            let (subject, serial) = (parsed.subject().to_string(), parsed.raw_serial().to_vec());
            Some(RootSummary { subject, serial, validity: root.validity, fingerprint })
        };
        // What became a root was parsed before.
        self.roots.iter().filter_map(summary).collect()
    }

    /// Whether one of the roots at least holds at `now`: else nobody is believed.
    pub fn holds(&self, now: UnixTime) -> bool {
        self.roots.iter().any(|root| root.validity.holds(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, after, now};

    #[test]
    fn a_root_is_summed_up_and_ends_with_its_life() {
        let bundle = World::of("example.org").bundle();
        let summaries = bundle.summaries();
        let [root] = summaries.as_slice() else { panic!("one root: {summaries:?}") };
        assert!(!root.serial.is_empty() && !root.subject.is_empty());
        let certificate = bundle.roots().next().expect("a root");
        assert_eq!(root.fingerprint.as_slice(), digest(&SHA256, certificate).as_ref());
        assert!(bundle.holds(now()));
        assert!(bundle.holds(root.validity.not_after) && root.validity.not_after > after(0));
        let beyond = crate::lifetime::later(root.validity.not_after, std::time::Duration::from_secs(1));
        assert!(!bundle.holds(beyond), "not after its end");
    }
}
