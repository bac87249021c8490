//! `sidegate run` around real commands: status, signals, descriptors, and the ways around that must be closed.
//!
//! A probe is a test of this file that passes by itself, and that another test runs inside the gate, where it must fail.
#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::net::UnixListener,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal};

fn sidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(["run", "--quiet"]).args(arguments);
    command
}

fn shell(script: &str) -> Output {
    sidegate(&["--", "sh", "-c", script]).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_status_is_the_commands_own() {
    assert_eq!(shell("exit 0").status.code(), Some(0));
    assert_eq!(shell("exit 7").status.code(), Some(7));
    assert_eq!(shell("kill -9 $$").status.code(), Some(137));
    assert_eq!(shell("kill -TERM $$").status.code(), Some(143));
    assert_eq!(sidegate(&["--", "/no/such/program"]).status().unwrap().code(), Some(127));
    assert_eq!(sidegate(&["--", "/etc/passwd"]).status().unwrap().code(), Some(126));
}

#[test]
fn nothing_runs_when_the_policy_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let policy = place.path().join("unknown_field.yaml");
    fs::write(&policy, "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: x }\nspecs: {}\n")
        .unwrap();
    let ran = sidegate(&["--policy", policy.to_str().unwrap(), "--", "echo", "ran"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(ran.stdout, b"");
    let shown = text(&ran);
    assert!(shown.contains("unknown_field.yaml:4:1"), "{shown}");
    assert!(shown.contains("4 │ specs: {}") && shown.contains("did you mean `spec`?"), "{shown}");
}

#[test]
fn the_command_has_no_power_left() {
    let status = text(&shell("cat /proc/self/status"));
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn only_what_the_user_handed_over_is_inherited() {
    // 3: a pipe from the user; 4: a directory, which would lead out of the mount namespace.
    let script =
        format!("exec 3</dev/null 4</; {} run --quiet -- ls /proc/self/fd", env!("CARGO_BIN_EXE_sidegate"));
    let listed = Command::new("bash").args(["-c", &script]).output().unwrap();
    let open: Vec<String> = text(&listed).lines().map(str::to_owned).collect();
    assert!(!open.contains(&"4".to_owned()), "{open:?}");
    let script = format!("{} run --quiet -- cat <(echo through a pipe)", env!("CARGO_BIN_EXE_sidegate"));
    let read = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(text(&read), "through a pipe\n");
}

#[test]
fn a_signal_sent_to_sidegate_reaches_the_command() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1] {
        let number = signal.as_raw();
        let script = format!(
            "trap 'echo got; exit 42' {number}; echo ready; while :; do read -r line <&3 || :; done 3</dev/null"
        );
        let (mut child, mut lines) = running(&script);
        assert_eq!(next(&mut lines), "ready");
        rustix::process::kill_process(pid(&child), signal).unwrap();
        assert_eq!(next(&mut lines), "got", "signal {number}");
        assert_eq!(child.wait().unwrap().code(), Some(42));
    }
}

#[test]
fn nothing_outlives_a_killed_proxy() {
    let (mut child, mut lines) = running("echo ready; exec sleep 1000");
    drop(next(&mut lines));
    child.kill().unwrap();
    child.wait().unwrap();
    // The command holds the other end: it closes when the command is gone.
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
}

#[test]
fn processes_outside_are_neither_seen_nor_signalled() {
    let me = std::process::id();
    let seen = shell(&format!(
        "test -e /proc/{me}/status && grep -q '^PPid' /proc/{me}/status && readlink /proc/{me}/exe; kill -0 {me}"
    ));
    assert!(!seen.status.success(), "{}", text(&seen));
    // Outside, both work.
    let control = Command::new("sh")
        .args(["-c", &format!("readlink /proc/{me}/exe && kill -0 {me}")])
        .status()
        .unwrap();
    assert!(control.success());
}

#[test]
fn a_nested_namespace_leads_nowhere() {
    let nested = shell("unshare -Urn true && unshare -Ur umount /etc/resolv.conf");
    assert!(!nested.status.success(), "{}", text(&nested));
    // A privileged user may not map itself to root there at all, which is as good.
    let nested = text(&shell("unshare -Urnm cat /etc/resolv.conf"));
    assert!(nested.contains("nameserver 127.0.0.1") || nested.contains("not permitted"), "{nested}");
}

#[test]
fn a_unix_socket_is_closed_unless_it_is_named() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = place.path().join("engine.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let probe = |arguments: &[&str]| {
        let mut command = sidegate(arguments);
        command.arg("--").args(probe("connects_to_the_unix_socket")).env("PROBE_SOCKET", &path);
        command.output().unwrap().status.success()
    };
    assert!(!probe(&[]));
    assert!(probe(&["--allow-socket", path.to_str().unwrap()]), "the negative control");
}

#[test]
fn connects_to_the_unix_socket() {
    let place = tempfile::tempdir().unwrap();
    let own = place.path().join("own.sock");
    let _listener = UnixListener::bind(&own).unwrap();
    let path = std::env::var_os("PROBE_SOCKET").map_or(own, Into::into);
    std::os::unix::net::UnixStream::connect(path).unwrap();
}

#[test]
fn socket_families_beside_the_internet_are_closed() {
    // The filter's own tests show the other side: without it, these calls pass to the kernel.
    let opened = shell("python3 -c 'import socket; socket.socket(40, socket.SOCK_STREAM)'");
    assert!(text(&opened).contains("Address family not supported"), "{}", text(&opened));
    let ring = shell(
        "python3 -c 'import ctypes; c = ctypes.CDLL(None, use_errno=True); c.syscall(425, 8, 0); print(ctypes.get_errno())'",
    );
    assert_eq!(text(&ring), "38\n", "io_uring_setup is absent");
}

/// This program, told to run one of its tests.
fn probe(name: &str) -> Vec<String> {
    let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    vec![own, "--exact".to_owned(), name.to_owned()]
}

fn running(script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child =
        sidegate(&["--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn next(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}
