//! A real `sidegate-proxy serve` in a folder of its own, and the questions that tests put to it.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything; reached only when the test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A policy that gives `host` a synthetic address, without a question to any resolver.
pub(super) fn policy(name: &str, host: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: {name} }}
spec:
  egress:
    - name: server-first
      reason: \"its protocol lets the server speak first\"
      to: [ {{ hosts: [ {host} ] }} ]
      ports: [ 5432 ]
      protocol: tcp
      tls: {{ mode: none }}
"
    )
}

/// The configuration of a test: free ports, no redirect rules, `policies` below its folder.
pub(super) fn config(policies: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1
kind: ProxyConfig
policies: [ {policies} ]
listen: {{ outbound: 0, inbound: 0, mesh: 0, dns: 0, ready: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}
admin: {{ socket: admin.sock }}
state: state
redirect: {{ rules: none }}
resolvers: [ \"127.0.0.1:9\" ]
workers: 1
"
    )
}

/// Runs the binary to its end.
pub(super) fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidegate-proxy"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

/// A folder with a configuration in it.
pub(super) struct Place {
    folder: TempDir,
}

impl Place {
    pub(super) fn new(config: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a folder") };
        place.write("proxy.yaml", config);
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn config(&self) -> String {
        self.path("proxy.yaml").display().to_string()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it has a parent")).expect("the parent is made");
        fs::write(path, text).expect("it is written");
    }
}

/// A serving proxy, killed when dropped.
pub(super) struct Sidecar {
    child: Child,
    log: Receiver<Value>,
    records: Receiver<Value>,
    /// What the start line claims.
    pub(super) claim: String,
    pub(super) admin: PathBuf,
    pub(super) outbound: u16,
    pub(super) dns: u16,
    pub(super) ready: String,
    pub(super) metrics: String,
}

impl Sidecar {
    /// Starts and waits for the line that says so.
    pub(super) fn start(place: &Place) -> Sidecar {
        Sidecar::start_and(place, |_| true)
    }

    /// As [`Sidecar::start`], with a condition on the lines before.
    pub(super) fn start_and(place: &Place, expected: impl FnOnce(&[Value]) -> bool) -> Sidecar {
        Sidecar::start_by(place, Command::new(env!("CARGO_BIN_EXE_sidegate-proxy")), expected)
    }

    /// As [`Sidecar::start_and`], by a command that executes the proxy with the arguments it is given.
    pub(super) fn start_by(
        place: &Place,
        mut command: Command,
        expected: impl FnOnce(&[Value]) -> bool,
    ) -> Sidecar {
        let mut child = command
            .args(["serve", "--config", &place.config()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = lines(child.stderr.take().expect("a pipe"));
        let records = lines(child.stdout.take().expect("a pipe"));
        let (banner, before) = wait_for(&log, "serving");
        assert!(expected(&before), "the start said {before:#?}");
        let port =
            |name: &str| banner[name].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        let text = |name: &str| banner[name].as_str().expect("an address").to_owned();
        Sidecar {
            admin: place.path("admin.sock"),
            outbound: port("outbound"),
            dns: port("dns"),
            ready: text("ready"),
            metrics: text("metrics"),
            claim: text("message"),
            child,
            log,
            records,
        }
    }

    /// Waits for a log line whose message starts so.
    pub(super) fn logged(&self, start: &str) -> Value {
        wait_for(&self.log, start).0
    }

    /// The next access record.
    pub(super) fn record(&self) -> Value {
        self.records.recv_timeout(PATIENCE).expect("a record")
    }

    #[allow(dead_code, reason = "only the tests that look at its threads need it")]
    /// Its process id, where the command executed it in its own place.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it is told");
    }

    /// Waits for its end; the exit status.
    pub(super) fn ended(&mut self) -> Option<i32> {
        // The log ends with the process.
        while self.log.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().expect("it ended").code()
    }

    /// Status and body of a GET on the admin socket.
    pub(super) fn ask(&self, target: &str) -> (u16, String) {
        exchange(UnixStream::connect(&self.admin).expect("the admin socket"), &get(target))
    }

    pub(super) fn ask_json(&self, target: &str) -> Value {
        let (_, body) = self.ask(target);
        serde_json::from_str(&body).expect("JSON")
    }

    /// Code and number of answers to a question for an A record.
    pub(super) fn resolve(&self, host: &str) -> (u8, u16) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        socket.send_to(&question(host), (Ipv4Addr::LOCALHOST, self.dns)).expect("it is sent");
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).expect("an answer");
        assert!(length >= 12 && answer[..2] == [0x5d, 0x6e], "an answer to the question");
        (answer[3] & 0xf, u16::from_be_bytes([answer[6], answer[7]]))
    }

    /// The last four bytes of the answer: the address of a single A record without additional ones.
    pub(super) fn address(&self, host: &str) -> Vec<u8> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        socket.send_to(&question(host), (Ipv4Addr::LOCALHOST, self.dns)).expect("it is sent");
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).expect("an answer");
        answer[length - 4..length].to_vec()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a GET at an address.
pub(super) fn fetch(address: &str, target: &str) -> (u16, String) {
    exchange(TcpStream::connect(address).expect("it listens"), &get(target))
}

/// Status and body of the answer to a request.
pub(super) fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// The repository's file at a path.
pub(super) fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path))
        .expect("the file is there")
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: sidegate\r\nConnection: close\r\n\r\n")
}

fn question(host: &str) -> Vec<u8> {
    let mut bytes = vec![0x5d, 0x6e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in host.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The JSON lines of a pipe, read by a thread that ends with it.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if sender.send(value).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The line whose message starts so, and those before it.
fn wait_for(log: &Receiver<Value>, start: &str) -> (Value, Vec<Value>) {
    let mut seen = Vec::new();
    loop {
        match log.recv_timeout(PATIENCE) {
            Ok(line) if line["message"].as_str().is_some_and(|message| message.starts_with(start)) => {
                return (line, seen);
            }
            Ok(line) => seen.push(line),
            Err(_) => panic!("no log line starts with `{start}`; these came: {seen:#?}"),
        }
    }
}
