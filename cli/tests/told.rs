//! What `sidegate run` tells of itself: wrong usage, what it does not carry out, what it refused.
#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

mod gate;

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use gate::{program, text};

#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    gate::as_an_ordinary_user("all_of_it_holds_for_an_ordinary_user");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).arg("run").args(arguments).output().unwrap()
}

#[test]
fn what_the_command_line_names_must_be_there() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let cases = [
        ("--access-log", "/nonexistent/x", "No such file or directory", "in a folder that exists"),
        ("--allow-socket", "/nonexistent/x", "No such file or directory", "name a socket"),
        ("--allow-socket", file.to_str().unwrap(), "it is no Unix socket", "name a socket"),
    ];
    for (option, named, fault, remedy) in cases {
        let refused = run(&[option, named, "--", "echo", "ran"]);
        assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(2), &b""[..]), "{option}");
        let said = text(&refused);
        assert!(said.contains(&format!("{option} {named}: {fault}")) && said.contains(remedy), "{said}");
    }
    let socket = place.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let log = place.path().join("log");
    let (socket, log) = (socket.to_str().unwrap(), log.to_str().unwrap());
    let ran = run(&["--access-log", log, "--allow-socket", socket, "--", "echo", "ran"]);
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), &b"ran\n"[..]), "{}", text(&ran));
}

/// Its reader takes the first close for the end.
#[test]
fn a_named_pipe_gets_every_record() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = Command::new("cat").arg(&pipe).stdout(Stdio::piped()).spawn().unwrap();
    let send = "import socket
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 443))
except OSError: pass";
    run(&["--access-log", pipe.to_str().unwrap(), "--", "python3", "-c", send]);
    let records = reader.wait_with_output().unwrap();
    assert!(text(&records).contains("198.51.100.7:443"), "{}", text(&records));
}

#[test]
fn what_a_run_does_not_carry_out_is_said() {
    let place = tempfile::tempdir().unwrap();
    let policy = place.path().join("p.yaml");
    let of = |spec: &str| {
        let head = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: shop }\n";
        fs::write(&policy, format!("{head}{spec}")).unwrap();
        text(&run(&["--policy", policy.to_str().unwrap(), "--", "true"]))
    };
    assert_eq!(of("spec: {}\n"), "", "the control");
    let said = of("spec:
  appliesTo: [ \"spiffe://example.org/ns/shop/sa/*\" ]
  ingress:
    - name: frontends
      reason: \"they ask in the clear\"
      from: [ { cidrs: [ 10.0.0.0/8 ] } ]
      ports: [ 8080 ]
      protocol: tcp
      tls: { mode: none }
");
    assert!(said.contains("warning: `appliesTo` of policy `shop` is ignored"), "{said}");
    assert!(said.contains("warning: 1 ingress rule of policy `shop` NOT enforced"), "{said}");
}

/// The kernel tells 100 at once, of which only the first of a flow is recorded.
#[test]
fn datagrams_are_counted_and_no_rule_is_advised_for_them() {
    let flood = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(1500):
    try: s.sendto(b'x', ('198.51.100.7', 443))
    except OSError: pass";
    let said = text(&run(&["--", "python3", "-c", flood]));
    assert!(said.contains("udp 198.51.100.7:443") || said.contains("198.51.100.7:443 (udp, once)"), "{said}");
    assert!(said.contains("and 1,499 more refused packets, counted, not recorded one by one"), "{said}");
    assert!(said.contains("udp-refused: `sidegate run` relays no datagrams"), "{said}");
    assert!(said.contains("use TCP") && !said.contains("Add a rule with `protocol: udp`"), "{said}");
}

/// Asks for a name and connects by address; prints what came of both.
const REACH: &str = "import socket
try: socket.create_connection(('203.0.113.9', 9), 0.2)
except OSError: pass";

/// What a policy in audit lets pass is said, and `--mode enforce` means it.
#[test]
fn audit_is_announced_and_yields_to_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    let (policy, log) = (place.path().join("p.yaml"), place.path().join("log"));
    let head = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: shop }\n";
    let verdict = |spec: &str, arguments: &[&str]| {
        fs::write(&policy, format!("{head}{spec}")).unwrap();
        let _ = fs::remove_file(&log);
        let (policy, log) = (policy.to_str().unwrap(), log.to_str().unwrap());
        let ours = ["--policy", policy, "--access-log", log, "--summary", "never"];
        let ran = run(&[&ours, arguments, &["--", "python3", "-c", REACH]].concat());
        let record = fs::read_to_string(log).unwrap();
        let word = if record.contains("\"would-deny\"") { "would-deny" } else { "denied" };
        assert!(record.contains(&format!("\"{word}\"")), "{record}");
        (word, text(&ran))
    };
    let audit = "spec: { mode: audit, auditUntil: 9999-12-31 }\n";
    let rule = "spec:
  egress:
    - name: test-net
      reason: \"nothing lives there\"
      action: deny
      auditUntil: 9999-12-31
      to: [ { cidrs: [ 203.0.113.0/24 ] } ]
      ports: [ 9 ]
      protocol: tcp
    - name: all
      reason: \"but for a deny\"
      to: [ { cidrs: [ 203.0.113.0/24 ] } ]
      ports: [ 9 ]
      protocol: tcp
      tls: { mode: none }
";
    assert_eq!(verdict("spec: {}\n", &[]), ("denied", String::new()), "the control");
    for (spec, what) in [(audit, "policy `shop`"), (rule, "rule `test-net` of policy `shop`")] {
        let (word, said) = verdict(spec, &[]);
        assert_eq!(word, "would-deny", "{said}");
        assert!(said.starts_with("sidegate: WARNING: NOT ENFORCED") && said.contains(what), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(verdict(spec, &["--quiet"]), ("would-deny", String::new()));

        let (word, said) = verdict(spec, &["--mode", "enforce"]);
        assert_eq!(word, "denied", "{said}");
        assert!(said.starts_with("sidegate: --mode enforce: ") && said.contains(what), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
