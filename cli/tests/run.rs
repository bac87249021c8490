//! `sidegate run` around real commands: status, signals, descriptors.
#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

mod gate;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdout, Command, Stdio},
};

use gate::{program, shell, sidegate, text};
use rustix::process::{Pid, Signal};

#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    gate::as_an_ordinary_user("all_of_it_holds_for_an_ordinary_user");
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

/// As `sidegate policy check` ends: 2 where nothing could be judged.
#[test]
fn a_policy_that_cant_be_read_is_wrong_usage() {
    for named in ["/nonexistent/p.yaml", "/"] {
        let ran = sidegate(&["--policy", named, "--", "echo", "ran"]).output().unwrap();
        let shown = text(&ran);
        assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(2), &b""[..]), "{named}: {shown}");
        assert!(shown.contains(named) && !shown.contains("refused"), "{shown}");
    }
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
fn only_what_the_user_handed_over_is_inherited() {
    // 3: a pipe from the user; 4: a directory, which would lead out of the mount namespace.
    let script = format!("exec 3</dev/null 4</; {} run --quiet -- ls /proc/self/fd", program().display());
    let listed = Command::new("bash").args(["-c", &script]).output().unwrap();
    let open: Vec<String> = text(&listed).lines().map(str::to_owned).collect();
    assert!(!open.contains(&"4".to_owned()), "{open:?}");
    let script = format!("{} run --quiet -- cat <(echo through a pipe)", program().display());
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
        assert_eq!(child.0.wait().unwrap().code(), Some(42));
    }
}

#[test]
fn a_signal_to_the_whole_group_arrives_once() {
    let blocking = "import signal
watched = [signal.SIGUSR1, signal.SIGUSR2]
signal.pthread_sigmask(signal.SIG_BLOCK, watched)
print('ready', flush=True)
while True: print(signal.sigwait(watched).name, flush=True)";
    let mut command = sidegate(&["--", "python3", "-c", blocking]);
    let (child, mut lines) = started(command.process_group(0));
    assert_eq!(next(&mut lines), "ready");
    let (group, only) = (Signal::USR1, Signal::USR2);
    for _ in 0..10 {
        // To all three: this alone must not bring a second one. To the proxy alone: must be passed on.
        rustix::process::kill_process_group(pid(&child), group).unwrap();
        assert_eq!(next(&mut lines), "SIGUSR1");
        rustix::process::kill_process(pid(&child), only).unwrap();
        assert_eq!(next(&mut lines), "SIGUSR2", "a second SIGUSR1 came first");
    }
}

#[test]
fn nothing_outlives_a_killed_proxy() {
    let (child, mut lines) = running("echo ready; exec sleep 1000");
    drop(next(&mut lines));
    drop(child);
    // The command holds the other end: it closes when the command is gone.
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
}

#[test]
fn nothing_outlives_the_proxy_either() {
    let (mut child, mut lines) = running("echo ready; exec sleep 1000");
    drop(next(&mut lines));
    let waiter = child.0.id();
    let children = fs::read_to_string(format!("/proc/{waiter}/task/{waiter}/children")).unwrap();
    let proxy = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(proxy, Signal::KILL).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(137));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
}

/// The command can kill its whole process group, the caller's waiter with it, but not the proxy before it has recorded.
#[test]
fn a_kill_of_the_whole_group_erases_no_record() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("access.jsonl");
    let mut command = sidegate(&["--access-log", log.to_str().unwrap(), "--", "python3", "-c"]);
    command.arg(
        "import os, signal, socket
s = socket.socket(); s.settimeout(10)
try: s.connect(('93.184.216.34', 443)); s.recv(1)
except OSError: pass
os.kill(0, signal.SIGKILL)",
    );
    let (mut child, mut lines) = started(command.process_group(0));
    assert_eq!(child.0.wait().unwrap().signal(), Some(Signal::KILL.as_raw()), "the waiter is in the group");
    // Everything inside is gone; the proxy writes its last records.
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("93.184.216.34:443")) {
        assert!(std::time::Instant::now() < deadline, "no record");
        std::thread::yield_now();
    }
}

/// Killed when dropped, so that a test that fails leaves nothing behind.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn started(command: &mut Command) -> (Started, BufReader<ChildStdout>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (Started(child), output)
}

/// A shell keeps ignoring what was ignored when it started, as a job in the background of a script ignores SIGINT: these
/// tests may be one.
fn running(script: &str) -> (Started, BufReader<ChildStdout>) {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP,INT,QUIT,TERM,USR1").arg(program());
    started(command.args(["run", "--quiet", "--", "sh", "-c", script]))
}

fn next(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn pid(child: &Started) -> Pid {
    Pid::from_raw(child.0.id().try_into().unwrap()).unwrap()
}
