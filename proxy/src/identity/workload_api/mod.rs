//! The SPIFFE Workload API as a source: an agent on a Unix socket tells who we are and whom to believe, again whenever that
//! changes.

mod message;
mod stream;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use sidegate_certs::UnixTime;
use sidegate_policy::{SpiffeId, TrustDomain};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Fault, Ground, Identities, Part, take::Taker};
use stream::Responses;

/// The environment's word for where the API is. SPIFFE Workload Endpoint section 4.
pub const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Shortest and longest wait before the stream is opened again.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// How long the agent may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the certificate's end is thought of.
const LOOK: Duration = Duration::from_secs(5);

/// Where the Workload API is, and which of its identities is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The agent's socket.
    #[serde(rename = "workloadApi")]
    pub socket: PathBuf,
    /// The trust domain that the identity is of.
    #[serde(serialize_with = "shown")]
    pub trust_domain: TrustDomain,
    /// Of several identities the one with this hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The ID that the identity has to have; `None`: any of the trust domain.
    #[serde(skip)]
    pub workload: Option<SpiffeId>,
}

fn shown<S: serde::Serializer>(domain: &TrustDomain, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(domain.as_str())
}

impl Endpoint {
    /// The socket of an address such as `unix:///run/spire/agent.sock`; `None`: it is no absolute path of a socket.
    pub fn socket_of(address: &str) -> Option<PathBuf> {
        let rest = address.strip_prefix("unix:")?;
        let path = match rest.strip_prefix("//") {
            // An authority, a query and a fragment are not allowed.
            Some(path) => path,
            None => rest,
        };
        (path.starts_with('/') && !path.contains(['?', '#'])).then(|| PathBuf::from(path))
    }
}

/// Follows the Workload API.
#[derive(Debug)]
pub struct WorkloadApi {
    endpoint: Endpoint,
    taker: Taker,
}

impl WorkloadApi {
    /// Nothing was asked yet.
    pub fn new(endpoint: Endpoint) -> Self {
        WorkloadApi { taker: Taker::new(endpoint.trust_domain.clone()), endpoint }
    }

    /// Where handshakes take their identity and their trust from.
    pub fn identities(&self) -> Arc<Identities> {
        self.taker.identities()
    }

    /// Follows the stream, opened again whenever it ends, for as long as it is polled.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let fault = self.attend(&mut failures).await;
            self.taker.refuse(Part::Identity, fault, UnixTime::now());
            let wait = backoff(failures, rand::random());
            failures = failures.saturating_add(1);
            self.pass(wait).await;
        }
    }

    /// Until the stream ends: why it did.
    async fn attend(&mut self, failures: &mut u32) -> Fault {
        let socket = self.endpoint.socket.clone();
        let fault = |words: String| Fault::new(&socket, Ground::Api(words));
        let mut responses = match timeout(PATIENCE, Responses::open(&socket)).await {
            Ok(Ok(responses)) => responses,
            Ok(Err(words)) => return fault(words),
            Err(_) => return fault("it does not answer".to_owned()),
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let response = tokio::select! {
                response = responses.next() => response,
                _ = look.tick() => {
                    self.taker.looked(false, UnixTime::now());
                    continue;
                }
            };
            match response {
                Ok(message) => {
                    if self.take(message, &socket) {
                        *failures = 0;
                    }
                }
                Err(words) => return fault(words),
            }
        }
    }

    /// Whether a message was good. One that is not leaves in force what was there before.
    fn take(&mut self, message: message::Response, socket: &Path) -> bool {
        let now = UnixTime::now();
        match message::judge(message, &self.endpoint, now) {
            Ok((identity, store)) => {
                let believed = self.taker.believe(store);
                let shown = self.taker.show(identity);
                self.taker.looked(believed || shown, now);
                true
            }
            Err(ground) => {
                self.taker.refuse(Part::Identity, Fault::new(socket, ground), now);
                false
            }
        }
    }

    /// Lets time pass, and thinks of the certificate's end meanwhile.
    async fn pass(&mut self, wait: Duration) {
        let looking = async {
            let mut look = interval(LOOK);
            loop {
                look.tick().await;
                self.taker.looked(false, UnixTime::now());
            }
        };
        let _: Result<(), _> = timeout(wait, looking).await;
    }
}

/// Doubled with each failure in a row, less up to half of it: agents that restart are not asked by all at once. `jitter` is
/// in 0..=1.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = SHORTEST.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX));
    doubled.min(LONGEST).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_differ() {
        assert_eq!((backoff(0, 1.0), backoff(0, 0.0)), (SHORTEST, SHORTEST / 2));
        assert_eq!((backoff(3, 1.0), backoff(u32::MAX, 1.0)), (8 * SHORTEST, LONGEST));
    }

    #[test]
    fn a_key_is_not_printed() {
        let svid = message::GivenSvid { x509_svid_key: vec![83; 64], ..Default::default() };
        let told =
            format!("{svid:?} {:?}", message::Response { svids: vec![svid.clone()], ..Default::default() });
        assert!(!told.contains("83") && told.contains("GivenSvid"), "{told}");
    }
}
