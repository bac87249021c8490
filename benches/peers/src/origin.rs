//! The far end: one thread a connection is enough, its CPU time is not counted.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use crate::hello;

/// Port that sends as many bytes as the client asks for with an 8-byte big-endian number.
pub(crate) const BULK: u16 = 9000;
/// Port that echoes.
pub(crate) const ECHO: u16 = 9001;
/// Port that reads one byte, answers it and holds the connection open.
pub(crate) const HOLD: u16 = 9002;
/// Port that answers a ClientHello with a ServerHello and closes when the client does.
pub(crate) const TLS: u16 = 443;

type Part = fn(TcpStream) -> io::Result<()>;

/// Port that does the same, but closes first.
pub(crate) const TLS_CLOSES: u16 = 8443;

/// Serves the five ports until killed.
pub(crate) fn serve() -> io::Result<()> {
    let parts: [(u16, Part); 5] =
        [(BULK, bulk), (ECHO, echo), (HOLD, echo), (TLS, greet), (TLS_CLOSES, greet_and_close)];
    let mut threads = Vec::new();
    for (port, part) in parts {
        let listener = crate::relay::listen((std::net::Ipv6Addr::UNSPECIFIED, port).into())?;
        threads.push(thread::spawn(move || accept(&listener, part)));
    }
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn accept(listener: &TcpListener, part: Part) {
    for stream in listener.incoming().flatten() {
        let _ = thread::Builder::new().stack_size(64 * 1024).spawn(move || part(stream));
    }
}

fn bulk(mut stream: TcpStream) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let mut left = u64::from_be_bytes(wanted);
    let chunk = vec![0x5a; 256 * 1024];
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        stream.write_all(chunk.get(..now).unwrap_or(&chunk))?;
        left -= now as u64;
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..read).unwrap_or(&[]))?;
    }
}

fn greet(mut stream: TcpStream) -> io::Result<()> {
    greet_once(&mut stream)?;
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

fn greet_and_close(mut stream: TcpStream) -> io::Result<()> {
    greet_once(&mut stream)
}

fn greet_once(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut body)?;
    stream.write_all(&hello::server_hello())
}
