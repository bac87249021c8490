//! One question to one resolver: a fresh socket each time, a datagram first, a stream where it does not fit.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{
    answer::{Answer, Asked},
    resolver::Family,
};
use sidegate_policy::HostName;

/// Datagrams that don't match before the stub suspects guessing and asks over TCP, where guessing is hopeless.
const STRAY_DATAGRAMS: usize = 8;
/// Well above what the question invites; what is longer is cut off and fails to parse.
const DATAGRAM: usize = 4096;

/// Asks one resolver. The caller bounds the time.
///
/// # Errors
/// The socket's: no descriptor, no route, refused. [`Answer::Failed`] is the resolver's own failure.
pub(super) async fn ask(server: SocketAddr, host: &HostName, family: Family) -> io::Result<Answer> {
    match ask_udp(server, host, family).await? {
        Some(Answer::Truncated) | None => ask_tcp(server, host, family).await,
        Some(answer) => Ok(answer),
    }
}

/// `None`: too many datagrams came that were no answer to the question.
///
/// The socket lives for one question: the kernel draws its port at random (RFC 5452 section 9.2), and being connected it
/// takes datagrams from the asked resolver's address and port alone.
async fn ask_udp(server: SocketAddr, host: &HostName, family: Family) -> io::Result<Option<Answer>> {
    let Some((asked, question)) = question(host, family) else { return Ok(Some(Answer::Failed)) };
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..STRAY_DATAGRAMS {
        let length = socket.recv(&mut buffer).await?;
        if let Ok(answer) = asked.read(buffer.get(..length).unwrap_or_default()) {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

/// RFC 7766. The id is new: what was seen of the datagram's helps nobody.
async fn ask_tcp(server: SocketAddr, host: &HostName, family: Family) -> io::Result<Answer> {
    let Some((asked, question)) = question(host, family) else { return Ok(Answer::Failed) };
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    match asked.read(&answer) {
        Ok(Answer::Truncated) | Err(_) => Ok(Answer::Failed),
        Ok(answer) => Ok(answer),
    }
}

fn question(host: &HostName, family: Family) -> Option<(Asked, Vec<u8>)> {
    let asked = Asked::new(host, family)?;
    let bytes = asked.to_bytes()?;
    Some((asked, bytes))
}
