//! The real `sidegate-proxy` as an operator meets it: files in, exit codes, endpoints, log and records out.

mod harness;
mod identity;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, fs::symlink, net::UnixStream},
    process::Command,
};

use harness::{Place, Sidecar, config, exchange, fetch, policy, repository, run};
use rustix::process::Signal;
use serde_json::Value;

const NOERROR: u8 = 0;
const REFUSED: u8 = 5;

fn serving(host: &str) -> (Place, Sidecar) {
    let place = Place::new(&config("policies"));
    place.write("policies/p.yaml", &policy("first", host));
    let sidecar = Sidecar::start(&place);
    (place, sidecar)
}

#[test]
fn a_denied_question_is_refused_and_recorded() {
    let (_place, sidecar) = serving("db.example.com");
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 200);
    assert_eq!(sidecar.resolve("evil.example.com"), (REFUSED, 0));
    let record = sidecar.record();
    assert_eq!(record["verdict"], "denied");
    assert_eq!(record["reason"], "name-not-allowed");
    assert_eq!(record["host"], "evil.example.com");
    assert_eq!(record["generation"], 1);
    assert_eq!(sidecar.resolve("db.example.com"), (NOERROR, 1));
    assert_eq!(sidecar.record()["verdict"], "allowed");
}

#[test]
fn a_connection_that_was_not_redirected_is_refused_and_recorded() {
    let (_place, sidecar) = serving("db.example.com");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, sidecar.outbound)).unwrap();
    let mut nothing = Vec::new();
    let _ = stream.read_to_end(&mut nothing);
    assert!(nothing.is_empty());
    let record = sidecar.record();
    assert_eq!(
        (&record["verdict"], &record["reason"]),
        (&Value::from("denied"), &Value::from("not-redirected"))
    );
}

#[test]
fn a_good_change_is_applied() {
    let (place, sidecar) = serving("db.example.com");
    assert_eq!(sidecar.resolve("new.example.com"), (REFUSED, 0));
    place.write("policies/p.yaml", &policy("first", "new.example.com"));
    sidecar.logged("new policies judge from now on");
    assert_eq!(sidecar.resolve("new.example.com"), (NOERROR, 1));
    assert_eq!(sidecar.resolve("db.example.com"), (REFUSED, 0));
    assert_eq!(sidecar.ask_json("/policy")["applied"]["generation"], 2);
    assert_eq!(sample(&sidecar, "sidegate_policy_reload_total{result=\"applied\"}"), Some(2.0));
    assert_eq!(sample(&sidecar, "sidegate_policy_generation"), Some(2.0));
}

#[test]
fn a_bad_change_is_refused_whole_and_loudly() {
    let (place, sidecar) = serving("db.example.com");
    place.write(
        "policies/q.yaml",
        &policy("second", "other.example.com").replace("ports: [ 5432 ]", "ports: [ 0 ]"),
    );
    let complaint = sidecar.logged("policy refused");
    assert_eq!(complaint["line"], 9);
    sidecar.logged("new policies were refused whole");
    assert_eq!(sidecar.resolve("db.example.com"), (NOERROR, 1));
    assert_eq!(sidecar.resolve("other.example.com"), (REFUSED, 0));
    let told = sidecar.ask_json("/policy");
    assert_eq!(
        (&told["applied"]["generation"], &told["lastReload"]["result"]),
        (&1.into(), &"refused".into())
    );
    assert_eq!(told["lastReload"]["diagnostics"][0]["line"], 9);
    assert_eq!(sample(&sidecar, "sidegate_policy_reload_total{result=\"refused\"}"), Some(1.0));
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 200, "the old policies judge on");
    place.write("policies/q.yaml", &policy("second", "other.example.com"));
    sidecar.logged("new policies judge from now on");
    assert_eq!(sidecar.resolve("other.example.com"), (NOERROR, 1));
}

#[test]
fn vanished_policies_are_refused() {
    let (place, sidecar) = serving("db.example.com");
    fs::remove_file(place.path("policies/p.yaml")).unwrap();
    sidecar.logged("new policies were refused whole");
    assert_eq!(sidecar.resolve("db.example.com"), (NOERROR, 1));
}

#[test]
fn a_mounted_folder_whose_link_is_swapped_is_followed() {
    let place = Place::new(&config("policies"));
    place.write("policies/..1/p.yaml", &policy("first", "one.example.com"));
    place.write("policies/..2/p.yaml", &policy("first", "two.example.com"));
    symlink("..1", place.path("policies/..data")).unwrap();
    symlink("..data/p.yaml", place.path("policies/p.yaml")).unwrap();
    let sidecar = Sidecar::start(&place);
    assert_eq!(sidecar.resolve("one.example.com"), (NOERROR, 1));
    symlink("..2", place.path("policies/..data_tmp")).unwrap();
    fs::rename(place.path("policies/..data_tmp"), place.path("policies/..data")).unwrap();
    sidecar.logged("new policies judge from now on");
    assert_eq!(sidecar.resolve("two.example.com"), (NOERROR, 1));
    assert_eq!(sidecar.resolve("one.example.com"), (REFUSED, 0));
}

#[test]
fn hangup_reads_again() {
    let (_place, sidecar) = serving("db.example.com");
    sidecar.signal(Signal::HUP);
    assert_eq!(sidecar.logged("new policies judge from now on")["generation"], 2);
}

#[test]
fn without_a_policy_everything_is_denied_until_one_appears() {
    let place = Place::new(&config("policies"));
    fs::create_dir(place.path("policies")).unwrap();
    let sidecar = Sidecar::start(&place);
    let (status, body) = fetch(&sidecar.ready, "/ready");
    assert_eq!(status, 503);
    assert!(body.contains("no policy is loaded"), "{body}");
    let sick = run(&["healthcheck", "--address", &sidecar.ready]);
    assert_eq!(sick.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sick.stderr).starts_with("not ready: no policy is loaded"));
    assert_eq!(sidecar.resolve("db.example.com"), (REFUSED, 0));
    assert_eq!(sidecar.record()["reason"], "no-policy");
    place.write("policies/p.yaml", &policy("first", "db.example.com"));
    sidecar.logged("new policies judge from now on");
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 200);
    assert_eq!(run(&["healthcheck", "--address", &sidecar.ready]).status.code(), Some(0));
    assert_eq!(sidecar.resolve("db.example.com"), (NOERROR, 1));
}

#[test]
fn policies_of_other_workloads_alone_leave_it_not_ready() {
    let ours = config("policies") + "workload: spiffe://example.org/ns/pay/sa/api\n";
    let theirs = policy("first", "db.example.com")
        .replace("spec:\n", "spec:\n  appliesTo: [ \"spiffe://example.org/ns/web/sa/*\" ]\n");
    let place = Place::new(&ours);
    place.write("policies/p.yaml", &theirs);
    let sidecar = Sidecar::start(&place);
    sidecar.logged("not ready: no policy applies to this workload");
    let (status, body) = fetch(&sidecar.ready, "/ready");
    assert_eq!(status, 503);
    assert!(body.contains("no policy applies to this workload"), "{body}");
    assert_eq!(sidecar.ask_json("/policy")["applied"]["documents"][0]["applies"], false);
    assert_eq!(sidecar.resolve("db.example.com"), (REFUSED, 0));
    assert_eq!(sidecar.record()["reason"], "no-policy");
    place.write("policies/p.yaml", &theirs.replace("/ns/web/", "/ns/pay/"));
    sidecar.logged("new policies judge from now on");
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 200);
    assert_eq!(sidecar.resolve("db.example.com"), (NOERROR, 1));
    place.write("policies/p.yaml", &theirs);
    sidecar.logged("not ready: no policy applies to this workload");
    assert_eq!(fetch(&sidecar.ready, "/ready").0, 503);
}

#[test]
fn healthcheck_tells_absence_from_sickness() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let absent = run(&["healthcheck", "--address", &free]);
    assert_eq!(absent.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&absent.stderr).starts_with("unreachable: "));
    assert_eq!(run(&["healthcheck", "--address", "nowhere"]).status.code(), Some(2));
}

#[test]
fn terminate_drains_and_leaves_nothing_behind() {
    let (place, mut sidecar) = serving("db.example.com");
    assert!(sidecar.claim.contains("that are led here"), "no rules lead anything: {}", sidecar.claim);
    sidecar.resolve("evil.example.com");
    sidecar.signal(Signal::TERM);
    sidecar.logged("draining");
    sidecar.logged("stopped");
    assert_eq!(sidecar.ended(), Some(0));
    assert_eq!(sidecar.record()["reason"], "name-not-allowed", "records are written to the last");
    assert!(!place.path("admin.sock").exists());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, sidecar.outbound)).is_err());
}

#[test]
fn synthetic_addresses_survive_a_restart() {
    let (place, mut sidecar) = serving("db.example.com");
    let before = sidecar.address("db.example.com");
    assert!(matches!(before[..], [198, 18 | 19, ..]), "{before:?}");
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended(), Some(0));
    assert!(fs::read_to_string(place.path("state/synthetic-addresses")).unwrap().contains("db.example.com"));
    assert_eq!(Sidecar::start(&place).address("db.example.com"), before);
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = Place::new(&config("p.yaml").replace("outbound: 0", &format!("outbound: {port}")));
    place.write("p.yaml", &policy("first", "db.example.com"));
    let refused = run(&["serve", "--config", &place.config()]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains(&format!("127.0.0.1:{port} is taken by another process")), "{said}");
    assert!(said.contains("`listen.outbound`"), "{said}");
}

#[test]
fn check_config_says_everything_that_is_wrong() {
    let place = Place::new(&config("p.yaml").replace("workers: 1", "workers: none\ncolour: red"));
    place.write("p.yaml", &policy("first", "db.example.com"));
    let wrong = run(&["check-config", &place.config()]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("proxy.yaml:9:10: ") && said.contains("proxy.yaml:10:1: "), "{said}");
    assert!(said.trim_end().ends_with("2 errors"), "{said}");
    assert_eq!(run(&["serve", "--config", &place.config()]).status.code(), Some(1));

    place.write("proxy.yaml", &config("p.yaml"));
    place.write("p.yaml", &policy("first", "\"*\""));
    let wrong = run(&["check-config", &place.config()]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("p.yaml:8:24: "), "{wrong:?}");

    place.write("p.yaml", &policy("first", "db.example.com"));
    let right = run(&["check-config", &place.config()]);
    assert_eq!(right.status.code(), Some(0));
    let said = String::from_utf8_lossy(&right.stdout);
    assert!(said.starts_with("ok\n") && said.contains("\"connections\": 8192"), "{said}");
}

const INGRESS: &str = "  ingress:
    - name: frontends
      reason: \"the frontends ask in the clear\"
      from: [ { cidrs: [ 10.0.0.0/8 ] } ]
      ports: [ 8080 ]
      protocol: tcp
      tls: { mode: none }
";

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Place::new(&config("p.yaml"));
    place.write("p.yaml", &policy("first", "db.example.com"));
    for arguments in [&["init", "--print"][..], &["completions", "bash"], &["check-config", &place.config()]]
    {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let ended =
            Command::new(env!("CARGO_BIN_EXE_sidegate-proxy")).args(arguments).stdout(writer).output();
        let ended = ended.unwrap();
        assert_eq!(
            (ended.status.code(), ended.stderr.as_slice()),
            (Some(0), &b""[..]),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn ingress_rules_are_said_to_be_enforced_by_nobody() {
    const GAUGE: &str = "sidegate_ingress_rules_not_enforced";
    let place = Place::new(&(config("p.yaml") + "inbound: { capture: false }\n"));
    let open = policy("first", "db.example.com");
    let ruled = open.clone() + INGRESS;
    place.write("p.yaml", &open);
    let silent = run(&["check-config", &place.config()]);
    assert_eq!(String::from_utf8_lossy(&silent.stderr), "", "the control");
    let sidecar = Sidecar::start(&place);
    assert_eq!(sample(&sidecar, GAUGE), Some(0.0));

    place.write("p.yaml", &ruled);
    let warned = sidecar.logged("1 ingress rule of policy `first` is NOT enforced");
    assert_eq!((&warned["level"], &warned["rules"]), (&"WARN".into(), &1.into()));
    assert_eq!(sample(&sidecar, GAUGE), Some(1.0));
    let checked = run(&["check-config", &place.config()]);
    assert_eq!(checked.status.code(), Some(0));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.starts_with("warning: 1 ingress rule of policy `first` is NOT enforced"), "{said}");
    drop(sidecar);
    Sidecar::start(&place).logged("1 ingress rule of policy `first` is NOT enforced");

    // Captured, they are, but for those of datagrams.
    place.write("proxy.yaml", &config("p.yaml"));
    let captured = run(&["check-config", &place.config()]);
    assert_eq!(String::from_utf8_lossy(&captured.stderr), "");
    place.write(
        "p.yaml",
        &ruled.replace(
            "10.0.0.0/8 ] } ]\n      ports: [ 8080 ]\n      protocol: tcp",
            "10.0.0.0/8 ] } ]\n      ports: [ 8080 ]\n      protocol: udp",
        ),
    );
    Sidecar::start(&place).logged("1 ingress rule of policy `first` is NOT enforced: datagrams");
}

#[test]
fn the_admin_socket_answers_its_owner_and_changes_nothing() {
    let (_place, sidecar) = serving("db.example.com");
    assert_eq!(fs::metadata(&sidecar.admin).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(sidecar.ask_json("/config")["limits"]["connections"], 8192);
    assert_eq!(sidecar.ask_json("/connections")["count"], 0);
    let allowed = sidecar.ask_json("/explain?host=db.example.com&port=5432&protocol=tcp");
    assert_eq!((&allowed["verdict"], &allowed["rule"]), (&"allowed".into(), &"server-first".into()));
    let denied = sidecar.ask_json("/explain?host=db.example.com&port=443");
    assert_eq!(denied["verdict"], "denied");
    assert!(denied["explanation"].as_str().unwrap().contains("server-first"), "{denied}");
    assert_eq!(sidecar.ask("/explain?host=db.example.com").0, 400);
    assert_eq!(sidecar.ask("/shutdown").0, 404);
    let post = "POST /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(exchange(UnixStream::connect(&sidecar.admin).unwrap(), post).0, 405);
    assert_eq!(fetch(&sidecar.ready, "/config").0, 404, "nothing but readiness is told to the network");
    assert_eq!(fetch(&sidecar.metrics, "/config").0, 404);
}

#[test]
fn every_metric_is_in_the_docs_and_every_documented_one_in_the_program() {
    let (place, sidecar) = serving("db.example.com");
    sidecar.resolve("evil.example.com");
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, sidecar.outbound)));
    place.write("policies/q.yaml", "no policy");
    sidecar.logged("new policies were refused whole");
    let documented = documented_metrics();
    for line in fetch(&sidecar.metrics, "/metrics").1.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        assert_eq!(documented.get(name).map(String::as_str), Some(kind), "docs/metrics.md on {name}");
    }
    let named: BTreeSet<String> = documented.into_keys().collect();
    assert_eq!(named, metrics_of_the_program(), "docs/metrics.md against the program");
}

/// The value of a series.
fn sample(sidecar: &Sidecar, series: &str) -> Option<f64> {
    let (_, text) = fetch(&sidecar.metrics, "/metrics");
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Name and kind of each row of docs/metrics.md.
fn documented_metrics() -> BTreeMap<String, String> {
    let text = repository("docs/metrics.md");
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| row.split('|').collect::<Vec<_>>());
    rows.map(|row| (row[0].trim().trim_matches('`').to_owned(), row[1].trim().to_owned())).collect()
}

/// Every metric that the program's source names.
fn metrics_of_the_program() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(path).unwrap_or_default();
                let quoted = text.split('"').filter(|word| word.starts_with("sidegate_"));
                let whole =
                    quoted.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
                names.extend(whole.map(str::to_owned));
            }
        }
    }
    names
}
