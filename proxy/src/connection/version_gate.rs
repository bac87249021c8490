//! Passthrough with a demand: the server's bytes are held until they show that it selected an allowed TLS version.

use sidegate_api::CloseReason;
use sidegate_policy::Reason;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{decide::TlsVersion, link::Link, observe::Early, scratch::read_more};
use crate::tls::{
    client_hello::ClientHello,
    server_gate::{ServerGate, Shown},
};

/// Most bytes of the client that are held while the server has not answered: early data, a second hello.
const CLIENT_BYTES: usize = 64 * 1024;

/// A handshake that may go on, and the bytes that were held.
#[derive(Debug)]
pub(crate) struct Passed {
    /// The selected version; `None`: the server refused by an alert and said no more.
    pub(crate) version: Option<TlsVersion>,
    pub(crate) to_upstream: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
}

/// A handshake that must not go on.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// `None`: an end of the connection vanished; nothing was refused.
    pub(crate) reason: Option<Reason>,
    pub(crate) close: CloseReason,
}

/// Forwards the hello, then nothing from the server but a HelloRetryRequest until it shows its version, and nothing
/// more from the client but a second hello that names the same host.
pub(crate) async fn pass_version(
    link: &mut Link,
    upstream: &mut TcpStream,
    early: Early,
    min_tls12: bool,
) -> Result<Passed, Stopped> {
    let Early { bytes: mut hello_bytes, hello } = early;
    let Some((hello, spans)) = hello else { return Err(refused(Reason::TlsRequired)) };
    let from_client = hello_bytes.split_off(spans.min(hello_bytes.len()));
    let mut handshake = Handshake::new(link, upstream, hello, from_client);
    handshake.send_up(&hello_bytes).await?;
    drop(hello_bytes);
    handshake.run(min_tls12).await
}

struct Handshake<'a> {
    link: &'a mut Link,
    upstream: &'a mut TcpStream,
    gate: ServerGate,
    /// Held, in order of arrival.
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    /// Bytes of the server that went to the client already.
    released: usize,
    /// The server asked again: the client's bytes go to the gate until its second hello is whole.
    awaiting_second: bool,
}

impl<'a> Handshake<'a> {
    fn new(link: &'a mut Link, upstream: &'a mut TcpStream, hello: ClientHello, from_client: Vec<u8>) -> Self {
        Handshake {
            link,
            upstream,
            gate: ServerGate::new(hello),
            from_client,
            from_server: Vec::new(),
            released: 0,
            awaiting_second: false,
        }
    }

    async fn run(mut self, min_tls12: bool) -> Result<Passed, Stopped> {
        loop {
            let (server_had, client_had) = (self.from_server.len(), self.from_client.len());
            let room = CLIENT_BYTES.saturating_sub(client_had);
            tokio::select! {
                read = read_more(self.upstream, CLIENT_BYTES, &mut self.from_server) => {
                    if !matches!(read, Ok(1..)) {
                        return Err(vanished(CloseReason::UpstreamReset));
                    }
                    self.link.record.entry.touch();
                    let shown = self.gate.push_server(self.from_server.get(server_had..).unwrap_or_default());
                    if let Some(version) = self.judge(shown, min_tls12).await? {
                        return Ok(self.passed(version));
                    }
                }
                read = read_more(&mut self.link.client, room, &mut self.from_client), if room > 0 => {
                    if !matches!(read, Ok(1..)) {
                        return Err(vanished(CloseReason::ClientReset));
                    }
                    self.link.record.entry.touch();
                    if self.awaiting_second {
                        self.second_hello(client_had).await?;
                    }
                }
            }
        }
    }

    /// `Some`: the handshake may go on without being watched; `Some(None)`: it ended in an alert.
    async fn judge(&mut self, shown: Shown, min_tls12: bool) -> Result<Option<Option<TlsVersion>>, Stopped> {
        match shown {
            Shown::Undecided => Ok(None),
            Shown::Retry => {
                self.release().await?;
                self.awaiting_second = true;
                self.second_hello(0).await?;
                Ok(None)
            }
            // Its answer to a second hello that was not let through: not a handshake we follow.
            Shown::Tls13 | Shown::Tls12 if self.awaiting_second => Err(refused(Reason::UpstreamMalformed)),
            Shown::Tls13 => Ok(Some(Some(TlsVersion::Tls13))),
            Shown::Tls12 if min_tls12 => Ok(Some(Some(TlsVersion::Tls12))),
            Shown::Tls12 | Shown::Older => Err(refused(Reason::TlsVersionServer)),
            Shown::Alert => {
                self.release().await?;
                Ok(Some(None))
            }
            Shown::Malformed => Err(refused(Reason::UpstreamMalformed)),
        }
    }

    /// Gives the gate the client's bytes from `from` on; forwards them all once the second hello is whole.
    async fn second_hello(&mut self, from: usize) -> Result<(), Stopped> {
        let fresh = self.from_client.get(from..).unwrap_or_default();
        match self.gate.push_client(fresh) {
            Ok(false) if self.from_client.len() < CLIENT_BYTES => Ok(()),
            Ok(true) => {
                let bytes = std::mem::take(&mut self.from_client);
                self.awaiting_second = false;
                self.send_up(&bytes).await
            }
            Ok(false) | Err(_) => Err(refused(Reason::TlsSecondHello)),
        }
    }

    /// Sends the client what the gate lets pass, and no byte beyond.
    async fn release(&mut self) -> Result<(), Stopped> {
        let count = self.gate.releasable().saturating_sub(self.released).min(self.from_server.len());
        let bytes: Vec<u8> = self.from_server.drain(..count).collect();
        self.released += count;
        self.link.client.write_all(&bytes).await.map_err(|_| vanished(CloseReason::ClientReset))?;
        self.link.record.received += count as u64;
        Ok(())
    }

    async fn send_up(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.upstream.write_all(bytes).await.map_err(|_| vanished(CloseReason::UpstreamReset))?;
        self.link.record.sent += bytes.len() as u64;
        Ok(())
    }

    fn passed(self, version: Option<TlsVersion>) -> Passed {
        let (to_upstream, to_client) = match version {
            Some(_) => (self.from_client, self.from_server),
            None => (Vec::new(), Vec::new()),
        };
        Passed { version, to_upstream, to_client }
    }
}

fn refused(reason: Reason) -> Stopped {
    Stopped { reason: Some(reason), close: CloseReason::TlsRefused }
}

fn vanished(close: CloseReason) -> Stopped {
    Stopped { reason: None, close }
}
