//! Keeps the peers of the moment those of the file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use sidegate_certs::UnixTime;
use sidegate_policy::{Diagnostic, Source};

use super::{ERRORS, PEERS, Peers, parse};
use crate::{
    clock::rfc3339_millis,
    files::{Attempts, keep_looking, read},
    server::Gate,
};

/// The largest file, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// It is not there; it may come.
    pub absent: bool,
    /// Everything that is wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// What is said of the file. Shared with the endpoints.
#[derive(Debug)]
pub struct Told {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A good file was read.
    loaded: bool,
    refused: Option<(UnixTime, Refused)>,
}

/// Follows the peers file of a running gate.
pub struct Follower {
    path: PathBuf,
    gate: Arc<Gate>,
    attempts: Attempts<Refused>,
    told: Arc<Told>,
}

/// Reads a file.
///
/// # Errors
/// It is not there, can't be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Peers, Refused> {
    let name = path.display().to_string();
    let bytes = read(path, LARGEST).map_err(|error| unreadable(path, &error))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| unreadable(path, &io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text")))?;
    parse(&Source::new(name, text)).map_err(|diagnostics| Refused { absent: false, diagnostics })
}

fn unreadable(path: &Path, error: &io::Error) -> Refused {
    let absent = error.kind() == io::ErrorKind::NotFound;
    let (message, fix) = match absent {
        true => {
            ("it is not there".to_owned(), "check `peers`; a file that comes later is taken when it is there")
        }
        false => (
            format!("it can't be read: {error}"),
            "check that it is a file and that the proxy's user may read it",
        ),
    };
    refused(path, absent, message, fix)
}

fn moving(path: &Path) -> Refused {
    refused(
        path,
        false,
        "it changed while it was read".to_owned(),
        "write it anew beside the old one and rename it",
    )
}

fn refused(path: &Path, absent: bool, message: String, fix: &str) -> Refused {
    let source = Source::new(path.display().to_string(), "");
    Refused { absent, diagnostics: vec![Diagnostic::new(&source, "unreadable", 0..0, message, fix)] }
}

impl Follower {
    /// Follows this file; nothing was read yet.
    pub fn new(path: PathBuf, gate: Arc<Gate>) -> Self {
        let attempts = Attempts::new(vec![path.clone()], moving);
        let told = Arc::new(Told { path: path.clone(), state: Mutex::default() });
        Follower { path, gate, attempts, told }
    }

    /// What is said of the file.
    pub(crate) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    /// Looks at the file for as long as it is polled.
    pub async fn run(self) {
        keep_looking(self, Self::look, "the peers file is not followed").await;
    }

    /// Looks once: takes a changed file over, or tells what is wrong with it and leaves in force what was there before.
    pub fn look(&mut self, now: UnixTime) {
        let Follower { path, attempts, .. } = self;
        match attempts.look(now, || load(path)) {
            Some(Ok(peers)) => self.take(peers),
            Some(Err(refused)) => self.refuse(refused, now),
            None => {}
        }
    }

    fn take(&self, peers: Peers) {
        let mut state = self.told.state();
        let mended = state.refused.take().is_some();
        let first = !std::mem::replace(&mut state.loaded, true);
        drop(state);
        if mended {
            tracing::info!(file = %self.path.display(), "the peers file is in order again");
        }
        // A young file is read more than once.
        if !first && self.gate.policies.peers().iter().eq(peers.iter()) {
            return;
        }
        let count = peers.iter().len();
        metrics::gauge!(PEERS).set(count as f64);
        self.gate.policies.replace_peers(peers);
        tracing::info!(peers = count, "a new table of peers counts from now on");
    }

    fn refuse(&self, refused: Refused, now: UnixTime) {
        metrics::counter!(ERRORS).increment(1);
        let mut state = self.told.state();
        let then = if state.loaded {
            "what was there before stays in force"
        } else {
            "not ready until it is mended"
        };
        for diagnostic in &refused.diagnostics {
            let Diagnostic { code, file, line, column, message, fix, .. } = diagnostic;
            tracing::error!(code, %file, line, column, fix, "peers refused: {message}; {then}");
        }
        state.refused = Some((now, refused));
    }
}

/// Why a proxy with a peers file is not ready.
const NONE_READ: &str =
    "no peers file was read yet: no workload is reached over the mesh; `/peers` and the log say why";

impl Told {
    /// Why the proxy may not be relied on; `None`: it may.
    pub(crate) fn wanting(&self) -> Option<&'static str> {
        (!self.state().loaded).then_some(NONE_READ)
    }

    /// The answer of `/peers`.
    pub(crate) fn tell(&self, peers: &Peers) -> Value {
        let state = self.state();
        let peer = |peer: &super::Peer| {
            json!({
                "id": peer.id.as_str(),
                "addresses": peer.addresses,
                "port": peer.port,
                "hosts": peer.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(),
            })
        };
        json!({
            "configured": true,
            "file": self.path,
            "peers": peers.iter().map(peer).collect::<Vec<_>>(),
            "refused": state.refused.as_ref().map(|(since, refused)| json!({
                "since": rfc3339_millis(UNIX_EPOCH.checked_add(Duration::from_secs(since.as_secs())).unwrap_or_else(SystemTime::now)),
                "diagnostics": refused.diagnostics,
            })),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of `/peers` where no file is configured.
pub(crate) fn unconfigured() -> Value {
    json!({ "configured": false, "file": null, "peers": [], "refused": null })
}
