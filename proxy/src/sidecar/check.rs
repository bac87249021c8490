//! What `check-config` says of a configuration without starting anything.

use std::path::Path;

use sidegate_certs::UnixTime;
use sidegate_policy::{CompileOptions, Diagnostic};

use super::{
    config::Config,
    endpoints, inbound,
    policies::{Contents, PolicyFiles},
    status,
};
use crate::{
    identity::{self, Ground, IdentitySource},
    origins::{self, RootsFollower},
    peers,
    reception::{self, CertificatesFollower},
};

/// What a configuration and its policies come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Pretty JSON.
    pub summary: String,
    /// What is in order and yet does not hold, one line each.
    pub warnings: Vec<String>,
}

/// What a configuration and its policies come to.
///
/// # Errors
/// Every diagnostic of the policies, of the identity's files and of the peers file.
pub fn check(config: &Config) -> Result<Checked, Vec<Diagnostic>> {
    let options = CompileOptions { workload: config.workload.clone(), ..CompileOptions::default() };
    let contents = PolicyFiles { paths: config.policies.clone() }.read();
    let compiled = if contents.is_empty() {
        Ok((Vec::new(), Vec::new()))
    } else {
        documents(&contents, config, &options)
    };
    let (mut absent, mut wrong) = identity_faults(config);
    if let Some(Err(refused)) = config.peers.as_deref().map(peers::load) {
        match refused.absent {
            true => absent.extend(config.peers.as_deref().map(absent_peers)),
            false => wrong.extend(refused.diagnostics),
        }
    }
    let (documents, wanting) = match compiled {
        Ok(documents) if wrong.is_empty() => documents,
        Ok(_) => return Err(wrong),
        Err(diagnostics) => return Err(diagnostics.into_iter().chain(wrong).collect()),
    };
    let summary = serde_json::json!({ "effective": endpoints::effective(config), "policies": documents });
    let summary = serde_json::to_string_pretty(&summary).unwrap_or_default();
    Ok(Checked {
        summary,
        warnings: inbound::warning(&documents, config.inbound.capture)
            .into_iter()
            .chain(wanting)
            .chain(absent)
            .collect(),
    })
}

/// The documents, and what their rules demand that the configuration lacks.
fn documents(
    contents: &Contents,
    config: &Config,
    options: &CompileOptions,
) -> Result<(Vec<status::DocumentSummary>, Vec<String>), Vec<Diagnostic>> {
    let loaded = contents.compile(options)?;
    let labels = config.roots.keys().map(String::as_str).collect();
    let mut wanting = origins::wanting(&loaded.set, &labels, config.identity.is_some());
    if config.inbound.capture {
        let labels = config.certificates.keys().map(String::as_str).collect();
        wanting.extend(reception::wanting(&loaded.set, &labels));
    }
    Ok((loaded.documents, wanting))
}

fn absent_peers(path: &Path) -> String {
    format!("{}: it is not there: until it is, the proxy is not ready", path.display())
}

/// Of the files of identity, roots and certificates those that are not there, which may come later, and what is wrong with those that are.
fn identity_faults(config: &Config) -> (Vec<String>, Vec<Diagnostic>) {
    let faults = match &config.identity {
        Some(IdentitySource::Files(files)) => Some(identity::check(files, UnixTime::now())),
        // The agent is asked by `serve` alone.
        Some(IdentitySource::WorkloadApi(_)) | None => None,
    };
    let absent = |fault: &identity::Fault| fault.ground == Ground::Absent;
    let (missing, mut wrong): (Vec<_>, Vec<_>) = faults.unwrap_or_default().into_iter().partition(absent);
    let labelled = RootsFollower::check(&config.roots)
        .into_iter()
        .chain(CertificatesFollower::check(&config.certificates, UnixTime::now()));
    let (unlabelled, more): (Vec<_>, Vec<_>) = labelled.partition(absent);
    wrong.extend(more);
    let unready = missing.iter().map(|fault| format!("{fault}: until it is, the proxy is not ready"));
    let denied =
        unlabelled.iter().map(|fault| format!("{fault}: until it is, rules that name its label are denied"));
    let absent = unready.chain(denied).collect();
    (absent, wrong.iter().map(identity::Fault::diagnostic).collect())
}
