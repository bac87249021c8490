//! The authority by which one workload's TLS is opened for inspection. Its key never leaves memory, and nobody but that
//! workload is told to believe it.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType,
};
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    sign::CertifiedKey,
};
use sidegate_policy::HostName;

use crate::{
    Validity,
    authority::{AuthorityError, instant, signing},
    key::PrivateKey,
    random, x509,
};

/// How long the authority lives: an application reads its trust once, so that it must outlive the application's start.
pub const AUTHORITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long what it mints lives.
pub const MINTED: Duration = Duration::from_secs(60 * 60);

/// Mints certificates for the hosts whose connections are inspected.
#[derive(Debug)]
pub struct InspectionAuthority {
    key: PrivateKey,
    certificate: CertificateDer<'static>,
    validity: Validity,
    /// One key for all that is minted: it proves nothing but that we are who inspects.
    leaf: PrivateKey,
}

/// A certificate that was minted for one host.
#[derive(Clone, Debug)]
pub struct Minted {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

impl Minted {
    /// From when until when it holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl InspectionAuthority {
    /// A fresh one.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(now: UnixTime) -> Result<Self, AuthorityError> {
        let (key, leaf) = (PrivateKey::generate()?, PrivateKey::generate()?);
        let validity = Validity::from_now(now, AUTHORITY);
        let serial = random::serial()?;
        let tail = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Sidegate inspection {tail}"));
        params.serial_number = Some(serial);
        params.not_before = instant(validity.not_before);
        params.not_after = instant(validity.not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(signing)?.der().clone();
        Ok(InspectionAuthority { key, certificate, validity, leaf })
    }

    /// Mints a certificate for `host`. To be called once the real server was verified, and for no other.
    ///
    /// # Errors
    /// The authority has expired; no randomness.
    pub fn mint(&self, host: &HostName, now: UnixTime) -> Result<Minted, AuthorityError> {
        if !self.validity.holds(now) {
            return Err(AuthorityError::Expiring { left: 0 });
        }
        let validity = Validity::from_now(now, MINTED).within(self.validity);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(random::serial()?);
        params.not_before = instant(validity.not_before);
        params.not_after = instant(validity.not_after);
        params.subject_alt_names = vec![SanType::DnsName(host.as_str().try_into().map_err(signing)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(signing)?;
        let certificate = params.signed_by(&self.leaf.public().certifiable()?, &issuer).map_err(signing)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], self.leaf.usable());
        Ok(Minted { certified: Arc::new(certified), validity })
    }

    /// From when until when it holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What the workload is told to believe, in PEM.
    pub fn to_pem(&self) -> String {
        x509::to_pem("CERTIFICATE", &self.certificate)
    }

    /// The same, as DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}
