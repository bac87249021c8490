//! Opening a workload's TLS where a rule says `inspect`: the server is verified first, then a certificate is minted.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    pin::Pin,
    sync::{Arc, OnceLock},
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
/// The most certificates minted in a second: a flood of names costs no more than this.
const MINTED_A_SECOND: isize = 64;

/// What inspects the connections of one workload.
pub struct Inspection {
    /// Made when the first rule needs it.
    authority: OnceLock<Option<InspectionAuthority>>,
    minted: MemoryCache<HostName, Arc<ServerConfig>>,
    rate: Rate,
}

impl Inspection {
    /// Nothing is inspected yet.
    pub fn new() -> Self {
        Inspection {
            authority: OnceLock::new(),
            minted: MemoryCache::new(HOSTS),
            rate: Rate::new(Duration::from_secs(1)),
        }
    }

    /// What the workload has to believe, in PEM; `None`: the system has no randomness.
    pub fn authority_pem(&self) -> Option<String> {
        self.authority().map(InspectionAuthority::to_pem)
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

    fn authority(&self) -> Option<&InspectionAuthority> {
        let make = || match InspectionAuthority::new(UnixTime::now()) {
            Ok(authority) => Some(authority),
            Err(error) => {
                tracing::error!(%error, "nothing can be inspected");
                None
            }
        };
        self.authority.get_or_init(make).as_ref()
    }

    /// Serves TLS as `host`, whose real server was verified.
    fn config(&self, host: &HostName) -> Result<Arc<ServerConfig>, Reason> {
        if let (Some(config), _) = self.minted.get(host) {
            return Ok(config);
        }
        if self.rate.observe(&"minted", 1) > MINTED_A_SECOND {
            return Err(Reason::LimitInspection);
        }
        let authority = self.authority().ok_or(Reason::Internal)?;
        let minted = authority.mint(host, UnixTime::now()).map_err(|_| Reason::Internal)?;
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
        let client = Rewound { early: early.into(), socket };
        match tokio::time::timeout(patience, TlsAcceptor::from(config).accept(client)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Refused { reason: Reason::InspectionRefused, detail: error.to_string() }),
            Err(_) => Err(Refused { reason: Reason::ClassifyTimeout, detail: "the handshake".to_owned() }),
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
