//! What makes a run a member of the mesh: an identity of its own, and the workloads that it knows.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use sidegate_certs::{IdentityCell, Svid, UnixTime};
use sidegate_policy::SpiffeId;
use sidegate_proxy::{
    identity::{self, Follower, IdentityFiles},
    mesh::Membership,
    peers,
    server::Gate,
};

/// The files of a folder that `--identity` names, as cert-manager writes them; the last may be absent.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const REVOCATIONS: &str = "revoked.crl";

/// A run with an identity.
pub(super) struct Member {
    id: SpiffeId,
    follower: Follower,
    membership: Membership,
    peers: Option<PathBuf>,
}

impl Member {
    /// Reads what the command line names; `None`: no identity.
    ///
    /// # Errors
    /// The option, the file, what is wrong with it and what to do.
    pub(super) fn load(folder: Option<&Path>, peers: Option<&Path>) -> Result<Option<Member>, String> {
        let Some(folder) = folder else { return Ok(None) };
        let files = files(folder)?;
        let now = UnixTime::now();
        let faults = identity::check(&files, now);
        if !faults.is_empty() {
            let faults: Vec<_> = faults.iter().map(|fault| format!("{fault}; {}", fault.fix())).collect();
            return Err(format!("--identity {}: {}", folder.display(), faults.join("\n  ")));
        }
        let id = files.workload.clone().ok_or("no SPIFFE ID")?;
        let mut follower = Follower::new(files);
        follower.look(now);
        let membership = Membership::new(follower.identities());
        if let Some(path) = peers {
            // Followed once there is a gate; what is wrong now is said now.
            peers::load(path).map_err(|refused| {
                let said: Vec<_> = refused.diagnostics.iter().map(ToString::to_string).collect();
                format!("--peers: {}", said.join("\n  "))
            })?;
        }
        Ok(Some(Member { id, follower, membership, peers: peers.map(Path::to_path_buf) }))
    }

    /// Who the run is.
    pub(super) fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Whether it knows any workload.
    pub(super) fn knows_peers(&self) -> bool {
        self.peers.is_some()
    }

    /// What the proxy needs of it.
    pub(super) fn membership(&self) -> Membership {
        self.membership.clone()
    }

    /// What it shows to servers that ask.
    pub(super) fn identity(&self) -> Arc<IdentityCell> {
        Arc::clone(&self.membership.identities.identity)
    }

    /// Takes the peers over, and follows every file from now on, on a thread of its own.
    ///
    /// # Errors
    /// There is no thread or event loop to be had.
    pub(super) fn follow(self, gate: &Arc<Gate>) -> io::Result<()> {
        let Member { follower, membership, peers, id: _ } = self;
        let peers = peers.map(|path| {
            let mut peers = peers::Follower::new(path, Arc::clone(gate));
            peers.look(UnixTime::now());
            peers
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let follow = async move {
            let peers = async {
                match peers {
                    Some(peers) => peers.run().await,
                    None => std::future::pending().await,
                }
            };
            tokio::join!(follower.run(), membership.watch(), peers);
        };
        thread::Builder::new().name("identity".to_owned()).spawn(move || runtime.block_on(follow))?;
        Ok(())
    }
}

/// The files, and whom the certificate is of.
fn files(folder: &Path) -> Result<IdentityFiles, String> {
    let certificate = folder.join(CERTIFICATE);
    let fault = |what: String| {
        format!(
            "--identity {}: {}: {what}; name a folder with {CERTIFICATE}, {KEY} and {BUNDLE}, as cert-manager and \
             spiffe-helper write them",
            folder.display(),
            certificate.display(),
        )
    };
    let pem = std::fs::read(&certificate).map_err(|error| fault(error.to_string()))?;
    let svid = Svid::from_pem(&pem).map_err(|error| fault(error.to_string()))?;
    let revocations = folder.join(REVOCATIONS);
    Ok(IdentityFiles {
        key: folder.join(KEY),
        bundle: folder.join(BUNDLE),
        trust_domain: svid.id().trust_domain(),
        revocations: if revocations.exists() { vec![revocations] } else { Vec::new() },
        workload: Some(svid.id().clone()),
        certificate,
    })
}
