//! The identity of a serving proxy: ready with it alone, renewed while it serves, never shown.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{fs, path::PathBuf};

use sidegate_certs::{Authority, PrivateKey, Profile, TrustBundle, UnixTime, lifetime};
use sidegate_policy::{SpiffeId, TrustDomain};

use crate::harness::{Place, Sidecar, config, fetch, policy, run};

const FILES: &str =
    "identity: { certificate: id/tls.crt, key: id/tls.key, bundle: id/ca.crt, trustDomain: example.org }\n";

/// Writes a fresh pair and the bundle of a fresh root as one swap; the key's secret line.
fn renew(place: &Place, version: &str) -> String {
    let (domain, now) = (TrustDomain::parse("example.org").unwrap(), UnixTime::now());
    let root = Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap();
    let key = PrivateKey::generate().unwrap();
    let profile = Profile::new(SpiffeId::parse("spiffe://example.org/a").unwrap(), lifetime::LEAF).unwrap();
    let svid = root.issue(key.public(), &profile, now).unwrap();
    let bundle = TrustBundle::from_roots(domain, vec![root.root_certificate().unwrap().clone()]).unwrap();
    place.write(&format!("id/{version}/tls.crt"), &svid.to_pem());
    place.write(&format!("id/{version}/tls.key"), &key.to_pem());
    place.write(&format!("id/{version}/ca.crt"), &bundle.to_pem());
    let link = |target: PathBuf, name: &str| std::os::unix::fs::symlink(target, place.path(name)).unwrap();
    link(version.into(), "id/..data_tmp");
    fs::rename(place.path("id/..data_tmp"), place.path("id/..data")).unwrap();
    if fs::symlink_metadata(place.path("id/tls.crt")).is_err() {
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            link(PathBuf::from("..data").join(name), &format!("id/{name}"));
        }
    }
    key.to_pem().lines().nth(1).expect("a line of the key").to_owned()
}

fn place() -> Place {
    let place = Place::new(&(config("p.yaml") + FILES));
    place.write("p.yaml", &policy("first", "db.example.com"));
    place
}

#[test]
fn the_proxy_is_ready_with_an_identity_alone_and_takes_a_new_one_over() {
    let place = place();
    let sidecar = Sidecar::start(&place);
    let (status, why) = fetch(&sidecar.ready, "/ready");
    assert!(status == 503 && why.contains("no usable identity") && why.contains("no usable trust"), "{why}");
    assert_eq!(sidecar.ask_json("/certs")["faults"].as_array().map(Vec::len), Some(2));
    let first = renew(&place, "..1");
    sidecar.logged("a new certificate is served from now on");
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 200);
    let told = sidecar.ask_json("/certs");
    assert_eq!((&told["identity"]["epoch"], &told["faults"].as_array().map(Vec::len)), (&1.into(), &Some(0)));
    let second = renew(&place, "..2");
    sidecar.logged("a new certificate is served from now on");
    let told = sidecar.ask_json("/certs");
    assert_eq!(
        (&told["identity"]["epoch"], &told["identity"]["id"]),
        (&2.into(), &"spiffe://example.org/a".into())
    );
    let metrics = sidecar.ask("/metrics").1;
    assert!(metrics.contains("sidegate_identity_rotations_total 1\n"), "{metrics}");
    for target in ["/certs", "/config", "/metrics", "/policy"] {
        let text = sidecar.ask(target).1;
        assert!(!text.contains(&first) && !text.contains(&second), "{target} shows a key");
    }
}

#[test]
fn without_an_identity_configured_none_is_asked_for() {
    let place = Place::new(&config("p.yaml"));
    place.write("p.yaml", &policy("first", "db.example.com"));
    let sidecar = Sidecar::start(&place);
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 200);
    assert_eq!(sidecar.ask_json("/certs")["configured"], false);
}

#[test]
fn check_config_names_what_is_wrong_and_waits_for_what_is_absent() {
    let place = place();
    let output = run(&["check-config", &place.config()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("it is not there").count(), 3, "{said}");
    renew(&place, "..1");
    let output = run(&["check-config", &place.config()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    place.write("id/..1/tls.key", &PrivateKey::generate().unwrap().to_pem());
    let output = run(&["check-config", &place.config()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("tls.key:1:1: the private key does not"),
        "{said}"
    );
}

#[test]
fn what_the_workload_has_to_believe_is_written_for_everybody_and_holds_no_key() {
    use std::os::unix::fs::PermissionsExt;
    let more = "roots: { corporate: roots.pem }\ninspection: { bundle: shared.pem }\n";
    let place = Place::new(&(config("p.yaml") + more));
    place.write(
        "p.yaml",
        &policy("first", "db.example.com")
            .replace("mode: none", "mode: originate, roots: other, clientIdentity: true"),
    );
    place.write("shared.pem", "of a proxy before");
    let output = run(&["check-config", &place.config()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for expected in [
        "names the roots `other`, which are not configured",
        "no identity is configured",
        "roots.pem: it is not there",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let _sidecar = Sidecar::start(&place);
    let written = fs::read_to_string(place.path("shared.pem")).unwrap();
    assert!(
        written.matches("BEGIN CERTIFICATE").count() > 20 && !written.contains("PRIVATE"),
        "the public roots too"
    );
    let mode = fs::metadata(place.path("shared.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(
        fs::read_dir(place.path("")).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with(".shared"))
    );
}
