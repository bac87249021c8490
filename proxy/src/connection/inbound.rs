//! The inbound story in order. It calls the stages as [`super::outbound`] does; what differs is who is judged: the client
//! that connects, towards the workload's own address and port.

use std::sync::Arc;

use sidegate_policy::{Arrival, Direction};

use super::{
    accept::{Accepted, Story, learn_destination},
    decide::Facts,
    link::Link,
    live::Judgement,
    observe::{Classified, observe_inbound},
    outbound::{Established, admit, carry, refuse},
    words::Words,
};

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
    let classified = observe(Accepted { link, original }).await;
    let judged = admit(classified).await?;
    carry(judged).await
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
