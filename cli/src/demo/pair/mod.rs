//! The second scene: two workloads that speak plaintext, and what passes between them on the wire.

mod cast;
mod wire;
mod workload;

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned};
use sidegate_api::AccessRecord;
use sidegate_certs::{
    Identity, TrustBundle, TrustStore,
    tls::{TrustCell, mesh_client, system_time},
};
use sidegate_policy::SpiffeId;

use cast::{Folder, ORDERS, ORDERS_ADDRESS, ORDERS_POLICY, PLAIN_PORT, PORT, STRANGER, WEB, WEB_POLICY};
use wire::Wire;
pub(super) use workload::run as be_workload;
use workload::{ANSWER, Workload};

use super::report;

/// The port of the mesh.
const MESH: u16 = 15008;
/// Longest wait for an answer or a record; both come at once, this only bounds a fault.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks `orders` for something, and how.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// `web`, behind its own proxy: a method, in plaintext.
    Web(&'static str),
    /// Somebody without a proxy, in plaintext, at a port.
    Bare(u16),
    /// Somebody without a proxy, with a certificate of his own, at the port of the mesh.
    Stranger,
}

/// One attempt and what `orders` must record of it.
struct Attempt {
    title: &'static str,
    who: Who,
    verdict: &'static str,
    reason: &'static str,
}

const ATTEMPTS: [Attempt; 5] = [
    Attempt { title: "web asks: GET", who: Who::Web("GET"), verdict: "allowed", reason: "rule-allows" },
    Attempt { title: "web asks: POST", who: Who::Web("POST"), verdict: "denied", reason: "http-not-allowed" },
    Attempt {
        title: "plaintext past the mesh",
        who: Who::Bare(PORT),
        verdict: "denied",
        reason: "mesh-required",
    },
    Attempt {
        title: "a stranger's certificate as web",
        who: Who::Stranger,
        verdict: "denied",
        reason: "peer-certificate",
    },
    Attempt {
        title: "the exempted status port",
        who: Who::Bare(PLAIN_PORT),
        verdict: "allowed",
        reason: "rule-allows",
    },
];

/// Plays it; true when everything went as expected.
pub(super) fn play() -> io::Result<bool> {
    let folder = Folder::make()?;
    let wire = Wire::tap(ORDERS_ADDRESS)?;
    let mut workload = Workload::start(&folder)?;
    let records = listen(&mut workload)?;
    report::second_opening(WEB_POLICY, ORDERS_POLICY)?;
    let mut expected = true;
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        let saw = ask(attempt.who, &folder);
        let record = records.recv_timeout(PATIENCE).ok();
        let got = record.as_ref().map(|record| (record.verdict.clone(), record.reason.clone()));
        let wanted = (attempt.verdict, attempt.reason);
        let right =
            got.as_ref().is_some_and(|(verdict, reason)| (verdict.as_str(), reason.as_str()) == wanted)
                && proven(attempt.who, record.as_ref());
        let row = report::Row { number, title: attempt.title, got, wanted };
        expected &=
            report::second_row(&row, right && answered(&saw) == (attempt.verdict == "allowed"), &saw)?;
    }
    let (sealed, open) = (wire.overheard(MESH, ANSWER), wire.overheard(PLAIN_PORT, ANSWER));
    expected &= report::wire(
        &[
            ("between the proxies: TLS alone", sealed.tls, true),
            ("  the answer could be read there", sealed.words > 0, false),
            ("at the exempted port, to compare: the answer could be read", open.words > 0, true),
        ],
        sealed.packets,
    )?;
    Ok(expected)
}

/// A stream that only `web` gets carries who it is, over TLS 1.3.
fn proven(who: Who, record: Option<&AccessRecord>) -> bool {
    let tls = record.and_then(|record| record.tls.as_ref());
    match who {
        Who::Web(_) => {
            tls.is_some_and(|tls| tls.version.as_deref() == Some("1.3") && tls.peer.as_deref() == Some(WEB))
        }
        Who::Bare(_) => tls.is_none(),
        Who::Stranger => true,
    }
}

fn answered(saw: &str) -> bool {
    saw.as_bytes() == ANSWER
}

/// The access records of `orders` as they come.
fn listen(workload: &mut Workload) -> io::Result<mpsc::Receiver<AccessRecord>> {
    let records = workload.records.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("records".to_owned()).spawn(move || {
        for line in records.lines().map_while(Result::ok) {
            let Ok(record) = serde_json::from_str::<AccessRecord>(&line) else { continue };
            // Whether it is ready was asked, too.
            let asked = record.original_dst.is_some_and(|to| to.port() == 15021);
            if !asked && sender.send(record).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// What whoever asks gets to see.
fn ask(who: Who, folder: &Folder) -> String {
    let saw = match who {
        Who::Web(method) => ask_as_web(method, folder),
        Who::Bare(port) => request("GET", port),
        Who::Stranger => shake_hands(folder),
    };
    saw.unwrap_or_else(|error| super::app::in_short(&error))
}

fn ask_as_web(method: &str, folder: &Folder) -> io::Result<String> {
    let own = std::env::current_exe()?;
    let output = Command::new(&own)
        .args(["run", "--quiet", "--resolver", "10.77.0.1", "--policy"])
        .arg(folder.path("web.yaml"))
        .arg("--identity")
        .arg(folder.path("web"))
        .arg("--peers")
        .arg(folder.path("peers.yaml"))
        .arg("--")
        .arg(&own)
        .args(["demo", "--ask", method])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Is the application of `web`: asks, and prints what it sees.
pub(super) fn be_web(method: &str) -> io::Result<()> {
    let saw = request(method, PORT).unwrap_or_else(|error| super::app::in_short(&error));
    writeln!(io::stdout(), "{saw}")
}

/// The body of an answer with status 200, else the status.
fn request(method: &str, port: u16) -> io::Result<String> {
    let mut stream = dial(port)?;
    write!(
        stream,
        "{method} /orders/4711 HTTP/1.1\r\nHost: {ORDERS_ADDRESS}:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a word"))?;
    let status = head.lines().next().and_then(|line| line.split_once(' ')).map_or(head, |(_, status)| status);
    Ok(if status.starts_with("200") { body.to_owned() } else { status.to_owned() })
}

fn dial(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((ORDERS_ADDRESS, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A handshake at the port of the mesh: the stranger believes `orders`, and shows a certificate of his own.
fn shake_hands(folder: &Folder) -> io::Result<String> {
    let read = |name: &str| fs::read(folder.path(STRANGER).join(name));
    let identity = Identity::from_pem(&read("tls.crt")?, &read("tls.key")?).map_err(io::Error::other)?;
    let orders = SpiffeId::parse(ORDERS).map_err(io::Error::other)?;
    let roots = fs::read(folder.path("orders").join("ca.crt"))?;
    let bundle = TrustBundle::from_pem(orders.trust_domain(), &roots).map_err(io::Error::other)?;
    let trust = Arc::new(TrustCell::new(TrustStore::new([bundle])));
    let config = mesh_client(&identity, trust, orders, system_time()).map_err(io::Error::other)?;
    let name = IpAddr::from(ORDERS_ADDRESS).into();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, dial(MESH)?);
    // In TLS 1.3 the client has finished before its certificate is judged: the word comes with the first read.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.read_exact(&mut [0; 9])?;
    Ok("an answer".to_owned())
}
