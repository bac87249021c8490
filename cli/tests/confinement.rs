//! Ways around `sidegate run` that must be closed, each tried by real system calls and shown to be open without it.

#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

mod gate;

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Output},
};

use gate::{program, shell, sidegate, text};

#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    gate::as_an_ordinary_user("all_of_it_holds_for_an_ordinary_user");
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
fn processes_outside_are_neither_seen_nor_signalled() {
    let me = std::process::id();
    let seen = shell(&format!("readlink /proc/{me}/exe | grep -q /confinement-; kill -0 {me}"));
    assert!(!seen.status.success(), "{}", text(&seen));
    let seen = shell(&format!("grep -qs confinement- /proc/{me}/cmdline"));
    assert!(!seen.status.success(), "{}", text(&seen));
    // Outside, both work.
    let control = format!(
        "kill -0 {me} && grep -q tests /proc/{me}/cmdline || grep -q confinement- /proc/{me}/cmdline"
    );
    assert!(Command::new("sh").args(["-c", &control]).status().unwrap().success());
}

/// What the command does to a log, one word for each that works.
const TAMPER: &str = r#"
(: > "$0") 2>/dev/null && echo shortened
(echo forged >> "$0") 2>/dev/null && echo written
ln "$0" "$0.link" 2>/dev/null && echo linked
mv "$0" "$0.old" 2>/dev/null && echo moved
rm -f "$0" 2>/dev/null && echo removed
umount "$0" 2>/dev/null && echo unmounted
mount -o remount,bind,rw "$0" 2>/dev/null && echo remounted
unshare --map-root-user --mount sh -c 'umount "$0" || mount -o remount,bind,rw "$0"' "$0" 2>/dev/null && echo unshared
echo tried"#;

#[test]
fn the_access_log_is_not_the_command_s_to_write() {
    let place = tempfile::tempdir().unwrap();
    let [log, other] = ["access.jsonl", "other.jsonl"].map(|name| place.path().join(name));
    std::fs::write(&log, "earlier\n").unwrap();
    std::fs::write(&other, "earlier\n").unwrap();
    let run = |target: &Path| {
        sidegate(&["--access-log", log.to_str().unwrap(), "--", "sh", "-c", TAMPER, target.to_str().unwrap()])
            .output()
            .unwrap()
    };
    assert_eq!(text(&run(&log)), "tried\n");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "earlier\n");
    // The control: any other file of the user is the command's to spoil.
    assert_eq!(text(&run(&other)), "shortened\nwritten\nlinked\nmoved\nremoved\ntried\n");
}

/// The folder around it can be moved, and is missed.
#[test]
fn an_access_log_that_is_led_away_is_told_of() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("logs");
    std::fs::create_dir(&folder).unwrap();
    let log = folder.join("access.jsonl");
    let script = format!("mv {0} {0}.old; mkdir {0}", folder.display());
    let run = sidegate(&["--access-log", log.to_str().unwrap(), "--", "sh", "-c", &script]).output().unwrap();
    assert!(text(&run).contains("WARNING: the access log") && text(&run).contains("moved"), "{}", text(&run));
}

/// Behind the gate root may not map itself into namespaces of its own; ordinary users may. Either way it ends.
#[test]
fn a_gate_within_a_gate_stands_or_says_why_not() {
    let own = program().display().to_string();
    let script = format!("timeout 60 {own} run --quiet -- sh -c 'echo inside'");
    let nested = shell(&script);
    let expected: (i32, &str) =
        if rustix::process::geteuid().is_root() { (3, "sidegate: ") } else { (0, "inside") };
    assert_eq!(nested.status.code(), Some(expected.0), "{}", text(&nested));
    assert!(text(&nested).contains(expected.1), "{}", text(&nested));
}

/// What may be done to another process of the same user, by the words that it prints.
const INTRUDE: &str = r"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = sys.argv[1]
if pid == 'proxy':
    parent = lambda pid: next(line.split()[1] for line in open(f'/proc/{pid}/status') if line.startswith('PPid'))
    pid = parent(parent('self'))
def attempt(word, act):
    try:
        act()
        print(word)
    except OSError as refused:
        pass
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), 'refused')
    return result
def call(number, *arguments):
    return checked(libc.syscall(number, *arguments))
attempt('ns', lambda: os.open(f'/proc/{pid}/ns/net', os.O_RDONLY))
attempt('fd', lambda: os.readlink(f'/proc/{pid}/fd/0'))
attempt('mem', lambda: os.open(f'/proc/{pid}/mem', os.O_RDWR))
attempt('getfd', lambda: call(438, call(434, int(pid), 0), 0, 0))
attempt('ptrace', lambda: checked(libc.ptrace(0x4206, int(pid), None, None)))
print('tried', pid)
";

/// A process that lets anybody of the same user trace it, in case Yama is there.
const BYSTANDER: &str =
    "import ctypes, sys; ctypes.CDLL(None).prctl(0x59616d61, -1); print(flush=True); sys.stdin.read()";

/// Runs `$2 $1 PID` with a bystander's PID, in namespaces where `/proc` is masked as in a container.
const WITH_MASKED_PROC: &str = r#"
mount -t tmpfs none /proc/irq || exit 99
intrude=$1; bystander=$2; shift 2
coproc { exec python3 -c "$bystander"; }
read -r _ <&"${COPROC[0]}"
target=$COPROC_PID
[ "$1" = proxy ] && { target=proxy; shift; }
"$@" python3 -c "$intrude" "$target"
exec {COPROC[1]}>&-
"#;

fn intrude(target: &[&str], gate: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-rm", "bash", "-c", WITH_MASKED_PROC, "bash", INTRUDE, BYSTANDER]).args(target).args(gate);
    command.output().unwrap()
}

#[test]
fn a_visible_process_outside_can_be_neither_traced_nor_read() {
    let own = program();
    let gate = [own.to_str().unwrap(), "run", "--quiet", "--"];
    let outside = text(&intrude(&[], &["env"]));
    assert!(outside.starts_with("ns\nfd\nmem\ngetfd\nptrace\ntried "), "the negative control: {outside}");
    for target in [&[][..], &["proxy"]] {
        let inside = intrude(target, &gate);
        let (said, warned) =
            (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
        assert!(warned.contains("warning: /proc can't be mounted here"), "the way to be tried: {warned}");
        assert!(said.starts_with("tried ") && said.lines().count() == 1, "{target:?}: {said}{warned}");
    }
}

/// Leaves a process running, and tells its number.
const LEAVE: &str = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";

#[test]
fn what_the_command_leaves_running_ends_with_it_without_a_pid_namespace_too() {
    let own = program();
    let masked = |gate: &[&str]| {
        let script = "mount -t tmpfs none /proc/irq || exit 99; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).args(gate).args(["sh", "-c", LEAVE]);
        let left = String::from_utf8(command.output().unwrap().stdout).unwrap();
        rustix::process::Pid::from_raw(left.trim().parse().unwrap()).unwrap()
    };
    let outside = masked(&["env"]);
    rustix::process::kill_process(outside, rustix::process::Signal::KILL)
        .expect("the negative control: it lives");
    let left = masked(&[own.to_str().unwrap(), "run", "--quiet", "--"]);
    let gone = rustix::process::test_kill_process(left);
    assert_eq!(gone, Err(rustix::io::Errno::SRCH), "it lives on");
}

/// Enters the network namespace behind descriptor 9.
const ENTER: &str = "import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print('entered' if libc.setns(9, 0x40000000) == 0 else os.strerror(ctypes.get_errno()))";

#[test]
fn a_network_namespace_handed_over_as_a_descriptor_stays_closed() {
    let entering = |through: &str| {
        let script = format!("exec 9</proc/self/ns/net; {through} python3 -c \"$0\"");
        text(&Command::new("unshare").args(["-rn", "bash", "-c", &script, ENTER]).output().unwrap())
    };
    assert_eq!(entering("unshare -n"), "entered\n", "the negative control");
    let gate = format!("{} run --quiet --", program().display());
    for through in [gate.clone(), format!("{gate} unshare -U"), format!("{gate} unshare -Un")] {
        let said = entering(&through);
        assert!(!said.contains("entered") && !said.is_empty(), "{through}: {said}");
    }
}

/// Says `power` for each thing that only a ruler over its network namespace may do.
const RULE: &str = r"
ip link set lo down 2>&1 && echo power
python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print(1)' && echo power
python3 -c 'import socket; socket.socket().setsockopt(socket.SOL_SOCKET, 36, 7); print(1)' && echo power
";

#[test]
fn a_nested_user_namespace_rules_over_nothing_of_the_gate() {
    let nested = |flags: &str| format!("unshare {flags} sh -c '{}'", RULE.replace('\'', "'\\''"));
    let control = Command::new("sh").args(["-c", &nested("-Urn")]).output().unwrap();
    assert_eq!(text(&control).matches("power").count(), 3, "the negative control: {}", text(&control));
    for flags in ["-Ur", "-U", "-Urm"] {
        let inside = text(&shell(&nested(flags)));
        assert!(!inside.contains("power") && !inside.is_empty(), "{flags}: {inside}");
    }
}

#[test]
fn a_nested_mount_namespace_uncovers_nothing() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = place.path().join("engine.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let uncover = format!(
        "umount {0} /etc/resolv.conf; test -S {0} && echo uncovered; cat /etc/resolv.conf",
        path.display()
    );
    let seen = text(&shell(&format!("unshare -Urnm sh -c '{uncover}'; {uncover}")));
    assert!(!seen.contains("uncovered"), "{seen}");
    assert!(seen.contains("nameserver 127.0.0.1"), "{seen}");
    let control = Command::new("sh").args(["-c", &uncover]).output().unwrap();
    assert!(text(&control).contains("uncovered"), "the negative control: {}", text(&control));
}

#[test]
fn a_unix_socket_is_closed_unless_it_is_named() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = place.path().join("engine.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let connects = |arguments: &[&str]| {
        let mut command = sidegate(arguments);
        command.arg("--").arg(std::env::current_exe().unwrap());
        command.args(["--exact", "connects_to_the_unix_socket"]).env("PROBE_SOCKET", &path);
        command.output().unwrap().status.success()
    };
    assert!(!connects(&[]));
    assert!(connects(&["--allow-socket", path.to_str().unwrap()]), "the negative control");
}

/// A probe: passes by itself, and is run behind the gate by the test above.
#[test]
fn connects_to_the_unix_socket() {
    let place = tempfile::tempdir().unwrap();
    let own = place.path().join("own.sock");
    let _listener = UnixListener::bind(&own).unwrap();
    let path = std::env::var_os("PROBE_SOCKET").map_or(own, Into::into);
    UnixStream::connect::<&Path>(path.as_ref()).unwrap();
}

/// Prints the socket families beside local, internet, netlink, packet and crypto that the kernel knows, and then the
/// error number of `io_uring_setup`.
const OTHER_CALLS: &str = "import ctypes, socket
def known(family):
    try: socket.socket(family, socket.SOCK_STREAM)
    except OSError as refused: return refused.errno != 97
    return True
print(*[family for family in range(1, 64) if family not in (1, 2, 10, 16, 17, 38) and known(family)])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 8, 0)
print(ctypes.get_errno())";

#[test]
fn vsock_its_like_and_io_uring_are_absent() {
    let inside = sidegate(&["--", "python3", "-c", OTHER_CALLS]).output().unwrap();
    assert_eq!(text(&inside), "\n38\n", "ENOSYS and no family");
    let outside = text(&Command::new("python3").args(["-c", OTHER_CALLS]).output().unwrap());
    let (families, ring) = outside.split_once('\n').unwrap();
    assert!(!families.is_empty() && ring != "38\n", "the negative control: {outside}");
}
