//! `sidegate run --identity` from outside: who the command is, and what is said of files that are wrong.
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use sidegate_certs::{Authority, PrivateKey, Profile, UnixTime, certificate_to_pem, lifetime};
use sidegate_policy::{SpiffeId, TrustDomain};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.arg("run").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes an identity as cert-manager does.
fn certify(folder: &Path, id: &str) {
    let (id, now) = (SpiffeId::parse(id).unwrap(), UnixTime::now());
    let root = PrivateKey::generate().unwrap();
    let root =
        Authority::root(&TrustDomain::parse("example.org").unwrap(), root, now, lifetime::ROOT).unwrap();
    let key = PrivateKey::generate().unwrap();
    let svid = root.issue(key.public(), &Profile::new(id, lifetime::LEAF).unwrap(), now).unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("tls.crt"), svid.to_pem()).unwrap();
    fs::write(folder.join("tls.key"), key.to_pem().as_bytes()).unwrap();
    fs::write(folder.join("ca.crt"), certificate_to_pem(&root.chain()[0])).unwrap();
}

fn policy(place: &Path, applies_to: &str) -> String {
    let path = place.join("p.yaml");
    let text = format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  appliesTo: [ \"{applies_to}\" ]\n  egress:\n    \
         - {{ name: orders, to: [ {{ workloads: [ \"spiffe://example.org/orders\" ] }} ], ports: [ 80 ], protocol: tcp, tls: {{ mode: mesh }} }}\n"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_wrong_with_an_identity_is_wrong_usage_and_nothing_runs() {
    let place = tempfile::tempdir().unwrap();
    let me = place.path().join("me");
    let (folder, witness) = (me.to_str().unwrap(), place.path().join("ran"));
    let touch = ["--identity", folder, "--", "touch", witness.to_str().unwrap()];
    let absent = run(&touch);
    assert_eq!(absent.status.code(), Some(2), "{}", said(&absent));
    assert!(
        said(&absent).contains("tls.crt") && said(&absent).contains("name a folder with"),
        "{}",
        said(&absent)
    );

    certify(&me, "spiffe://example.org/web");
    fs::write(me.join("tls.key"), PrivateKey::generate().unwrap().to_pem().as_bytes()).unwrap();
    let mixed = run(&touch);
    assert_eq!(mixed.status.code(), Some(2), "{}", said(&mixed));
    assert!(said(&mixed).contains("the private key does not belong to the certificate"), "{}", said(&mixed));

    certify(&me, "spiffe://example.org/web");
    let peers = place.path().join("peers.yaml");
    fs::write(
        &peers,
        "apiVersion: sidegate.dev/v1\nkind: Peers\npeers: [ { id: nobody, addresses: [ 10.0.0.1 ] } ]\n",
    )
    .unwrap();
    let wrong = run(&["--identity", folder, "--peers", peers.to_str().unwrap(), "--", "true"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("peers.yaml:3:"), "{}", said(&wrong));
    let alone = run(&["--peers", peers.to_str().unwrap(), "--", "true"]);
    assert_eq!(alone.status.code(), Some(2), "peers without an identity: {}", said(&alone));
    assert!(!witness.exists(), "the command ran");
}

#[test]
fn a_run_with_an_identity_is_that_workload() {
    let place = tempfile::tempdir().unwrap();
    let (me, peers) = (place.path().join("me"), place.path().join("peers.yaml"));
    certify(&me, "spiffe://example.org/web");
    fs::write(
        &peers,
        "apiVersion: sidegate.dev/v1\nkind: Peers\npeers: [ { id: \"spiffe://example.org/orders\", addresses: [ 203.0.113.77 ] } ]\n",
    )
    .unwrap();
    let log = place.path().join("access.jsonl");
    let attempt = |applies_to: &str, member: bool| {
        fs::write(&log, "").unwrap();
        let policy = policy(place.path(), applies_to);
        let mut arguments = vec!["--policy", &policy, "--access-log", log.to_str().unwrap()];
        if member {
            arguments.extend(["--identity", me.to_str().unwrap(), "--peers", peers.to_str().unwrap()]);
        }
        let connect = "import socket; s = socket.create_connection(('203.0.113.77', 80), 5); s.settimeout(5); s.recv(1)";
        arguments.extend(["--", "python3", "-c", connect]);
        let output = run(&arguments);
        let record = fs::read_to_string(&log).unwrap();
        (
            serde_json::from_str::<serde_json::Value>(record.lines().next().unwrap_or("{}")).unwrap(),
            said(&output),
        )
    };
    let (record, words) = attempt("spiffe://example.org/web", true);
    assert_eq!(record["workload"], "spiffe://example.org/web", "{record}");
    assert_eq!((&record["policy"], &record["rule"]), (&"p".into(), &"orders".into()), "{record}");
    assert_ne!(record["verdict"], "denied", "it was dialled, and nobody is there: {record}");
    assert!(!words.contains("match nothing") && !words.contains("ignored"), "{words}");

    let (record, _) = attempt("spiffe://example.org/other", true);
    assert_eq!((&record["verdict"], &record["reason"]), (&"denied".into(), &"no-policy".into()), "{record}");

    let (record, words) = attempt("spiffe://example.org/web", false);
    assert_eq!(
        (&record["verdict"], &record["workload"]),
        (&"denied".into(), &serde_json::Value::Null),
        "{record}"
    );
    assert!(words.contains("match nothing without --identity and --peers"), "{words}");
}
