//! Opening a workload's TLS where a rule says `inspect`: the server is verified first, then a certificate is minted.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use pingora_limits::rate::Rate;
use pingora_memory_cache::MemoryCache;
use rustls::ServerConfig;
use sidegate_certs::{
    InspectionAuthority, UnixTime,
    tls::{H2, HTTP1, system_time},
};
use sidegate_policy::{HostName, Reason};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::origins::public_roots_pem;

/// Hosts whose minted certificate is kept.
const HOSTS: usize = 1024;
/// How long one is used: half of its life.
const KEPT: Duration = Duration::from_secs(30 * 60);
/// From this share of an authority's life on there is a next one, and from this on the next one mints.
const HALF: f64 = 0.5;
const NEARLY_OVER: f64 = 0.9;
/// The most certificates minted in a second: a flood of names costs no more than this.
const MINTED_A_SECOND: isize = 64;

/// What inspects the connections of one workload.
pub struct Inspection {
    /// Made when the first rule needs one; the oldest mints.
    authorities: Mutex<Vec<Arc<InspectionAuthority>>>,
    minted: MemoryCache<HostName, Arc<ServerConfig>>,
    rate: Rate,
}

impl Inspection {
    /// Nothing is inspected yet.
    pub fn new() -> Self {
        Inspection {
            authorities: Mutex::default(),
            minted: MemoryCache::new(HOSTS),
            rate: Rate::new(Duration::from_secs(1)),
        }
    }

    /// What the workload has to believe, in PEM; `None`: the system has no randomness.
    pub fn authority_pem(&self) -> Option<String> {
        self.authority(UnixTime::now())?;
        Some(self.authorities().iter().map(|authority| authority.to_pem()).collect())
    }

    /// Makes the next authority once half of the life of the last is over, so that the workload believes it by the time it
    /// mints. Whether there is another than before, to be published.
    pub fn renew(&self, now: UnixTime) -> bool {
        let mut authorities = self.authorities();
        if authorities.last().is_none_or(|last| last.validity().spent(now) < HALF) {
            return false;
        }
        authorities.retain(|authority| authority.validity().holds(now));
        made(now).map(|next| authorities.push(next)).is_some()
    }

    /// Writes what the workload has to believe, with the public roots, for everybody to read.
    ///
    /// # Errors
    /// The system's words; what was there before is left then.
    pub fn publish(&self, path: &Path) -> io::Result<()> {
        let own = self.authority_pem().ok_or_else(|| io::Error::other("no randomness"))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        // Renamed over the old one: a reader gets either whole.
        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        let written = (|| {
            let _ = fs::remove_file(&fresh);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(public_roots_pem().as_bytes())?;
            file.write_all(own.as_bytes())?;
            fs::rename(&fresh, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// The one that mints: the oldest that has some life left, for it is believed the longest.
    fn authority(&self, now: UnixTime) -> Option<Arc<InspectionAuthority>> {
        let mut authorities = self.authorities();
        if authorities.is_empty() {
            authorities.push(made(now)?);
        }
        let fresh = authorities.iter().find(|authority| authority.validity().spent(now) < NEARLY_OVER);
        fresh.or(authorities.last()).cloned()
    }

    fn authorities(&self) -> MutexGuard<'_, Vec<Arc<InspectionAuthority>>> {
        self.authorities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves TLS as `host`, whose real server was verified.
    fn config(&self, host: &HostName) -> Result<Arc<ServerConfig>, Reason> {
        if let (Some(config), _) = self.minted.get(host) {
            return Ok(config);
        }
        if self.rate.observe(&"minted", 1) > MINTED_A_SECOND {
            return Err(Reason::LimitInspection);
        }
        let now = UnixTime::now();
        let authority = self.authority(now).ok_or(Reason::Internal)?;
        let minted = authority.mint(host, now).map_err(|_| Reason::Internal)?;
        let config = sidegate_certs::tls::inspect(&minted, &[H2, HTTP1], system_time());
        let config = Arc::new(config.map_err(|_| Reason::Internal)?);
        self.minted.put(host, Arc::clone(&config), Some(KEPT));
        Ok(config)
    }

    /// Accepts the client's TLS as `host`; `early`: what was read of it already.
    ///
    /// # Errors
    /// Nothing can be minted, or the client does not believe what was.
    pub(crate) async fn accept(
        &self,
        host: &HostName,
        early: Vec<u8>,
        socket: TcpStream,
        patience: Duration,
    ) -> Result<TlsStream<Rewound>, Refused> {
        let config = match self.config(host) {
            Ok(config) => config,
            Err(reason) => return Err(Refused { reason, detail: String::new() }),
        };
        let client = Rewound::new(early, socket);
        match tokio::time::timeout(patience, TlsAcceptor::from(config).accept(client)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Refused { reason: Reason::InspectionRefused, detail: error.to_string() }),
            Err(_) => Err(Refused { reason: Reason::ClassifyTimeout, detail: "the handshake".to_owned() }),
        }
    }
}

fn made(now: UnixTime) -> Option<Arc<InspectionAuthority>> {
    match InspectionAuthority::new(now) {
        Ok(authority) => Some(Arc::new(authority)),
        Err(error) => {
            tracing::error!(%error, "nothing can be inspected");
            None
        }
    }
}

impl Default for Inspection {
    fn default() -> Self {
        Inspection::new()
    }
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection").finish_non_exhaustive()
    }
}

/// A client whose TLS was not opened.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// A socket of which bytes were read, which come again first.
#[derive(Debug)]
pub(crate) struct Rewound {
    early: Bytes,
    socket: TcpStream,
}

impl Rewound {
    pub(crate) fn new(early: Vec<u8>, socket: TcpStream) -> Self {
        Rewound { early: early.into(), socket }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let taken = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use sidegate_certs::inspection::AUTHORITY;

    use super::*;

    fn later(share: f64) -> UnixTime {
        let now = Duration::from_secs(UnixTime::now().as_secs());
        UnixTime::since_unix_epoch(now + AUTHORITY.mul_f64(share))
    }

    #[test]
    fn the_next_authority_is_published_long_before_it_mints() {
        let inspection = Inspection::new();
        assert!(!inspection.renew(later(0.6)), "none was needed yet");
        let first = inspection.authority_pem().unwrap();
        assert!(!inspection.renew(later(0.4)) && inspection.renew(later(0.6)));
        assert!(!inspection.renew(later(0.7)), "there is a next one");
        let both = inspection.authority_pem().unwrap();
        assert!(both.starts_with(&first) && both.len() > first.len());
        let mints = |share| inspection.authority(later(share)).unwrap().to_pem();
        assert!(mints(0.8) == first && mints(0.95) != first && both.ends_with(&mints(0.95)));
        assert!(inspection.renew(later(1.2)), "and so on");
        assert!(!inspection.authority_pem().unwrap().contains(&first), "what is over is gone");
    }

    #[test]
    fn minting_is_bounded_by_rate_and_what_was_minted_is_kept() {
        let inspection = Inspection::new();
        let host = |number: usize| HostName::parse(&format!("h{number}.ok.example")).unwrap();
        let minted = |number| inspection.config(&host(number));
        let refused = (0..10_000).find_map(|number| minted(number).err()).expect("a flood is refused");
        assert_eq!(refused, Reason::LimitInspection);
        assert!(minted(0).is_ok(), "what is there costs nothing");
    }
}
