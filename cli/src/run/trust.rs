//! What the command has to believe where its TLS is opened: the run's own authority beside the roots it knows already.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use sidegate_proxy::{inspection::Inspection, origins::public_roots_pem};
use tempfile::NamedTempFile;

/// Variables by which programs are told of more roots: OpenSSL and what is built on it, Node, Requests, curl, Git, the
/// AWS tools.
const VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
];

/// A file of roots, gone with the run.
pub(super) struct Trust {
    file: NamedTempFile,
}

impl Trust {
    /// Writes the public roots, those that the environment names already, and the run's own authority.
    ///
    /// # Errors
    /// No room, or no randomness.
    pub(super) fn write(inspection: &Inspection) -> io::Result<Self> {
        let own = inspection.authority_pem().ok_or_else(|| io::Error::other("no randomness"))?;
        let mut file = tempfile::Builder::new().prefix("sidegate-roots-").suffix(".pem").tempfile()?;
        file.write_all(public_roots_pem().as_bytes())?;
        for named in VARIABLES.iter().filter_map(std::env::var_os) {
            if let Ok(roots) = std::fs::read(named) {
                file.write_all(&roots)?;
                file.write_all(b"\n")?;
            }
        }
        file.write_all(own.as_bytes())?;
        file.flush()?;
        Ok(Trust { file })
    }

    /// The command's environment beside its own.
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        let path = self.file.path().as_os_str();
        VARIABLES.iter().map(|name| (OsString::from(name), path.to_owned())).collect()
    }
}
