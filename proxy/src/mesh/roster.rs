//! Who is connected, so that a peer who must go is gone at once.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustls::pki_types::CertificateDer;
use sidegate_certs::{Svid, TrustStore, UnixTime, bundle::Role};
use sidegate_policy::SpiffeId;
use tokio::sync::oneshot;

/// How many dismissals are remembered for handshakes that were under way.
const REMEMBERED: usize = 1024;
/// Of how many peers it is remembered how they last proved themselves.
const PROOFS: usize = 4096;

/// The connections of the mesh, both ways and of all workers.
#[derive(Debug, Default)]
pub struct Roster {
    entries: Mutex<Entries>,
    /// Our own certificate was revoked.
    disowned: AtomicBool,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    connected: HashMap<u64, Member>,
    /// How many dismissals there were.
    dismissals: u64,
    /// The last of them.
    dismissed: VecDeque<SpiffeId>,
    /// How often all were to be verified again.
    reviews: u64,
    /// How a workload at an address last proved itself. Its earlier connections go on by it when the certificates that
    /// they began with have ended.
    proofs: HashMap<(SpiffeId, IpAddr), (Arc<Svid>, Role)>,
}

/// One side of a connection, as it has proven itself.
#[derive(Debug)]
struct Member {
    peer: Arc<Svid>,
    role: Role,
    at: IpAddr,
    /// When our own certificate ends that the connection was made with.
    ours_end: UnixTime,
    /// When the peer has to be verified again, whatever happens.
    due: UnixTime,
    told: oneshot::Sender<()>,
}

/// A moment before a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    dismissals: u64,
    reviews: u64,
}

/// Who comes in.
pub(super) struct Arrival {
    pub(super) peer: Svid,
    /// What the peer is to us.
    pub(super) role: Role,
    /// Where it is.
    pub(super) at: IpAddr,
    /// When our own certificate ends that it was shown.
    pub(super) ours_end: UnixTime,
}

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        Roster::default()
    }

    /// Ends every connection with `peer` at once, its streams with it, and those whose handshake is under way. Returns
    /// how many were established. Trust and policy are replaced first: a peer may come back at once.
    pub fn close_peer(&self, peer: &SpiffeId) -> usize {
        let mut entries = self.lock();
        entries.dismissals += 1;
        if entries.dismissed.len() == REMEMBERED {
            entries.dismissed.pop_front();
        }
        entries.dismissed.push_back(peer.clone());
        let gone = entries.connected.extract_if(|_, member| member.peer.id() == peer);
        gone.filter_map(|(_, member)| member.told.send(()).ok()).count()
    }

    /// Verifies every peer again by `trust`, which has replaced another before, and ends the connections of those who no
    /// longer hold. Handshakes under way are verified again when they end. Returns how many went.
    pub fn review(&self, trust: &TrustStore, now: UnixTime) -> usize {
        self.lock().reviews += 1;
        self.verify_again(trust, now, |_| true)
    }

    /// Ends the connections whose certificates, the peer's or our own, have ended by `now` and were not renewed: the peer's
    /// by a later proof, our own by what `renewed` says. Returns how many.
    pub fn expire(&self, trust: &TrustStore, now: UnixTime, renewed: bool) -> usize {
        let ended = |member: &Member| !renewed && now > member.ours_end;
        let over = self.lock().connected.extract_if(|_, member| ended(member)).map(tell).count();
        over + self.verify_again(trust, now, |member| now > member.due)
    }

    /// Whether our own certificate was revoked: no streams are opened then.
    pub fn is_disowned(&self) -> bool {
        self.disowned.load(Relaxed)
    }

    /// Says whether it is; whether that is news.
    pub(super) fn disown(&self, disowned: bool) -> bool {
        self.disowned.swap(disowned, Relaxed) != disowned
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.lock().connected.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The moment before a handshake, for [`Roster::enter`].
    pub(super) fn now(&self) -> Since {
        let entries = self.lock();
        Since { dismissals: entries.dismissals, reviews: entries.reviews }
    }

    /// Enters a peer whose handshake began at `since`. `None`: it was dismissed since, or everybody had to be verified
    /// again and `still_believed` says no.
    pub(super) fn enter(
        self: &Arc<Self>,
        arrival: Arrival,
        since: Since,
        still_believed: impl FnOnce(&Svid) -> bool,
    ) -> Option<Entry> {
        let Arrival { peer, role, at, ours_end } = arrival;
        let peer = Arc::new(peer);
        let mut entries = self.lock();
        let passed = usize::try_from(entries.dismissals - since.dismissals).unwrap_or(usize::MAX);
        // What is no longer remembered may have been this one.
        if passed > entries.dismissed.len()
            || entries.dismissed.iter().rev().take(passed).any(|id| id == peer.id())
        {
            return None;
        }
        let (told, dismissed) = oneshot::channel();
        let id = entries.next;
        entries.next += 1;
        let reviewed = entries.reviews != since.reviews;
        let member = Member { peer: Arc::clone(&peer), role, at, ours_end, due: peer.first_end(), told };
        entries.connected.insert(id, member);
        drop(entries);
        // Entered first: a review that comes now sees it.
        let entry = Entry { roster: Arc::clone(self), id, dismissed };
        if reviewed && !still_believed(&peer) {
            return None;
        }
        self.lock().proven(at, peer, role);
        Some(entry)
    }

    /// Without the lock while signatures are verified; a chain that several connections of one address have is verified once.
    fn verify_again(&self, trust: &TrustStore, now: UnixTime, whom: impl Fn(&Member) -> bool) -> usize {
        let (suspects, proofs) = {
            let entries = self.lock();
            let concerned = entries.connected.iter().filter(|(_, member)| whom(member));
            let suspect = |(id, member): (&u64, &Member)| Suspect {
                id: *id,
                peer: Arc::clone(&member.peer),
                role: member.role,
                at: member.at,
            };
            let suspects: Vec<_> = concerned.map(suspect).collect();
            // Twice a second there is nobody to look at.
            if suspects.is_empty() {
                return 0;
            }
            (suspects, entries.proofs.clone())
        };
        let mut known: HashMap<(&[CertificateDer<'static>], bool, IpAddr), bool> = HashMap::new();
        let verify = |peer: &Svid, role: Role| trust.verify(peer.chain(), role, now);
        let mut holds = Vec::with_capacity(suspects.len());
        for Suspect { peer, role, at, .. } in &suspects {
            let judge = || match verify(peer, *role) {
                Ok(_) => true,
                // What was taken back does not come back by another proof.
                Err(error) if error.is_revoked() => false,
                Err(_) => proofs.get(&(peer.id().clone(), *at)).is_some_and(|(later, role)| {
                    later.chain() != peer.chain() && verify(later, *role).is_ok()
                }),
            };
            holds.push(*known.entry((peer.chain(), *role == Role::Server, *at)).or_insert_with(judge));
        }
        let mut entries = self.lock();
        let mut gone = 0;
        for (Suspect { id, peer, at, .. }, holds) in suspects.iter().zip(holds) {
            if holds {
                let later =
                    proofs.get(&(peer.id().clone(), *at)).map(|(later, _)| later.validity().not_after);
                if let Some(member) = entries.connected.get_mut(id).filter(|member| now > member.due) {
                    let own = Some(peer.validity().not_after).filter(|end| now <= *end);
                    member.due = own.or(later).unwrap_or(now);
                }
            } else if let Some(member) = entries.connected.remove(id) {
                tell((*id, member));
                gone += 1;
            }
        }
        gone
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Remembers a proof. Where there is no room, those that have ended make some, else it is forgotten: the connections
    /// that would have gone on by it end with their certificates.
    fn proven(&mut self, at: IpAddr, peer: Arc<Svid>, role: Role) {
        let key = (peer.id().clone(), at);
        if self.proofs.len() >= PROOFS && !self.proofs.contains_key(&key) {
            let began = peer.validity().not_before;
            self.proofs.retain(|_, (known, _)| known.validity().not_after > began);
            if self.proofs.len() >= PROOFS {
                return;
            }
        }
        self.proofs.insert(key, (peer, role));
    }
}

/// Whose connection is verified again.
struct Suspect {
    id: u64,
    peer: Arc<Svid>,
    role: Role,
    at: IpAddr,
}

fn tell((_, member): (u64, Member)) {
    // A connection that is ending anyway needs no word.
    let _ = member.told.send(());
}

/// A connection that is on the roster, until this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    roster: Arc<Roster>,
    id: u64,
    dismissed: oneshot::Receiver<()>,
}

impl Entry {
    /// Returns when the peer must go.
    pub(super) async fn dismissed(&mut self) {
        // The sender goes only after it has told.
        let _ = (&mut self.dismissed).await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.lock().connected.remove(&self.id);
    }
}
