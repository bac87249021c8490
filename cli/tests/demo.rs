//! The whole system in one go, judged by the far ends.

#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

#[test]
fn every_verdict_of_the_demo_is_the_expected_one() {
    let shown = Command::new(env!("CARGO_BIN_EXE_sidegate")).args(["demo", "--once"]).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&shown.stderr));
    assert!(text.contains("attacker: connections and datagrams            0"), "{text}");
    assert!(!text.contains("UNEXPECTED") && !text.contains('\x1b'), "{text}");
    assert!(text.contains("tls-required          403 Forbidden"), "{text}");
    let row = "allowed name, but attacker's address  allowed  rule-allows           welcome to the real API";
    assert!(text.contains(row), "it is not the attacker who was reached: {text}");
    let pair = "web asks: GET                         allowed  rule-allows           order 4711: two lamps";
    assert!(
        text.contains(pair)
            && text.contains("between the proxies: TLS alone                               yes"),
        "{text}"
    );
    let longest = text.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(100), "a line has {longest:?} columns");
    assert!(text.lines().last().unwrap().starts_with("Next: sidegate run --policy"), "{text}");
}

#[test]
fn on_a_terminal_it_stays_and_tells_where_to_look_until_ctrl_c() {
    let place = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_sidegate");
    let mut terminal = Command::new("script")
        .args(["-qec", &format!("exec {program} demo"), "/dev/null"])
        .env("TMPDIR", place.path())
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines().map(Result::unwrap);
    let shown: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Change the policy")).collect();
    assert!(shown.iter().any(|line| line.contains("\x1b[32mallowed\x1b[0m")), "{shown:#?}");

    let tries = shown.iter().filter_map(|line| line.trim().split_once(" curl ")).collect::<Vec<_>>();
    let (script, allowed) = tries[0];
    let script = script.trim_start_matches("try a command").trim();
    let tried = |url: &str| Command::new(script).args(["curl", "-sS", url.trim()]).output().unwrap();
    assert_eq!(tried(allowed).stdout, b"welcome to the real API\n");
    assert!(!tried(tries[1].1).status.success(), "a forbidden name");

    // The line discipline makes a signal of it.
    terminal.stdin.take().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    assert!(lines.last().unwrap().starts_with("Next: sidegate run --policy"));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left behind");
}
