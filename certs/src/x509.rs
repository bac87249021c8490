//! Reading X.509, and the PEM around it.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use sidegate_policy::{SpiffeId, TrustDomain};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

/// Parses a certificate whole; `None`: malformed, or followed by more bytes.
pub(crate) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// Seconds since 1970; an instant before it becomes 1970 itself, which has passed as well.
pub(crate) fn unix(time: &ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

/// Every certificate of a PEM text, in its order; `None`: a section is malformed.
pub(crate) fn certificates_of_pem(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()
}

/// Certificates in DER, one after the other as the SPIFFE Workload API has them; `None`: something else is among them.
pub(crate) fn certificates_of_der(mut der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).ok()?;
        found.push(CertificateDer::from(der.get(..der.len() - rest.len())?.to_vec()));
        der = rest;
    }
    Some(found)
}

/// A certificate in PEM. RFC 7468 section 5.
pub fn certificate_to_pem(der: &[u8]) -> String {
    to_pem("CERTIFICATE", der)
}

/// One PEM section. RFC 7468.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let body = zeroize::Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 32 + 2 * label.len() + 40);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// From when until when it holds.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> crate::Validity {
    let validity = certificate.validity();
    crate::Validity { not_before: unix(&validity.not_before), not_after: unix(&validity.not_after) }
}

/// Whether it is marked as an authority (CA:TRUE); also when its constraints can't be read.
pub(crate) fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    match certificate.basic_constraints() {
        Ok(constraints) => constraints.is_some_and(|constraints| constraints.value.ca),
        Err(_) => true,
    }
}

/// Whether it may issue certificates: CA:TRUE, and keyCertSign in its key usage.
pub(crate) fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    let authority = matches!(certificate.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let signs = matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    authority && signs
}

/// The URIs among its alternative names.
pub(crate) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'a>| if let GeneralName::URI(uri) = name { Some(*uri) } else { None };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// The trust domain whose authority it is: its one URI `spiffe://<trust domain>`. SPIFFE X509-SVID section 5.1.
pub(crate) fn trust_domain_of_authority(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    match uris(certificate).as_slice() {
        [uri] => {
            let id = SpiffeId::parse(uri).ok()?;
            id.path().is_empty().then(|| id.trust_domain())
        }
        _ => None,
    }
}
