//! The demo's application: it tries, and tells what it saw.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};

use super::{
    attempts::{self, Act},
    world::{API, WELCOME},
};

/// Longest wait for anything. Denials come at once; this only bounds a fault.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the application saw of one attempt, one JSON line on standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// Index of the attempt.
    pub(super) attempt: usize,
    /// It got its answer.
    pub(super) succeeded: bool,
    /// In words.
    pub(super) saw: String,
}

/// Makes every attempt. `root`: the world's certificate in hexadecimal DER.
pub(super) fn run(root: &str) -> io::Result<()> {
    let tls = client(root)?;
    for (attempt, what) in attempts::all().into_iter().enumerate() {
        let outcome = act(what.act, &tls);
        let told = Told {
            attempt,
            succeeded: outcome.is_ok(),
            saw: outcome.unwrap_or_else(|error| in_short(&error)),
        };
        let mut line = serde_json::to_vec(&told)?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
        io::stdout().flush()?;
    }
    Ok(())
}

/// An error in few words, without the number that follows the system's.
pub(super) fn in_short(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => {
            "alert access_denied".to_owned()
        }
        Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => {
            "alert protocol_version".to_owned()
        }
        Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)) => "alert unknown_ca".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

fn client(root: &str) -> io::Result<Arc<ClientConfig>> {
    let der: Option<Vec<u8>> = (0..root.len() / 2)
        .map(|byte| u8::from_str_radix(root.get(byte * 2..byte * 2 + 2)?, 16).ok())
        .collect();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der.ok_or(io::ErrorKind::InvalidInput)?)).map_err(io::Error::other)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Believes what the run tells its command to believe.
fn client_of_run() -> io::Result<Arc<ClientConfig>> {
    let path = std::env::var_os("SSL_CERT_FILE").ok_or(io::ErrorKind::NotFound)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

fn act(act: Act, tls: &Arc<ClientConfig>) -> io::Result<String> {
    let server = SocketAddr::from((API, 443));
    match act {
        Act::Tls(address, name) => handshake(address, name, tls),
        Act::Plain(address) => {
            let mut stream = dial(address)?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: api.demo.test\r\n\r\n")?;
            first_words(stream)
        }
        Act::Datagram(address) => {
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(address)?;
            socket.send(&[0xc0; 1200])?;
            socket.recv(&mut [0; 16]).map(|_| "an answer".to_owned())
        }
        Act::Ask(server, name) => ask(server, name).map(|ip| format!("{ip}")),
        Act::ByName(name, port) => {
            let ip = ask(([127, 0, 0, 1], 53).into(), name)?;
            first_words(dial((ip, port).into())?)
        }
        Act::Listen(address) => first_words(dial(address)?),
        Act::Request { method, host, sealed: false } => request(dial(server)?, method, host),
        Act::Request { method, host, sealed: true } => {
            let name = host.try_into().map_err(io::Error::other)?;
            let connection = ClientConnection::new(client_of_run()?, name).map_err(io::Error::other)?;
            request(StreamOwned::new(connection, dial(server)?), method, host)
        }
        Act::Icmp => {
            use rustix::net::{AddressFamily, SocketType, ipproto};
            rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).or_else(|_| {
                rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP))
            })?;
            Ok("a socket".to_owned())
        }
    }
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn handshake(address: SocketAddr, name: &'static str, tls: &Arc<ClientConfig>) -> io::Result<String> {
    let name = name.try_into().map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, dial(address)?);
    stream.write_all(b"hello")?;
    let mut words = [0; WELCOME.len()];
    stream.read_exact(&mut words)?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}

/// The first line of the answer's body.
fn request(mut stream: impl Read + Write, method: &str, host: &str) -> io::Result<String> {
    write!(stream, "{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.lines().next().and_then(|line| line.split_once(' ')).map_or(head, |(_, status)| status);
    match status.starts_with("200") {
        true => Ok(body.lines().next().unwrap_or_default().to_owned()),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, status)),
    }
}

fn first_words(mut stream: TcpStream) -> io::Result<String> {
    let mut words = [0; 64];
    let length = stream.read(&mut words)?;
    let text = String::from_utf8_lossy(words.get(..length).unwrap_or_default()).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    if length == 0 {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a word"))
    } else if line.contains(" 403 ") {
        let status = line.split_once(' ').map_or(&*line, |(_version, status)| status);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, status))
    } else {
        Ok(line)
    }
}

fn ask(server: SocketAddr, name: &str) -> io::Result<IpAddr> {
    let mut question = Message::new(4711, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).map_err(io::Error::other)?, RecordType::A));
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&question.to_vec().map_err(io::Error::other)?)?;
    let mut datagram = [0; 1500];
    let length = socket.recv(&mut datagram)?;
    let answer = Message::from_vec(datagram.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(io::Error::new(io::ErrorKind::NotFound, words(answer.metadata.response_code)));
    }
    let address = answer.answers.iter().find_map(|record| match record.data {
        RData::A(ip) => Some(IpAddr::from(ip.0)),
        _ => None,
    });
    address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"))
}

fn words(code: ResponseCode) -> String {
    match code {
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => other.to_string(),
    }
}
