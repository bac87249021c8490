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

/// What the rule demands of the server's choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// TLS 1.2 will do, by a named exemption.
    pub(crate) min_tls12: bool,
    /// What falls short is recorded, not stopped.
    pub(crate) audit: bool,
}

/// A handshake that may go on, and the bytes that were held.
#[derive(Debug)]
pub(crate) struct Passed {
    /// The selected version, if it is one that a rule can demand.
    pub(crate) version: Option<TlsVersion>,
    /// The server refused by an alert; nothing more is relayed.
    pub(crate) over: bool,
    /// In audit: the demand that was not met.
    pub(crate) would_stop: Option<Reason>,
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
    demand: Demand,
) -> Result<Passed, Stopped> {
    let Early { bytes: mut hello_bytes, hello, .. } = early;
    let Some((hello, spans)) = hello else { return Err(refused(Reason::TlsRequired)) };
    let from_client = hello_bytes.split_off(spans.min(hello_bytes.len()));
    let mut handshake = Handshake::new(link, upstream, hello, from_client);
    handshake.send_up(&hello_bytes).await?;
    drop(hello_bytes);
    handshake.run(demand).await
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
    selected: Option<TlsVersion>,
}

/// How the watch ended well.
enum Selected {
    Version(TlsVersion),
    Alert,
}

impl<'a> Handshake<'a> {
    fn new(
        link: &'a mut Link,
        upstream: &'a mut TcpStream,
        hello: ClientHello,
        from_client: Vec<u8>,
    ) -> Self {
        Handshake {
            link,
            upstream,
            gate: ServerGate::new(hello),
            from_client,
            from_server: Vec::new(),
            released: 0,
            awaiting_second: false,
            selected: None,
        }
    }

    async fn run(mut self, demand: Demand) -> Result<Passed, Stopped> {
        let shown = self.watch(demand.min_tls12).await;
        let (version, over, would_stop) = match shown {
            Ok(Selected::Version(version)) => (Some(version), false, None),
            Ok(Selected::Alert) => (None, true, None),
            Err(Stopped { reason: Some(reason), .. }) if demand.audit => (self.selected, false, Some(reason)),
            Err(stopped) => return Err(stopped),
        };
        let Handshake { from_client, from_server, .. } = self;
        let (to_upstream, to_client) = if over { Default::default() } else { (from_client, from_server) };
        Ok(Passed { version, over, would_stop, to_upstream, to_client })
    }

    async fn watch(&mut self, min_tls12: bool) -> Result<Selected, Stopped> {
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
                    if let Some(selected) = self.judge(shown, min_tls12).await? {
                        return Ok(selected);
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

    /// `None`: there is more to watch.
    async fn judge(&mut self, shown: Shown, min_tls12: bool) -> Result<Option<Selected>, Stopped> {
        self.selected = match shown {
            Shown::Tls13 => Some(TlsVersion::Tls13),
            Shown::Tls12 => Some(TlsVersion::Tls12),
            _ => None,
        };
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
            Shown::Tls13 => Ok(Some(Selected::Version(TlsVersion::Tls13))),
            Shown::Tls12 if min_tls12 => Ok(Some(Selected::Version(TlsVersion::Tls12))),
            Shown::Tls12 | Shown::Older => Err(refused(Reason::TlsVersionServer)),
            Shown::Alert => {
                self.release().await?;
                Ok(Some(Selected::Alert))
            }
            Shown::Malformed => Err(refused(Reason::UpstreamMalformed)),
        }
    }

    /// Gives the gate the client's bytes from `from` on; once the second hello is whole, forwards up to its end.
    async fn second_hello(&mut self, from: usize) -> Result<(), Stopped> {
        let fresh = self.from_client.get(from..).unwrap_or_default();
        match self.gate.push_client(fresh) {
            Ok(false) if self.from_client.len() < CLIENT_BYTES => Ok(()),
            Ok(true) => {
                let beyond = self.from_client.split_off(self.gate.second_ends().min(self.from_client.len()));
                let bytes = std::mem::replace(&mut self.from_client, beyond);
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
}

fn refused(reason: Reason) -> Stopped {
    Stopped { reason: Some(reason), close: CloseReason::TlsRefused }
}

fn vanished(close: CloseReason) -> Stopped {
    Stopped { reason: None, close }
}
