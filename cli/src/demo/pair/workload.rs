//! The workload `orders`: an application that knows of no TLS, and the sidecar that stands before it, in a network
//! namespace of their own.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    thread::UnshareFlags,
};
use sidegate_proxy::{
    redirect::{PROXY_UID, links::veth, prepare_loopback},
    sidecar::{self, Config},
    sys::namespace,
};

use super::cast::{Folder, NEAR_ADDRESS, ORDERS_ADDRESS, PLAIN_PORT, PORT};

/// Its device, and ours.
const FAR: &str = "eth0";
const NEAR: &str = "orders0";
/// Words between the demo and the workload.
const APART: &str = "apart";
const JOINED: &str = "joined";
/// What the application answers.
pub(super) const ANSWER: &[u8] = b"order 4711: two lamps";
/// How long the sidecar may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The running workload; killed when dropped.
pub(super) struct Workload {
    child: Child,
    /// Its access records, line by line.
    pub(super) records: Option<BufReader<ChildStdout>>,
}

impl Workload {
    /// Starts it, joins its network to this one, and waits until its sidecar is ready.
    pub(super) fn start(folder: &Folder) -> io::Result<Workload> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["demo", "--workload"])
            .arg(folder.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut records = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut words = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut workload = Workload { child, records: None };
        let mut line = String::new();
        records.read_line(&mut line)?;
        if line.trim_end() != APART {
            return Err(io::Error::other("the second workload can't have a network of its own"));
        }
        veth::join(NEAR, FAR, workload.child.id()).map_err(io::Error::other)?;
        veth::bring_up(NEAR, NEAR_ADDRESS.into(), 24).map_err(io::Error::other)?;
        writeln!(words, "{JOINED}")?;
        workload.records = Some(records);
        workload.await_ready()?;
        Ok(workload)
    }

    /// Waits for its next word or its end, a moment at most.
    fn await_word(&self) -> io::Result<()> {
        let Some(records) = &self.records else { return Ok(()) };
        let mut word = [PollFd::new(records.get_ref(), PollFlags::IN)];
        match poll(&mut word, Some(&AGAIN)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn await_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the second workload ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the second workload's sidecar does not get ready"));
            }
            self.await_word()?;
        }
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready() -> bool {
    let Ok(mut stream) = TcpStream::connect((ORDERS_ADDRESS, 15021)) else { return false };
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET /ready HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

/// Is the workload: never returns in order.
pub(in super::super) fn run(folder: &Path) -> io::Result<()> {
    // Whatever becomes of the demo, nothing of it stays.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    apart()?;
    let mut out = io::stdout();
    writeln!(out, "{APART}")?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    if line.trim_end() != JOINED {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    prepare_loopback().map_err(io::Error::other)?;
    veth::bring_up(FAR, ORDERS_ADDRESS.into(), 24).map_err(io::Error::other)?;
    for port in [PORT, PLAIN_PORT] {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        thread::Builder::new().name(format!("app-{port}")).spawn(move || answer_all(&listener))?;
    }
    let config = Config::load(&folder.join("proxy.yaml")).map_err(|wrong| {
        io::Error::other(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    sidecar::serve(config).map_err(io::Error::other)
}

/// Into namespaces of its own, where it is the proxy's user.
fn apart() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    namespace::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{PROXY_UID} {user} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("{PROXY_UID} {group} 1\n"))
}

/// Plaintext HTTP/1.1: the same words for every request.
fn answer_all(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER.len())?;
            stream.write_all(ANSWER)?;
        }
    }
}
