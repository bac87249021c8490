//! Connections of the mesh: who opens one has to prove an identity, and each of its streams is judged and recorded like a
//! connection of its own.

use std::sync::{Arc, atomic::AtomicUsize};

use sidegate_api::CloseReason;
use sidegate_policy::{Arrival, Direction, Observed, Peek, Reason};

use super::{
    super::{
        Worker,
        accept::Story,
        decide::{Facts, Permit, TlsVersion, decide},
        explain::in_words,
        farewell,
        link::Link,
        live::Judgement,
        record::Record,
    },
    inside::{Inside, Reached},
};
use crate::{
    addrs::OriginalDst,
    clock::today,
    inspection::Refused,
    mesh::{Asked, MeshStream, Refusal, Tunnels},
    reception::Reception,
};

/// What becomes of connections to the port of the mesh.
pub(crate) const STORY: Story = Story { direction: Direction::Ingress, start };

fn start(link: Link) {
    tokio::spawn(receive(link));
}

/// Takes a connection, serves its streams. A connection that is not taken has a record; of one that is, its streams tell.
async fn receive(link: Link) {
    let Link { mut record, client, slot, worker } = link;
    record.original = client.local_addr().ok().map(OriginalDst::new);
    let source = record.source();
    let Some(reception) = &worker.gate.reception else {
        return record.denied(Judgement::refused(Reason::NotSupported));
    };
    let stranger = match worker.limits.stranger(source.ip()) {
        Ok(stranger) => stranger,
        Err(reason) => {
            record.denied(Judgement::refused(reason));
            return farewell::reset(&client);
        }
    };
    let place = worker.carriers.enter();
    let live = record.entry.live();
    let Some(admitted) =
        live.until_closed(Box::pin(async { Some(reception.mesh.admit(client).await) })).await
    else {
        return;
    };
    drop(stranger);
    match admitted {
        Ok(admitted) => {
            // Its streams tell of it, be there none.
            record.told_by_requests(Arc::new(AtomicUsize::new(1)));
            record.closed(CloseReason::Done);
            drop(record);
            let streams = Arc::new(Streams { worker: Arc::clone(&worker) });
            // In a box of its own: who never gets this far must not hold room for it.
            let serving = Box::pin(admitted.serve(&reception.mesh, source, streams));
            if let Err(error) = serving.await {
                tracing::debug!(%error, source = %source, "a connection of the mesh has ended");
            }
        }
        Err(error) => {
            let Refused { reason, detail } = reception.mesh_refusal(&error);
            let explanation = Some(format!("{} ({detail})", in_words(reason)).into());
            record.denied(Judgement { explanation, ..Judgement::refused(reason) });
        }
    }
    drop(place);
    drop(slot);
}

/// The streams of one connection.
struct Streams {
    worker: Arc<Worker>,
}

/// A stream that may go on: by a permit, or until its first bytes have shown what it is.
struct Admitted {
    inside: Inside,
    facts: Facts,
    permit: Option<Permit>,
}

/// A stream whose application is reached, or whose first bytes are still to be looked at.
struct Open {
    inside: Inside,
    facts: Facts,
    reached: Option<Reached>,
}

impl Tunnels for Streams {
    type Permit = Admitted;
    type Upstream = Open;

    async fn judge(&self, asked: Asked) -> Result<Admitted, Refusal> {
        let Asked { peer, source, destination } = asked;
        let facts = Facts::inbound(source, destination, Arrival::Mesh, Some(peer));
        let mut record = Record::open(&self.worker, source, Direction::Ingress);
        record.original = Some(destination);
        record.tls = Some(TlsVersion::Tls13);
        record.facts = Some(Arc::new(facts.clone()));
        let refused =
            self.worker.gate.reception.as_ref().and_then(|reception| misled(reception, destination));
        if let Some((reason, refusal)) = refused {
            record.denied(Judgement::refused(reason));
            return Err(refusal);
        }
        let slot = match self.worker.limits.connection(source.ip()) {
            Ok(slot) => slot,
            Err(reason) => {
                record.denied(Judgement::refused(reason));
                return Err(Refusal::Unavailable);
            }
        };
        let mut inside = Inside { record, slot, worker: Arc::clone(&self.worker) };
        if self.may_become_allowed(&facts) {
            return Ok(Admitted { inside, facts, permit: None });
        }
        match inside.judge(Arc::new(facts.clone())) {
            Ok(permit) => Ok(Admitted { inside, facts, permit: Some(permit) }),
            Err(judgement) => {
                inside.record.denied(judgement);
                Err(Refusal::Forbidden)
            }
        }
    }

    async fn dial(&self, admitted: Admitted) -> Result<Open, Refusal> {
        let Admitted { mut inside, facts, permit } = admitted;
        let Some(permit) = permit else { return Ok(Open { inside, facts, reached: None }) };
        let live = inside.record.entry.live();
        let reaching = async {
            let reached = inside.connect(permit).await;
            Some(reached.map(|reached| Open { inside, facts, reached: Some(reached) }))
        };
        live.until_closed(Box::pin(reaching)).await.and_then(Result::ok).ok_or(Refusal::Unavailable)
    }

    async fn carry(&self, open: Open, stream: MeshStream) {
        let Open { inside, facts, reached } = open;
        let live = inside.record.entry.live();
        let carrying = async {
            match reached {
                Some(reached) => inside.relay(stream, reached, Vec::new()).await,
                None => inside.serve(stream, facts).await,
            }
            Some(())
        };
        live.until_closed(Box::pin(carrying)).await;
    }
}

impl Streams {
    /// Whether the verdict rests on first bytes that some of could be allowed: they come only once the stream is open.
    fn may_become_allowed(&self, facts: &Facts) -> bool {
        let set = self.worker.gate.policies.current();
        if set.peek_inbound(&facts.request(today())) != Peek::Needed {
            return false;
        }
        let tls = Observed::Tls { offers_tls13: true, ech: false };
        [Observed::Http, tls, Observed::Opaque].into_iter().any(|observed| {
            decide(&set, Arc::new(Facts { observed, unseen: false, ..facts.clone() })).is_ok()
        })
    }
}

/// Why a stream leads nowhere that a peer may reach, whatever the policy says.
fn misled(reception: &Reception, destination: OriginalDst) -> Option<(Reason, Refusal)> {
    if !reception.is_local(destination.ip()) {
        return Some((Reason::DestinationForeign, Refusal::Unknown));
    }
    reception.is_own(destination.port()).then_some((Reason::AddressOwnListener, Refusal::Forbidden))
}
