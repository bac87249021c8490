//! The inbound story in order. It calls the stages as [`super::outbound`] does; what differs is who is judged: the client
//! that connects, towards the workload's own address and port.

mod inside;
mod pump;
pub(crate) mod streams;

use std::sync::Arc;

use sidegate_policy::{Arrival, Direction, Reason};

use self::inside::Inside;
use super::{
    accept::{Accepted, Story, learn_destination},
    decide::{Facts, TlsVersion},
    explain::in_words,
    link::Link,
    live::Judgement,
    observe::{Classified, observe_inbound},
    outbound::{Established, admit, carry, refuse},
    words::Words,
};
use crate::{clock::today, inspection::Refused, limits::StrangerSlot};

/// What becomes of redirected connections towards the workload.
pub(crate) const STORY: Story = Story { direction: Direction::Ingress, start };

/// Carries one connection to its end, on this worker.
fn start(link: Link) {
    let live = link.record.entry.live();
    // Boxed, so that its size is gone from memory once bytes are relayed; and alone in its box, so that it never moves.
    let establishing = Box::pin(establish(link));
    tokio::spawn(async move {
        let established = live.until_closed(establishing).await;
        if let Some(established) = established {
            established.relay().await;
        }
    });
}

/// From a socket to an established connection. `None`: it was refused or failed; its record is written.
async fn establish(mut link: Link) -> Option<Established> {
    let original = match learn_destination(&mut link) {
        Ok(original) => original,
        Err(reason) => return refuse(link, Judgement::refused(reason), Words::Reset).await,
    };
    if link.worker.gate.reception.as_ref().is_some_and(|reception| reception.is_own(original.port())) {
        return refuse(link, Judgement::refused(Reason::AddressOwnListener), Words::Reset).await;
    }
    let stranger = match link.worker.limits.stranger(link.record.source().ip()) {
        Ok(stranger) => stranger,
        Err(reason) => return refuse(link, Judgement::refused(reason), Words::Reset).await,
    };
    let classified = observe(Accepted { link, original }).await;
    if let Some(ending) = ends_tls(&classified) {
        Box::pin(terminate(classified, ending, stranger)).await;
        return None;
    }
    drop(stranger);
    let judged = admit(classified).await?;
    carry(judged).await
}

/// How the client's TLS is ended.
struct Ending {
    /// The label of the certificate that it is shown; `None`: the workload's own.
    certificate: Option<Box<str>>,
}

fn ends_tls(classified: &Classified) -> Option<Ending> {
    let gate = &classified.link.worker.gate;
    gate.reception.as_ref()?;
    let set = gate.policies.current();
    let demands = set.terminating(&classified.facts.request(today()))?;
    Some(Ending { certificate: demands.certificate.clone() })
}

/// Ends the client's TLS; what is inside is looked at and judged then.
async fn terminate(classified: Classified, Ending { certificate }: Ending, stranger: StrangerSlot) {
    let Classified { link, facts, early } = classified;
    let Link { mut record, client, slot, worker } = link;
    let gate = Arc::clone(&worker.gate);
    let Some(reception) = &gate.reception else { return };
    let offers = early.hello.as_ref().map(|(hello, _)| hello.alpn.clone()).unwrap_or_default();
    let ended = match reception.end(certificate.as_deref()) {
        Ok(end) => end.accept(&offers, early.bytes, client, gate.settings.classify_timeout).await,
        Err(refused) => Err(refused),
    };
    drop(stranger);
    match ended {
        Ok((stream, peer)) => {
            record.tls = Some(TlsVersion::Tls13);
            let source = record.source();
            let facts = Facts::inbound(source, facts.original, Arrival::Terminated, peer);
            let facts = Facts { certificate, ..facts };
            Inside { record, slot, worker }.serve(stream, facts).await;
        }
        Err(Refused { reason, detail }) => {
            let explanation = Some(format!("{} ({detail})", in_words(reason)).into());
            record.denied(Judgement { explanation, ..Judgement::refused(reason) });
            drop(record);
            drop(slot);
        }
    }
}

async fn observe(accepted: Accepted) -> Classified {
    let Accepted { mut link, original } = accepted;
    let gate = Arc::clone(&link.worker.gate);
    let facts = Facts::inbound(link.record.source(), original, Arrival::Plain, None);
    let (facts, early) = observe_inbound(&mut link.client, &gate, facts).await;
    let facts = Arc::new(facts);
    link.record.facts = Some(Arc::clone(&facts));
    Classified { link, facts, early }
}
