//! Randomness of the cryptographic provider.

use rcgen::SerialNumber;

use crate::tls::provider;

/// The system has no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness")]
pub struct NoRandomness;

/// A serial number of 127 random bits, positive. RFC 5280 section 4.1.2.2 allows 20 octets.
pub(crate) fn serial() -> Result<SerialNumber, NoRandomness> {
    let mut bytes = [0; 16];
    provider().secure_random.fill(&mut bytes).map_err(|_| NoRandomness)?;
    // Positive, and of full length whatever was drawn.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
