//! `sidegate policy check` from outside: exit status, both outputs, and what a hostile file can't do to a terminal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures").join(name)
}

fn check(arguments: &[&str], files: &[PathBuf], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidegate"))
        .args(["policy", "check"])
        .args(arguments)
        .args(files)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have answered without reading.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The one summary, and of each note after it where it points to and its code.
fn parted(output: &Output) -> (&str, Vec<String>) {
    let (summary, rest) = text(&output.stdout).split_once('\n').unwrap();
    let note = |line: &str| {
        let rest = line.strip_prefix("note: ").unwrap_or_else(|| panic!("no note: {line}"));
        // The file's name has no colon.
        let mut place = rest.splitn(4, ':').skip(1);
        let (line, column, rest) = (place.next().unwrap(), place.next().unwrap(), place.next().unwrap());
        let code = rest.split_once(" [").and_then(|(_, rest)| rest.split_once("]: ")).unwrap().0;
        format!("{line}:{column} [{code}]")
    };
    (summary, rest.lines().map(note).collect())
}

#[test]
fn valid_files_give_a_line_each_and_0() {
    let output = check(&[], &[fixture("good/complete.yaml")], b"");
    assert_eq!(output.status.code(), Some(0));
    let (line, notes) = parted(&output);
    assert!(line.contains("payments: 10 egress rules, 3 ingress rules; for spiffe://"), "{line}");
    assert!(line.contains("AUDIT ONLY"), "{line}");
    assert_eq!(
        notes,
        ["4:9 [in-audit]", "28:13 [in-audit]", "28:13 [never-matches]", "84:13 [ingress-unenforced]",]
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn every_error_of_every_file_is_shown_with_its_fix_and_1() {
    let output = check(&[], &[fixture("bad/port-zero.yaml"), fixture("bad/duplicate-rule.yaml")], b"");
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stderr);
    for expected in
        ["port-zero.yaml:9:16", "65535", "duplicate-rule.yaml:8:15", "first named here", "2 errors in 2 of 2"]
    {
        assert!(report.contains(expected), "{expected} is not in {report}");
    }
    assert!(!report.contains('\x1b'), "no colour when it is no terminal");
}

#[test]
fn a_missing_file_gives_2_and_the_others_are_still_checked() {
    let output = check(&[], &[fixture("absent.yaml"), fixture("good/minimal.yaml")], b"");
    assert_eq!(output.status.code(), Some(2));
    let (line, notes) = parted(&output);
    assert!(line.contains("web: 1 egress rule") && notes.is_empty(), "{line} {notes:?}");
    assert!(text(&output.stderr).contains("absent.yaml"));
}

#[test]
fn json_is_one_object_whatever_the_verdict() {
    for (file, valid) in [("good/minimal.yaml", true), ("bad/port-zero.yaml", false)] {
        let output = check(&["--json"], &[fixture(file)], b"");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["valid"], valid);
        assert_eq!(answer["diagnostics"].as_array().unwrap().is_empty(), valid);
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_hostile_file_on_standard_input_drives_no_terminal_and_floods_none() {
    for hostile in [
        &b"a: \x1b[2Jb\n"[..],
        b"a\xff\n",
        &[b' '; 2_000_000],
        "a: \u{202E}b\n".as_bytes(),
        "a: \u{9b}2J\n".as_bytes(),
    ] {
        let output = check(&[], &["-".into()], hostile);
        assert_eq!(output.status.code(), Some(1));
        let report = text(&output.stderr);
        assert!(report.contains("<stdin>") && report.len() < 2000, "{} bytes", report.len());
        assert!(!report.contains(['\x1b', '\u{9b}', '\u{202E}']), "{report:?}");
    }
}

#[test]
fn policies_for_different_workloads_may_disagree_and_others_may_not() {
    let policy = |name: &str, workload: &str, tls: &str| {
        format!(
            "---\napiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  appliesTo: [ \"spiffe://t/{workload}\" ]\n  egress:\n    - {{ name: api, to: [ {{ hosts: [ api.example.com ] }} ], ports: [ 443 ], tls: {{ mode: {tls} }} }}\n"
        )
    };
    for (other, status) in [("web", 0), ("*", 1)] {
        let both = policy("one", "pay", "passthrough") + &policy("two", other, "inspect");
        let output = check(&[], &["-".into()], both.as_bytes());
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
    }
}

#[test]
fn notes_tell_what_a_valid_policy_does_not_do_and_leave_the_status() {
    let policy = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  mode: audit\n  auditUntil: 2020-01-01\n  egress:\n    \
        - { name: api, to: [ { hosts: [ api.example.com ] } ], ports: [ 443 ] }\n    \
        - { name: seen, to: [ { hosts: [ b.example.com ] } ], ports: [ 80 ], protocol: http, tls: { mode: originate }, limits: { requestsPerSecond: 5 } }\n    \
        - { name: dead, to: [ { cidrs: [ 169.254.0.0/16 ] } ], ports: [ 443 ] }\n  ingress:\n    \
        - { name: in, from: [ { cidrs: [ 10.0.0.0/8 ] } ], ports: [ 443 ] }\n";
    let output = check(&["--json"], &["-".into()], policy.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["valid"], true);
    let notes = answer["notes"].as_array().unwrap();
    let told: Vec<_> = notes.iter().map(|note| (note["line"].as_u64().unwrap(), &note["code"])).collect();
    let expected = [(3, "audit-is-over"), (10, "never-matches"), (12, "ingress-unenforced")];
    assert_eq!(
        told,
        expected.map(|(line, code)| (line, code.into())).each_ref().map(|(line, code)| (*line, code))
    );
    let shown = check(&[], &["-".into()], policy.as_bytes());
    let (line, notes) = parted(&shown);
    assert!(
        line.starts_with("<stdin>: p: 3 egress rules, 1 ingress rule; ") && !line.contains("AUDIT ONLY"),
        "{line}"
    );
    assert_eq!(notes, ["3:19 [audit-is-over]", "10:15 [never-matches]", "12:15 [ingress-unenforced]"]);

    let output = check(&["--json"], &[fixture("good/minimal.yaml")], b"");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["notes"], serde_json::json!([]));
}
