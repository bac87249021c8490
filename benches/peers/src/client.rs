//! The near end: bulk, small exchanges, new connections, idle connections.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use clap::Subcommand;
use serde_json::json;

use crate::{hello, origin};

/// One kind of load.
#[derive(Subcommand)]
pub(crate) enum Load {
    /// Downloads over a few connections.
    Bulk {
        /// Origin.
        #[arg(long)]
        to: IpAddr,
        /// Bytes in total.
        #[arg(long)]
        bytes: u64,
        /// Connections side by side.
        #[arg(long, default_value_t = 2)]
        connections: u64,
    },
    /// Request and answer of 64 bytes each.
    Small {
        /// Origin.
        #[arg(long)]
        to: IpAddr,
        /// Exchanges in total.
        #[arg(long)]
        exchanges: u64,
        /// Connections side by side.
        #[arg(long, default_value_t = 16)]
        connections: u64,
    },
    /// New connections with a ClientHello and a ServerHello.
    New {
        /// Origins, taken in turn.
        #[arg(long, required = true)]
        to: Vec<IpAddr>,
        /// Let the origin close first instead of the client.
        #[arg(long)]
        origin_closes: bool,
        /// Server name.
        #[arg(long)]
        host: String,
        /// Connections in total.
        #[arg(long)]
        count: u64,
        /// Connections side by side.
        #[arg(long, default_value_t = 8)]
        connections: u64,
    },
    /// New connections with one exchange of 64 bytes each.
    Connect {
        /// Origin.
        #[arg(long)]
        to: IpAddr,
        /// Connections in total.
        #[arg(long)]
        count: u64,
        /// Connections side by side.
        #[arg(long, default_value_t = 8)]
        connections: u64,
    },
    /// Requests over connections that are kept.
    Http {
        /// Origin.
        #[arg(long)]
        to: IpAddr,
        /// Its port.
        #[arg(long)]
        port: u16,
        /// Whom the requests are for.
        #[arg(long)]
        host: String,
        /// Requests in total.
        #[arg(long)]
        requests: u64,
        /// Connections side by side.
        #[arg(long, default_value_t = 16)]
        connections: u64,
    },
    /// Opens connections, moves one byte both ways on each, prints a line, and holds them until standard input ends.
    Idle {
        /// Origin.
        #[arg(long)]
        to: IpAddr,
        /// Connections.
        #[arg(long)]
        count: usize,
    },
}

/// Makes the load, prints what it did and how long single operations took.
pub(crate) fn run(load: &Load) -> io::Result<()> {
    match load {
        Load::Bulk { to, bytes, connections } => {
            let share = bytes / connections;
            let taken = parallel(*connections, |_| bulk((*to, origin::BULK).into(), share))?;
            report(&taken, share * connections)
        }
        Load::Small { to, exchanges, connections } => {
            let share = exchanges / connections;
            let taken = parallel(*connections, |_| small((*to, origin::ECHO).into(), share))?;
            report(&taken, share * connections)
        }
        Load::New { to, origin_closes, host, count, connections } => {
            let share = count / connections;
            let greeting = hello::client_hello(host);
            let port = if *origin_closes { origin::TLS_CLOSES } else { origin::TLS };
            let ends: Vec<SocketAddr> = to.iter().map(|&to| (to, port).into()).collect();
            let taken = parallel(*connections, |_| new(&ends, *origin_closes, &greeting, share))?;
            report(&taken, share * connections)
        }
        Load::Connect { to, count, connections } => {
            let share = count / connections;
            let to = (*to, origin::ECHO).into();
            let once = || small(to, 1);
            let all =
                |_| (0..share).map(|_| once()).collect::<io::Result<Vec<_>>>().map(|each| each.concat());
            let taken = parallel(*connections, all)?;
            report(&taken, share * connections)
        }
        Load::Http { to, port, host, requests, connections } => {
            let share = requests / connections;
            let request = format!(
                "GET /item/7 HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
            );
            let taken = parallel(*connections, |_| http((*to, *port).into(), request.as_bytes(), share))?;
            report(&taken, share * connections)
        }
        Load::Idle { to, count } => idle((*to, origin::HOLD).into(), *count),
    }
}

struct Taken {
    wall: Duration,
    each: Vec<Duration>,
}

fn parallel(threads: u64, work: impl Fn(u64) -> io::Result<Vec<Duration>> + Sync) -> io::Result<Taken> {
    let start = Instant::now();
    let mut each = Vec::new();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|index| {
                scope.spawn({
                    let work = &work;
                    move || work(index)
                })
            })
            .collect();
        for thread in running {
            each.extend(thread.join().map_err(|_| io::Error::other("a load thread died"))??);
        }
        Ok::<_, io::Error>(())
    })?;
    Ok(Taken { wall: start.elapsed(), each })
}

fn report(taken: &Taken, operations: u64) -> io::Result<()> {
    let mut each = taken.each.clone();
    each.sort_unstable();
    let at = |part: f64| {
        let index = (each.len() as f64 * part) as usize;
        each.get(index.min(each.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let line = json!({
        "operations": operations, "wallSeconds": taken.wall.as_secs_f64(),
        "p50Ms": at(0.50), "p99Ms": at(0.99), "maxMs": at(1.0),
        "over900Ms": each.iter().filter(|time| time.as_millis() >= 900).count(),
    });
    writeln!(io::stdout(), "{line}")
}

fn bulk(to: SocketAddr, bytes: u64) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&bytes.to_be_bytes())?;
    let mut buffer = vec![0; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::Error::other(format!("{left} bytes are missing")));
        }
        left -= read as u64;
    }
    Ok(Vec::new())
}

fn small(to: SocketAddr, exchanges: u64) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut buffer = [0x61; 64];
    (0..exchanges)
        .map(|_| {
            let start = Instant::now();
            stream.write_all(&buffer)?;
            stream.read_exact(&mut buffer)?;
            Ok(start.elapsed())
        })
        .collect()
}

fn http(to: SocketAddr, request: &[u8], requests: u64) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(4096);
    (0..requests)
        .map(|_| {
            let start = Instant::now();
            stream.write_all(request)?;
            read_answer(&mut stream, &mut answer)?;
            Ok(start.elapsed())
        })
        .collect()
}

/// One answer of a stated length, and no byte more.
fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::Error::other("the connection ended before the answer did"));
        }
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(answer.get(..head).unwrap_or_default()).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200 ") {
            return Err(io::Error::other(format!("answered {}", text.lines().next().unwrap_or_default())));
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize =
            length.and_then(|length| length.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        match answer.len().cmp(&(head + 4 + length)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => return Err(io::Error::other("more bytes than the answer has")),
        }
    }
}

fn new(ends: &[SocketAddr], origin_closes: bool, greeting: &[u8], count: u64) -> io::Result<Vec<Duration>> {
    let mut buffer = vec![0; hello::server_hello().len()];
    ends.iter()
        .cycle()
        .zip(0..count)
        .map(|(to, _)| {
            let start = Instant::now();
            let mut stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            stream.write_all(greeting)?;
            stream.read_exact(&mut buffer)?;
            if origin_closes && stream.read(&mut [0])? != 0 {
                return Err(io::Error::other("bytes after the greeting"));
            }
            drop(stream);
            Ok(start.elapsed())
        })
        .collect()
}

fn idle(to: SocketAddr, count: usize) -> io::Result<()> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(to)?;
        let mut byte = [1];
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        held.push(stream);
    }
    writeln!(io::stdout(), "{}", json!({ "held": held.len() }))?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
