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
