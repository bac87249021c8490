//! The world of the demo: origin servers, a resolver and an attacker, in a network namespace without a way out.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record, RecordType},
};
use rustix::thread::UnshareFlags;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sidegate_proxy::{redirect, sys::namespace};

/// The TLS 1.3 origin.
pub(super) const API: Ipv4Addr = Ipv4Addr::new(93, 184, 10, 10);
/// The same origin over IPv6.
pub(super) const API_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2606, 0x2800, 0, 0, 0, 0, 0, 0x10);
/// The origin that speaks TLS 1.2 at most.
pub(super) const OLD: Ipv4Addr = Ipv4Addr::new(93, 184, 10, 12);
/// A database, which speaks first.
pub(super) const DATABASE: Ipv4Addr = Ipv4Addr::new(93, 184, 10, 54);
/// The resolver.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(93, 184, 10, 53);
/// Somebody who would like to be talked to.
pub(super) const ATTACKER: Ipv4Addr = Ipv4Addr::new(93, 184, 66, 66);
/// The cloud's credentials.
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Words that the database greets with.
pub(super) const GREETING: &[u8] = b"database ready\n";

/// What the real server says, and nobody else.
pub(super) const WELCOME: &[u8; 23] = b"welcome to the real API";
/// Answer to a visitor's request.
const PAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 24\r\nconnection: close\r\n\r\nwelcome to the real API\n";

/// What each inhabitant saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// TLS handshakes that the origin completed.
    pub(super) api: AtomicU64,
    /// Connections to the TLS 1.2 server, and the application bytes they brought.
    pub(super) old: AtomicU64,
    pub(super) old_bytes: AtomicU64,
    /// Connections to the database.
    pub(super) database: AtomicU64,
    /// Connections and datagrams to the attacker.
    pub(super) attacker: AtomicU64,
    /// Connections to the metadata address.
    pub(super) metadata: AtomicU64,
    /// Questions to the resolver for names that no rule allows.
    pub(super) forbidden_questions: AtomicU64,
    /// Questions to the resolver for allowed names.
    pub(super) questions: AtomicU64,
}

/// Moves this process into a user and network namespace of its own, where it may do as it likes.
pub(super) fn enter() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    namespace::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1\n"))?;
    redirect::prepare_loopback().map_err(|refused| refused.source)?;
    let addresses = [API, OLD, DATABASE, RESOLVER, ATTACKER, METADATA];
    for ip in addresses.map(IpAddr::from).into_iter().chain([API_V6.into()]) {
        redirect::links::add_local_address(ip).map_err(|refused| refused.source)?;
    }
    Ok(())
}

/// Starts everybody.
pub(super) fn populate(seen: &Arc<Seen>, tls: &Arc<ServerConfig>) -> io::Result<()> {
    for ip in [IpAddr::from(API), API_V6.into()] {
        let tls = Arc::clone(tls);
        serve((ip, 443).into(), seen, move |stream, seen| answer_tls(stream, &tls, &seen.api))?;
    }
    serve((OLD, 443).into(), seen, answer_tls12)?;
    serve((DATABASE, 5432).into(), seen, |mut stream, seen| {
        seen.database.fetch_add(1, Ordering::SeqCst);
        stream.write_all(GREETING)
    })?;
    serve((ATTACKER, 443).into(), seen, |_, seen| count(&seen.attacker))?;
    serve((METADATA, 80).into(), seen, |_, seen| count(&seen.metadata))?;
    for (ip, port) in [(ATTACKER, 53), (ATTACKER, 443), (API, 443)] {
        listen_datagrams((ip, port).into(), seen, |_, seen| {
            seen.attacker.fetch_add(1, Ordering::SeqCst);
            None
        })?;
    }
    listen_datagrams((RESOLVER, 53).into(), seen, resolve)
}

fn count(counter: &AtomicU64) -> io::Result<()> {
    counter.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

fn serve(
    address: SocketAddr,
    seen: &Arc<Seen>,
    answer: impl Fn(TcpStream, &Seen) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let seen = Arc::clone(seen);
    thread::Builder::new().name(address.to_string()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that breaks off is part of the show.
            let _ = answer(stream, &seen);
        }
    })?;
    Ok(())
}

fn listen_datagrams(
    address: SocketAddr,
    seen: &Arc<Seen>,
    answer: impl Fn(&[u8], &Seen) -> Option<Vec<u8>> + Send + 'static,
) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    let seen = Arc::clone(seen);
    thread::Builder::new().name(format!("udp {address}")).spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let reply = answer(datagram.get(..length).unwrap_or_default(), &seen);
            let _ = reply.map(|reply| socket.send_to(&reply, from));
        }
    })?;
    Ok(())
}

/// Over TLS 1.3: a greeting for a greeting, and a page for whoever asks for one.
fn answer_tls(stream: TcpStream, tls: &Arc<ServerConfig>, handshakes: &AtomicU64) -> io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut line = [0; 5];
    stream.read_exact(&mut line)?;
    handshakes.fetch_add(1, Ordering::SeqCst);
    stream.write_all(if line.starts_with(b"GET ") { PAGE } else { WELCOME })?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// Selects TLS 1.2 whatever the client offers, then counts what is sent after it. RFC 5246 section 7.4.1.3.
fn answer_tls12(mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    seen.old.fetch_add(1, Ordering::SeqCst);
    let mut hello = [0; 8192];
    if stream.read(&mut hello)? == 0 {
        return Ok(());
    }
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([0, 0xc0, 0x2f, 0]);
    let length = u8::try_from(body.len()).unwrap_or(0);
    let mut record = vec![0x16, 0x03, 0x03, 0, length + 4, 2, 0, 0, length];
    record.append(&mut body);
    stream.write_all(&record)?;
    let after = io::copy(&mut stream, &mut io::sink()).unwrap_or(0);
    // The alert that the proxy closes with is no application data.
    seen.old_bytes.fetch_add(if after <= 7 { 0 } else { after }, Ordering::SeqCst);
    Ok(())
}

fn resolve(question: &[u8], seen: &Seen) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let query = asked.queries.first()?.clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let v4 = match name.trim_end_matches('.') {
        "api.demo.test" | "plain.demo.test" | "seen.demo.test" => Some(API),
        "old.demo.test" => Some(OLD),
        "db.demo.test" => Some(DATABASE),
        _ => None,
    };
    match v4 {
        Some(_) => seen.questions.fetch_add(1, Ordering::SeqCst),
        None => seen.forbidden_questions.fetch_add(1, Ordering::SeqCst),
    };
    match (query.query_type(), v4) {
        (RecordType::A, Some(ip)) => {
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(ip.into())));
        }
        (RecordType::AAAA, Some(API)) => {
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::AAAA(API_V6.into())));
        }
        (_, Some(_)) => {}
        (_, None) => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_vec().ok()
}
