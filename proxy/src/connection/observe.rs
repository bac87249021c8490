//! Reads the client's first bytes, within budget and deadline, until they can be judged. They are forwarded unchanged.

use std::{sync::Arc, time::Duration};

use sidegate_policy::{Arrival, HostEvidence, HostName, Observed, Peek, Reason};
use tokio::{io::AsyncRead, time::timeout};

use super::{
    accept::Accepted,
    classify::{Classifier, FirstBytes, NoMore, Progress},
    decide::Facts,
    link::Link,
    scratch::read_more,
};
use crate::{
    clock::today,
    dns::SyntheticAddresses,
    http::preface::Preface,
    server::Gate,
    settings::Settings,
    tls::client_hello::{ClientHello, ServerName},
};

/// Longest look at a connection that its bytes can't help: a client that speaks first has spoken by then.
const BRIEF: Duration = Duration::from_millis(100);

/// A connection whose facts are known.
pub(crate) struct Classified {
    pub(crate) link: Link,
    pub(crate) facts: Arc<Facts>,
    pub(crate) early: Early,
}

/// The bytes that were read before the verdict.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) bytes: Vec<u8>,
    /// The ClientHello, and how many of the bytes it spans.
    pub(crate) hello: Option<(ClientHello, usize)>,
    /// What is wrong with them, where no bytes could have been allowed: worth a word, not the reason.
    pub(crate) besides: Option<Reason>,
}

/// Looks at the first bytes if a verdict could depend on them, and briefly if only its record could. A client that is
/// allowed by its destination alone is not waited for: its server may speak first.
pub(crate) async fn observe(accepted: Accepted) -> Classified {
    let Accepted { mut link, original } = accepted;
    let gate = Arc::clone(&link.worker.gate);
    let synthetic = SyntheticAddresses::is_synthetic(original.ip());
    let name = synthetic.then(|| gate.synthetic.name_of(original.ip())).flatten();
    let address = (!synthetic).then(|| original.ip());
    let peer = address.and_then(|address| Some(gate.policies.peers().at(address)?.id.clone()));
    let peek = gate.policies.current().peek(address, name.as_ref(), peer.as_ref(), original.port());
    let mut facts = Facts {
        client: None,
        peer,
        arrival: Arrival::Plain,
        host: None,
        original,
        synthetic,
        observed: Observed::Opaque,
        flaw: None,
        http: None,
        certificate: None,
        unseen: true,
    };
    let early = look(&mut link.client, peek, &gate.settings, &mut facts).await;
    if let Some(name) = name {
        vouch(&mut facts, name);
    }
    let facts = Arc::new(facts);
    link.record.facts = Some(Arc::clone(&facts));
    Classified { link, facts, early }
}

/// The same of a connection towards the workload, or of what is inside its TLS where the proxy has ended that.
pub(crate) async fn observe_inbound(
    stream: &mut (impl AsyncRead + Unpin),
    gate: &Gate,
    mut facts: Facts,
) -> (Facts, Early) {
    let peek = gate.policies.current().peek_inbound(&facts.request(today()));
    let early = look(stream, peek, &gate.settings, &mut facts).await;
    (facts, early)
}

/// Looks for as long as it is worth.
async fn look(
    stream: &mut (impl AsyncRead + Unpin),
    peek: Peek,
    settings: &Settings,
    facts: &mut Facts,
) -> Early {
    let mut early = Early::default();
    let patience = match peek {
        Peek::Needed => settings.classify_timeout,
        Peek::Brief => BRIEF,
        Peek::Unneeded => return early,
    };
    let (outcome, taken) = read_first(stream, settings, patience, &mut early.bytes).await;
    // Where no bytes could have allowed it, their want or their form is not what it is refused for.
    if peek == Peek::Brief {
        early.besides = outcome
            .as_ref()
            .err()
            .copied()
            .filter(|flaw| matches!(flaw, Reason::TlsMalformed | Reason::HttpMalformed));
    }
    if peek == Peek::Needed || outcome.is_ok() {
        facts.unseen = false;
        apply(outcome, taken, facts, &mut early, settings.allow_ech);
    }
    early
}

/// Feeds the classifier until it knows, the client stops, or the deadline passes.
async fn read_first(
    stream: &mut (impl AsyncRead + Unpin),
    settings: &Settings,
    patience: Duration,
    bytes: &mut Vec<u8>,
) -> (Result<FirstBytes, Reason>, usize) {
    let mut classifier = Classifier::new(settings.classify_bytes);
    let reading = async {
        loop {
            let room = settings.classify_bytes.saturating_sub(bytes.len());
            if room == 0 {
                return Err(Reason::ClassifyTooLarge);
            }
            let before = bytes.len();
            match read_more(stream, room, bytes).await {
                Ok(0) | Err(_) => return Ok(Progress::NeedMore),
                Ok(_) => {}
            }
            match classifier.push(bytes.get(before..).unwrap_or_default()) {
                Progress::NeedMore => {}
                settled => return Ok(settled),
            }
        }
    };
    let read = timeout(patience, reading).await;
    let taken = classifier.taken();
    let outcome = match read {
        Ok(Ok(Progress::Done(first))) => Ok(first),
        Ok(Ok(Progress::Refused(reason)) | Err(reason)) => Err(reason),
        Ok(Ok(Progress::NeedMore)) => classifier.finish(NoMore::Eof),
        Err(_) => classifier.finish(NoMore::Deadline),
    };
    (outcome, taken)
}

fn apply(
    outcome: Result<FirstBytes, Reason>,
    taken: usize,
    facts: &mut Facts,
    early: &mut Early,
    allow_ech: bool,
) {
    match outcome {
        Err(reason) => facts.flaw = Some(reason),
        Ok(FirstBytes::Opaque) => {}
        Ok(FirstBytes::Tls(hello)) => {
            facts.observed = Observed::Tls { offers_tls13: hello.offers_tls13, ech: hello.ech && !allow_ech };
            match &hello.server_name {
                ServerName::Host(host) => facts.host = Some((HostEvidence::Sni, host.clone())),
                ServerName::Absent => {}
                ServerName::Address => facts.flaw = Some(Reason::HostIsAddress),
                ServerName::Invalid => facts.flaw = Some(Reason::HostInvalid),
            }
            early.hello = Some((hello, taken));
        }
        Ok(FirstBytes::Http(preface)) => {
            facts.observed = Observed::Http;
            if let Preface::Http1 { host: Some(host), .. } = preface {
                facts.host = Some((HostEvidence::HttpAuthority, host));
            }
        }
    }
}

/// The name behind a synthetic address is what the proxy itself gave out. It vouches for TLS or HTTP only where the
/// client claims the same name; otherwise the bytes count as opaque.
fn vouch(facts: &mut Facts, name: HostName) {
    match &facts.host {
        Some((_, claimed)) if *claimed == name => {}
        Some(_) => {
            facts.flaw = Some(Reason::HostMismatch);
            facts.observed = Observed::Opaque;
        }
        None => facts.observed = Observed::Opaque,
    }
    facts.host = Some((HostEvidence::Synthetic, name));
}
