//! What a command might reach although its network is its own: kernel settings, inherited sockets, the proxy's ports.
#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

use std::{
    fs::OpenOptions,
    net::UdpSocket,
    os::fd::OwnedFd,
    process::{Command, Output},
    time::Duration,
};

fn gated(script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(["run", "--quiet", "--", "python3", "-c", script]);
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn kernel_settings_are_sealed_even_for_root() {
    let setting = "/proc/sys/kernel/core_pattern";
    let control = OpenOptions::new().write(true).open(setting).is_ok();
    assert_eq!(
        control,
        rustix::process::geteuid().is_root(),
        "the negative control: root may write it outside"
    );
    let script = "import os\ntry:\n os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY); print('open')\nexcept OSError as e:\n print('closed')";
    let output = gated(script).output().unwrap();
    assert_eq!(said(&output).trim(), "closed");
}

#[test]
fn an_inherited_network_socket_is_closed_to_the_command() {
    let (far, near) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    near.connect(far.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let send = "import os\ntry:\n os.write(0, b'leak')\nexcept OSError: pass";
    let mut heard = [0; 8];

    let outside =
        Command::new("python3").args(["-c", send]).stdin(OwnedFd::from(near.try_clone().unwrap())).status();
    assert!(outside.unwrap().success());
    assert_eq!(far.recv(&mut heard).unwrap(), 4, "the negative control: outside the gate it leaves");

    let output = gated(send).stdin(OwnedFd::from(near)).output().unwrap();
    assert!(
        output.status.success() && said(&output).contains("standard stream is a network socket"),
        "{}",
        said(&output)
    );
    far.set_nonblocking(true).unwrap();
    assert!(far.recv(&mut heard).is_err(), "nothing left by the inherited socket");
}

/// Connects to the socket `$1` below standard input, and to the abstract datagram name `$2` by standard input itself.
const BY_INPUT: &str = "
import os, socket, sys
def attempt(word, act):
    try: act(); print(word)
    except OSError: pass
attempt('below', lambda: socket.socket(socket.AF_UNIX).connect('/proc/self/fd/9/' + sys.argv[1]))
attempt('itself', lambda: socket.socket(socket.AF_UNIX).connect('/proc/self/fd/9'))
attempt('abstract', lambda: socket.socket(fileno=9).connect(chr(0) + sys.argv[2]))
print('tried')
";

#[test]
fn an_inherited_directory_path_or_datagram_socket_is_closed_to_the_command() {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    };

    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let name = format!("sidegate-sealed-{}", std::process::id());
    let _far = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let bare = |at: &std::path::Path| {
        rustix::fs::open(at, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap()
    };

    let inputs: [(&str, &dyn Fn() -> OwnedFd); 4] = [
        ("below", &|| std::fs::File::open(place.path()).unwrap().into()),
        ("below", &|| bare(place.path())),
        ("itself", &|| bare(&path)),
        ("abstract", &|| UnixDatagram::unbound().unwrap().into()),
    ];
    for (word, input) in inputs {
        // A shell in between: Python itself refuses to start with a directory as its input.
        let script = "exec 9<&0 </dev/null; exec python3 -c \"$0\" \"$@\"";
        let run = |start: &[&str]| {
            let (program, rest) = start.split_first().unwrap();
            let mut command = Command::new(program);
            command.args(rest).args(["sh", "-c", script, BY_INPUT, "s", &name]);
            said(&command.stdin(input()).output().unwrap())
        };
        assert_eq!(run(&["env"]), format!("{word}\ntried\n"), "the negative control");
        let inside = run(&[env!("CARGO_BIN_EXE_sidegate"), "run", "--quiet", "--"]);
        assert!(inside.starts_with("sidegate: a standard stream") || inside.starts_with("tried"), "{inside}");
        assert!(inside.contains("tried") && !inside.contains(&format!("{word}\n")), "{word}: {inside}");
    }
}

#[test]
fn the_command_can_not_share_the_proxys_ports() {
    let script = "
import socket
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    for kind, port in ((socket.SOCK_STREAM, 15001), (socket.SOCK_STREAM, 15053), (socket.SOCK_DGRAM, 15053)):
        s = socket.socket(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port)); print('bound', host, port)
        except OSError as e:
            print('taken')
";
    let output = gated(script).output().unwrap();
    assert_eq!(said(&output), "taken\n".repeat(6));
}
