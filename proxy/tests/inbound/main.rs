//! Connections towards the workload through the real sidecar, in network namespaces. Needs root, to be the proxy's user.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../serve/harness.rs"]
#[allow(dead_code, reason = "shared with the tests that need no namespaces")]
mod harness;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    process::{Command, ExitCode, Output, Stdio},
    thread,
};

use harness::{PATIENCE, Place, Sidecar, config};
use serde_json::Value;
use sidegate_certs::{Authority, PrivateKey, Profile, TrustBundle, UnixTime, lifetime};
use sidegate_harness::{
    Case, World,
    world::{APP_V4, APP_V6, WORLD_V4},
};
use sidegate_policy::{SpiffeId, TrustDomain};
use sidegate_proxy::redirect::PROXY_UID;

const CASES: &[Case] = &[
    Case { name: "both_families_are_captured_and_judged", run: both_families_are_captured_and_judged },
    Case { name: "without_capture_everybody_gets_in", run: without_capture_everybody_gets_in },
    Case {
        name: "neighbours_in_the_workload_are_left_alone",
        run: neighbours_in_the_workload_are_left_alone,
    },
    Case { name: "the_inbound_port_itself_takes_nobody", run: the_inbound_port_itself_takes_nobody },
    Case { name: "listeners_speak_tls_13_alone", run: listeners_speak_tls_13_alone },
];

const RULES: &str = "apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: first }
spec:
  ingress:
    - name: near
      reason: the test
      from: [ { cidrs: [ 10.77.0.1/32, \"fd77::1/128\" ] } ]
      ports: [ 8080 ]
      protocol: tcp
      tls: { mode: none }
    - name: tls
      from: [ { cidrs: [ 10.77.0.0/16 ] } ]
      ports: [ 8443 ]
      tls: { mode: terminate }
";

fn main() -> ExitCode {
    sidegate_harness::main_as_root(CASES)
}

fn place(more: &str) -> Place {
    let ports = "outbound: 15001, inbound: 15006, mesh: 15008, dns: 15053";
    let text = config("p.yaml")
        .replace("outbound: 0, inbound: 0, mesh: 0, dns: 0", ports)
        .replace("rules: none", "rules: keep");
    let place = Place::new(&(text + more));
    place.write("p.yaml", RULES);
    let folder = place.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&folder, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
    place
}

fn sidecar(place: &Place) -> Sidecar {
    let mut command = Command::new("setpriv");
    let user = [format!("--reuid={PROXY_UID}"), format!("--regid={PROXY_UID}"), "--clear-groups".to_owned()];
    command.args(user).args(["--inh-caps=+net_admin", "--ambient-caps=+net_admin"]);
    command.arg(env!("CARGO_BIN_EXE_sidegate-proxy"));
    Sidecar::start_by(place, command, |_| true)
}

/// An application on every address: says what it hears, and counts nobody whom it does not hear.
fn application(port: u16) -> TcpListener {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
}

#[allow(clippy::disallowed_methods, reason = "plays a client")]
fn dial(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One exchange with an application that sends back what it hears.
fn echoed(listener: &TcpListener, dial: impl FnOnce() -> Vec<u8> + Send) -> Vec<u8> {
    thread::scope(|scope| {
        let asking = scope.spawn(dial);
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
        drop(stream);
        asking.join().unwrap()
    })
}

fn ask(to: SocketAddr) -> Vec<u8> {
    // A refusal may come before the question, or before the connection is known to be there.
    let Ok(mut stream) = dial(to) else { return Vec::new() };
    let _ = stream.write_all(b"ping");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn nobody_came(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn said<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_default()
}

fn addresses() -> [IpAddr; 2] {
    [APP_V4.into(), APP_V6.into()]
}

fn both_families_are_captured_and_judged() {
    let world = World::new();
    let place = place("");
    let sidecar = sidecar(&place);
    let (open, closed) = (application(8080), application(8081));
    for address in addresses() {
        let to = SocketAddr::new(address, 8080);
        assert_eq!(echoed(&open, || world.run(|| ask(to))), b"ping", "{to}");
        let record = sidecar.record();
        assert_eq!((said(&record, "direction"), said(&record, "verdict")), ("ingress", "allowed"));
        assert_eq!(
            (said(&record, "originalDst"), said(&record, "upstream")),
            (&*to.to_string(), &*to.to_string())
        );
        let source: SocketAddr = said(&record, "source").parse().unwrap();
        assert_eq!(source.ip().is_ipv4(), address.is_ipv4());
        let to = SocketAddr::new(address, 8081);
        assert_eq!(world.run(|| ask(to)), b"", "{to}");
        let record = sidecar.record();
        assert_eq!((said(&record, "direction"), said(&record, "verdict")), ("ingress", "denied"));
        assert_eq!(said(&record, "reason"), "no-rule");
    }
    nobody_came(&closed);
}

/// The control: what was refused above reaches the same application.
fn without_capture_everybody_gets_in() {
    let world = World::new();
    let place = place("inbound: { capture: false }\n");
    let sidecar = sidecar(&place);
    let closed = application(8081);
    for address in addresses() {
        let to = SocketAddr::new(address, 8081);
        assert_eq!(echoed(&closed, || world.run(|| ask(to))), b"ping", "{to}");
    }
    assert!(sidecar.ask("/metrics").1.contains("sidegate_ingress_rules_not_enforced 2"));
}

fn neighbours_in_the_workload_are_left_alone() {
    let _world = World::new();
    let place = place("");
    let sidecar = sidecar(&place);
    let listener = application(8081);
    for address in addresses().into_iter().chain([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]) {
        let to = SocketAddr::new(address, 8081);
        assert_eq!(echoed(&listener, || ask(to)), b"ping", "{to}");
    }
    assert!(!sidecar.ask("/metrics").1.contains("sidegate_connections_total{"), "none of them was captured");
}

fn the_inbound_port_itself_takes_nobody() {
    let world = World::new();
    let place = place("");
    let sidecar = sidecar(&place);
    for address in addresses() {
        assert_eq!(world.run(|| ask(SocketAddr::new(address, 15006))), b"");
        let record = sidecar.record();
        assert_eq!((said(&record, "verdict"), said(&record, "reason")), ("denied", "not-redirected"));
        assert_eq!(said(&record, "direction"), "ingress");
        for port in [15006, 15008] {
            dial(SocketAddr::new(address, port)).expect_err("closed to the workload");
            let record = sidecar.record();
            assert_eq!(said(&record, "reason"), "address-own-listener", "{record}");
        }
    }
}

/// The identity of a workload in `id/`, of a domain of its own.
fn identity(place: &Place) {
    let (domain, now) = (TrustDomain::parse("example.org").unwrap(), UnixTime::now());
    let root = Authority::root(&domain, PrivateKey::generate().unwrap(), now, lifetime::ROOT).unwrap();
    let key = PrivateKey::generate().unwrap();
    let profile = Profile::new(SpiffeId::parse("spiffe://example.org/a").unwrap(), lifetime::LEAF).unwrap();
    let svid = root.issue(key.public(), &profile, now).unwrap();
    let bundle = TrustBundle::from_roots(domain, vec![root.root_certificate().unwrap().clone()]).unwrap();
    place.write("id/tls.crt", &svid.to_pem());
    place.write("id/tls.key", &key.to_pem());
    place.write("id/ca.crt", &bundle.to_pem());
}

/// Lets the records of what a scanner did pass: they end with one of ours.
fn forget(sidecar: &Sidecar, world: &World) {
    world.run(|| ask(SocketAddr::new(APP_V4.into(), 15006)));
    while said(&sidecar.record(), "reason") != "not-redirected" {}
}

fn run_in(world: &World, command: &[&str]) -> Output {
    let (program, arguments) = command.split_first().unwrap();
    world.run(|| Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap())
}

fn listeners_speak_tls_13_alone() {
    let world = World::new();
    let files = "{ certificate: id/tls.crt, key: id/tls.key, bundle: id/ca.crt, trustDomain: example.org }";
    let place = place(&format!("identity: {files}\n"));
    identity(&place);
    let sidecar = sidecar(&place);
    // Says nothing, and closes.
    let application = application(8443);
    thread::spawn(move || application.incoming().for_each(drop));
    for (port, tls13) in [(8443, true), (15008, false)] {
        let at = format!("{APP_V4}:{port}");
        for (version, expected) in [("-tls1_2", false), ("-tls1_3", tls13)] {
            let output = run_in(&world, &["openssl", "s_client", "-connect", &at, version]);
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(
                told.contains("Cipher is TLS_AES"),
                expected || version == "-tls1_3",
                "{at} {version}: {told}"
            );
            let record = sidecar.record();
            let reason = match (version, expected) {
                ("-tls1_2", _) => "tls-version-client",
                (_, false) => "peer-certificate",
                (_, true) => "rule-allows",
            };
            assert_eq!(said(&record, "reason"), reason, "{at} {version}: {record}");
            assert!(said(&record, "source").starts_with(&WORLD_V4.to_string()), "{record}");
        }
        let scanned = run_in(&world, &["sslscan", "--no-colour", "--no-heartbleed", &at]);
        let told = String::from_utf8_lossy(&scanned.stdout).into_owned();
        for old in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"] {
            let line = told.lines().find(|line| line.starts_with(old)).unwrap_or_default();
            assert!(line.ends_with("disabled"), "{at}: {told}");
        }
        let line = told.lines().find(|line| line.starts_with("TLSv1.3")).unwrap_or_default();
        assert!(line.ends_with("enabled"), "{at}: {told}");
        forget(&sidecar, &world);
    }
}
