//! `identity`: where the workload's X.509-SVID and its trust in others stand.

use std::path::{Path, PathBuf};

use sidegate_policy::{SpiffeId, TrustDomain, document::Section};

use crate::identity::{Endpoint, IdentityFiles, IdentitySource, VARIABLE};

const FILES: [&str; 3] = ["certificate", "key", "bundle"];
const KNOWN: &[&str] = &["certificate", "key", "bundle", "trustDomain", "revocations", "workloadApi", "hint"];
const DOMAIN: &str = "write a trust domain's name, such as example.org";
const SOCKET: &str = "write the agent's socket: `workloadApi: \"unix:///run/spire/agent.sock\"`";

/// Reads the section; `None`: there is none, or it was reported what is wrong with it.
pub(super) fn read(
    root: &Section<'_, '_, '_>,
    folder: &Path,
    workload: Option<&SpiffeId>,
) -> Option<IdentitySource> {
    let section = root.section("identity", KNOWN)?;
    match section.text("workloadApi") {
        Some(_) => endpoint(&section, workload).map(IdentitySource::WorkloadApi),
        None => files(&section, folder, workload).map(IdentitySource::Files),
    }
}

fn endpoint(section: &Section<'_, '_, '_>, workload: Option<&SpiffeId>) -> Option<Endpoint> {
    for file in FILES.into_iter().chain(["revocations"]) {
        if let Some(span) = section.place(file) {
            let message = format!("`{file}` is for files, and the Workload API brings its own");
            section.wrong(&span, "misplaced-field", message, "remove it, or `workloadApi`");
        }
    }
    let socket = section.parsed("workloadApi", SOCKET, Endpoint::socket_of);
    let hint = section.text("hint").map(|(hint, _)| hint.to_owned());
    let trust_domain = domain(section, workload);
    Some(Endpoint { socket: socket?, trust_domain: trust_domain?, hint, workload: workload.cloned() })
}

/// The endpoint that the environment names, where the configuration names no source of an identity.
pub(super) fn of_environment(workload: Option<&SpiffeId>, address: &str) -> Result<Endpoint, String> {
    let socket = Endpoint::socket_of(address)
        .ok_or_else(|| format!("{VARIABLE}={address} names no Unix socket; it is not used"))?;
    let workload = workload.ok_or_else(|| {
        format!("{VARIABLE} is not used: set `workload`, or `identity: {{ workloadApi, trustDomain }}`")
    })?;
    let (trust_domain, workload) = (workload.trust_domain(), Some(workload.clone()));
    Ok(Endpoint { socket, trust_domain, hint: None, workload })
}

fn files(section: &Section<'_, '_, '_>, folder: &Path, workload: Option<&SpiffeId>) -> Option<IdentityFiles> {
    section.require(
        "certificate",
        "identity",
        "name the certificate chain's file (PEM): `certificate: tls.crt`",
    );
    section.require("key", "identity", "name the private key's file (PEM): `key: tls.key`");
    section.require("bundle", "identity", "name the file of the trust domain's roots: `bundle: ca.crt`");
    if let Some(span) = section.place("hint") {
        let message = "`hint` chooses among the identities of a Workload API".to_owned();
        section.wrong(&span, "misplaced-field", message, "remove it, or name a `workloadApi`");
    }
    let path = |text: &str| (!text.is_empty()).then(|| folder.join(text));
    let file = |name| section.parsed(name, "write a path", path);
    let (certificate, key, bundle) = (file("certificate"), file("key"), file("bundle"));
    let revocations = section.list("revocations", "write a path", path).unwrap_or_default();
    let trust_domain = domain(section, workload);
    Some(IdentityFiles {
        certificate: certificate?,
        key: key?,
        bundle: bundle?,
        trust_domain: trust_domain?,
        revocations: distinct(revocations),
        workload: workload.cloned(),
    })
}

/// As written, or that of the workload; the two may not differ.
fn domain(section: &Section<'_, '_, '_>, workload: Option<&SpiffeId>) -> Option<TrustDomain> {
    let of_workload = workload.map(SpiffeId::trust_domain);
    let Some((_, span)) = section.text("trustDomain") else {
        if of_workload.is_none() {
            section.require("trustDomain", "identity", DOMAIN);
        }
        return of_workload;
    };
    let domain = section.parsed("trustDomain", DOMAIN, |text| TrustDomain::parse(text).ok())?;
    if let Some(other) = of_workload.filter(|other| *other != domain) {
        let message = format!("`workload` is of the trust domain {}", other.as_str());
        section.wrong(&span, "trust-domain", message, "leave `trustDomain` away, or correct one of the two");
    }
    Some(domain)
}

fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut distinct: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths {
        if !distinct.contains(&path) {
            distinct.push(path);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use sidegate_policy::Source;

    use super::*;
    use crate::sidecar::Config;

    const LEAST: &str = "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\n";

    fn parse(rest: &str) -> Result<Config, Vec<String>> {
        let source = Source::new("proxy.yaml", format!("{LEAST}{rest}"));
        let shown = |one: &sidegate_policy::Diagnostic| format!("{}:{} {}", one.line, one.column, one.code);
        Config::parse(&source, Path::new("/etc/sidegate")).map_err(|wrong| wrong.iter().map(shown).collect())
    }

    #[test]
    fn every_field_arrives() {
        let config = parse(
            "identity: { certificate: tls.crt, key: /run/tls.key, bundle: ca.crt, trustDomain: example.org, \
             revocations: [ a.crl, b.crl, a.crl ] }",
        )
        .expect("it is right");
        let Some(IdentitySource::Files(files)) = config.identity else { panic!("no files") };
        let folder = Path::new("/etc/sidegate");
        assert_eq!((files.certificate, files.key), (folder.join("tls.crt"), PathBuf::from("/run/tls.key")));
        assert_eq!((files.bundle, files.trust_domain.as_str()), (folder.join("ca.crt"), "example.org"));
        assert_eq!(files.revocations, [folder.join("a.crl"), folder.join("b.crl")]);
        assert_eq!(parse("").expect("it is right").identity, None);
    }

    #[test]
    fn the_trust_domain_is_that_of_the_workload_unless_written() {
        let files = "certificate: a, key: b, bundle: c";
        let workload = "workload: spiffe://example.org/ns/a/sa/b\n";
        let config = parse(&format!("{workload}identity: {{ {files} }}")).expect("it is right");
        let Some(IdentitySource::Files(found)) = config.identity else { panic!("no files") };
        assert_eq!(found.trust_domain.as_str(), "example.org");
        assert_eq!(found.workload, config.workload);
        let other = parse(&format!("{workload}identity: {{ {files}, trustDomain: other.example }}"));
        assert_eq!(other.expect_err("they differ"), ["5:61 trust-domain"]);
        assert_eq!(parse(&format!("identity: {{ {files} }}")).expect_err("none"), ["4:11 missing-field"]);
    }

    #[test]
    fn every_fault_comes_at_once_with_its_place() {
        let wrong =
            parse("identity: { certificate: \"\", colour: c, trustDomain: \"A b\", revocations: [] }");
        assert_eq!(
            wrong.expect_err("it is wrong"),
            [
                "4:11 missing-field",
                "4:11 missing-field",
                "4:26 value",
                "4:30 unknown-field",
                "4:54 value",
                "4:74 empty-list"
            ]
        );
    }

    #[test]
    fn a_workload_api_takes_the_place_of_files() {
        let workload = "workload: spiffe://example.org/ns/a/sa/b\n";
        let api = "workloadApi: \"unix:///run/spire/agent.sock\"";
        let config = parse(&format!("{workload}identity: {{ {api}, hint: internal }}")).expect("it is right");
        let Some(IdentitySource::WorkloadApi(found)) = config.identity else { panic!("no endpoint") };
        assert_eq!(
            (found.socket, found.hint),
            (PathBuf::from("/run/spire/agent.sock"), Some("internal".into()))
        );
        assert_eq!((found.trust_domain.as_str(), found.workload), ("example.org", config.workload));
        for (wrong, expected) in [
            (format!("{workload}identity: {{ {api}, key: k }}"), "misplaced-field"),
            (format!("{workload}identity: {{ workloadApi: \"tcp://127.0.0.1:1\" }}"), "value"),
            (format!("{workload}identity: {{ workloadApi: \"unix://host/x\" }}"), "value"),
            (format!("identity: {{ {api} }}"), "missing-field"),
            (
                format!("{workload}identity: {{ certificate: a, key: b, bundle: c, hint: d }}"),
                "misplaced-field",
            ),
        ] {
            let found = parse(&wrong).expect_err(&wrong);
            assert!(found.len() == 1 && found[0].ends_with(expected), "{wrong}: {found:?}");
        }
        let id = SpiffeId::parse("spiffe://example.org/a").expect("an ID");
        assert!(of_environment(Some(&id), "unix:///a").is_ok() && of_environment(None, "unix:///a").is_err());
    }
}
