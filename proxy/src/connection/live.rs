//! The connections that live on one worker: judged again when the policy changes, closed when nothing moves.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use sidegate_api::CloseReason;
use sidegate_policy::{
    Decision, Demands, PolicySet, Reason, Verdict,
    decision::{Dial, TlsMode},
    demands::NONE,
};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    decide::{Carried, Facts, Permit, TlsVersion, decide_again},
    explain::explain,
};
use crate::{
    addrs::UpstreamAddr, clock::today, metrics::verdict_word, peers::Peers, policy_store::PolicyStore,
};

/// The idle timeout is checked this many times within its length, or more: one coarse timer for all connections.
const SWEEPS: u32 = 8;
/// Longest time between sweeps, which also notice the change of the day. Short of the stages' deadlines on purpose:
/// a timer that is due earlier than all others wakes the event loop when it is set, one system call a connection.
const LONGEST_SWEEP: Duration = Duration::from_secs(1);

/// What a record says of the last judgement.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) policy: Option<Box<str>>,
    pub(crate) rule: Option<Box<str>>,
    pub(crate) explanation: Option<Box<str>>,
    pub(crate) generation: u64,
}

impl Judgement {
    /// Puts a decision of `set` into words.
    pub(crate) fn of(set: &PolicySet, decision: &Decision) -> Self {
        let rule = decision.rule.map(|rule| set.rule(rule));
        Judgement {
            verdict: decision.verdict,
            reason: decision.reason,
            policy: rule.map(|rule| rule.policy.clone()),
            rule: rule.map(|rule| rule.name.clone()),
            explanation: explain(set, decision).map(Into::into),
            generation: decision.generation.0,
        }
    }

    /// Says of a refusal what else is wrong with the connection.
    pub(crate) fn besides(mut self, flaw: Option<Reason>) -> Self {
        if let (Some(flaw), Some(explanation)) = (flaw, &self.explanation) {
            self.explanation = Some(format!("{explanation} Besides: {}", flaw.meaning()).into());
        }
        self
    }

    /// A refusal that no policy set spoke.
    pub(crate) fn refused(reason: Reason) -> Self {
        Judgement {
            verdict: Verdict::Denied,
            reason,
            policy: None,
            rule: None,
            explanation: Some(super::explain::in_words(reason).into()),
            generation: 0,
        }
    }
}

/// What is told of a permitted connection that lives.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveConnection {
    /// Where the client meant to go.
    pub original_dst: SocketAddr,
    /// The host name, where one is known.
    pub host: Option<String>,
    /// Where the proxy went; `None` while it connects.
    pub upstream: Option<SocketAddr>,
    /// The workload at the far end, over the mesh.
    pub peer: Option<String>,
    /// `allowed` or `would-deny`.
    pub verdict: &'static str,
    /// The stable word.
    pub reason: &'static str,
    /// The deciding policy.
    pub policy: Option<Box<str>>,
    /// The deciding rule.
    pub rule: Option<Box<str>>,
    /// Generation of the policy set that judged last.
    pub generation: u64,
}

/// One connection as its worker sees it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The code of a close reason, once it must end; 0 until then.
    closing: AtomicU8,
    /// Something moved since the last sweep.
    moved: AtomicBool,
    /// Sweeps in a row without a move.
    quiet: AtomicU32,
    waker: Mutex<Option<Waker>>,
    standing: Mutex<Option<Box<Standing>>>,
}

/// What a new policy judges again.
#[derive(Debug)]
struct Standing {
    facts: Arc<Facts>,
    dial: Dial,
    mode: TlsMode,
    demands: Option<Arc<Demands>>,
    upstream: Option<UpstreamAddr>,
    tls: Option<TlsVersion>,
    gated: bool,
    judgement: Judgement,
}

impl Live {
    /// Something moved: not idle.
    pub(crate) fn touch(&self) {
        self.moved.store(true, Relaxed);
    }

    /// Why the connection must end now, if it must. Otherwise the task is woken when it must.
    pub(crate) fn closing(&self, cx: &Context<'_>) -> Option<CloseReason> {
        let mut waker = lock(&self.waker);
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            unknown => *unknown = Some(cx.waker().clone()),
        }
        closing_of(self.closing.load(Relaxed))
    }

    /// Runs a stage until it is over or the connection must end; then the stage is dropped, and with it all it holds.
    pub(crate) async fn until_closed<T>(
        &self,
        mut stage: Pin<Box<impl Future<Output = Option<T>>>>,
    ) -> Option<T> {
        poll_fn(move |cx| match self.closing(cx) {
            Some(_) => Poll::Ready(None),
            None => stage.as_mut().poll(cx),
        })
        .await
    }

    /// Forgets what was permitted: from now on requests are judged, not the connection.
    pub(crate) fn judged_by_request(&self) {
        *lock(&self.standing) = None;
    }

    /// Why the connection was told to end, if it was.
    pub(crate) fn told_to_close(&self) -> Option<CloseReason> {
        closing_of(self.closing.load(Relaxed))
    }

    /// Ends the connection; the first reason counts.
    fn close(&self, close: CloseReason) {
        // Under the lock, so that a task which saw "not yet" has left its waker.
        let waker = lock(&self.waker);
        let first = self.closing.compare_exchange(0, closing_code(close), Relaxed, Relaxed).is_ok();
        if let (true, Some(waker)) = (first, waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    /// Lets its task look around.
    fn wake(&self) {
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Keeps what was permitted. `gated`: the server's TLS version is still to be seen.
    pub(crate) fn permitted(&self, permit: &Permit, judgement: Judgement) {
        *lock(&self.standing) = Some(Box::new(Standing {
            facts: Arc::clone(permit.facts()),
            dial: permit.treatment().dial,
            mode: permit.treatment().tls,
            demands: permit.demanded(),
            upstream: None,
            tls: None,
            gated: true,
            judgement,
        }));
    }

    /// Keeps where the connection leads.
    pub(crate) fn dialled(&self, upstream: UpstreamAddr) {
        if let Some(standing) = &mut *lock(&self.standing) {
            standing.upstream = Some(upstream);
        }
    }

    /// Keeps the version that the server selected; `None`: it was not watched for.
    pub(crate) fn handshaken(&self, tls: Option<TlsVersion>) {
        if let Some(standing) = &mut *lock(&self.standing) {
            standing.tls = tls;
            standing.gated = false;
        }
    }

    /// What can be told of it; `None` until it is permitted.
    fn tell(&self) -> Option<LiveConnection> {
        let held = lock(&self.standing);
        let standing = held.as_ref()?;
        let Judgement { verdict, reason, policy, rule, generation, .. } = &standing.judgement;
        let over_mesh = standing.dial == Dial::Workload;
        Some(LiveConnection {
            original_dst: standing.facts.original.socket_addr(),
            host: standing.facts.host.as_ref().map(|(_, host)| host.to_string()),
            upstream: standing.upstream.map(UpstreamAddr::socket_addr),
            peer: standing.facts.peer.as_ref().filter(|_| over_mesh).map(|peer| peer.as_str().to_owned()),
            verdict: verdict_word(*verdict),
            reason: reason.word(),
            policy: policy.clone(),
            rule: rule.clone(),
            generation: *generation,
        })
    }

    /// The last judgement of the policy, if there was one.
    pub(crate) fn last_judgement(&self) -> Option<Judgement> {
        lock(&self.standing).as_ref().map(|standing| standing.judgement.clone())
    }

    /// Judges again; closes what is no longer allowed.
    pub(crate) fn judge_again(&self, set: &PolicySet, peers: &Peers) {
        let mut held = lock(&self.standing);
        let Some(standing) = &mut *held else { return };
        // Who has proven to be there stays who it is; whom nobody asked is whom the table names now.
        if standing.dial != Dial::Workload && standing.facts.peer.as_ref() != standing.facts.peer_by(peers) {
            let peer = standing.facts.peer_by(peers).cloned();
            standing.facts = Arc::new(Facts { peer, ..Facts::clone(&standing.facts) });
        }
        let carried = Carried {
            facts: &standing.facts,
            dial: standing.dial,
            mode: standing.mode,
            origin: &standing.demands.as_deref().unwrap_or(&NONE).origin,
            upstream: standing.upstream,
            tls: standing.tls,
            gated: standing.gated,
        };
        let (decision, allowed) = decide_again(set, peers, &carried);
        standing.judgement = Judgement::of(set, &decision);
        drop(held);
        if !allowed {
            self.close(CloseReason::PolicyChanged);
        }
    }

    /// Judges again if the policy or the peer at the destination changed since the last judgement.
    pub(crate) fn catch_up(&self, policies: &PolicyStore) {
        let (set, peers) = (policies.current(), policies.peers());
        let stale = lock(&self.standing).as_ref().is_some_and(|known| {
            known.judgement.generation != set.generation().0
                || known.facts.peer.as_ref() != known.facts.peer_by(&peers)
        });
        if stale {
            self.judge_again(&set, &peers);
        }
    }

    /// One sweep of the idle timer.
    fn sweep(&self, most_quiet: u32) {
        if self.moved.swap(false, Relaxed) {
            self.quiet.store(0, Relaxed);
        } else if self.quiet.fetch_add(1, Relaxed) >= most_quiet {
            self.close(CloseReason::IdleTimeout);
        }
    }
}

/// Every live connection of a worker.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: Mutex<Slots>,
    /// What lives may end its requests, and begin no others.
    draining: AtomicBool,
    /// The last connection left.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    live: Vec<Option<Arc<Live>>>,
    free: Vec<u32>,
}

impl Registry {
    /// Enters a new connection; it leaves when the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let live = Arc::new(Live::default());
        let mut slots = lock(&self.slots);
        let slot = match slots.free.pop() {
            Some(slot) => slot,
            None => {
                slots.live.push(None);
                (slots.live.len() - 1) as u32
            }
        };
        slots.live[slot as usize] = Some(Arc::clone(&live));
        Entry { live, registry: Arc::clone(self), slot }
    }

    /// What can be told of those that are permitted.
    pub(crate) fn tell(&self) -> Vec<LiveConnection> {
        lock(&self.slots).live.iter().flatten().filter_map(|live| live.tell()).collect()
    }

    /// How many live.
    pub(crate) fn len(&self) -> usize {
        let slots = lock(&self.slots);
        slots.live.len() - slots.free.len()
    }

    /// Waits until none lives.
    pub(crate) async fn empty(&self) {
        while self.len() > 0 {
            self.emptied.notified().await;
        }
    }

    /// Tells all that serve requests to end with those under way.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.each(Live::wake);
    }

    /// Closes all.
    pub(crate) fn close_all(&self, close: CloseReason) {
        self.each(|live| live.close(close));
    }

    /// Follows the policy and the idle timer for as long as it is polled.
    pub(crate) async fn watch(&self, policies: &PolicyStore, idle_timeout: Duration) {
        let mut changed = policies.subscribe();
        let period = (idle_timeout / SWEEPS).clamp(Duration::from_millis(1), LONGEST_SWEEP);
        let most_quiet = idle_timeout.as_millis().div_ceil(period.as_millis()) as u32;
        let mut sweep = interval_at(Instant::now() + period, period);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut day = today();
        loop {
            tokio::select! {
                news = changed.changed() => match news {
                    Ok(()) => self.judge_all(policies),
                    Err(_) => return,
                },
                _ = sweep.tick() => {
                    self.each(|live| live.sweep(most_quiet));
                    // Audit modes end with a day.
                    if std::mem::replace(&mut day, today()) != day {
                        self.judge_all(policies);
                    }
                }
            }
        }
    }

    fn judge_all(&self, policies: &PolicyStore) {
        let (set, peers) = (policies.current(), policies.peers());
        self.each(|live| live.judge_again(&set, &peers));
    }

    fn each(&self, act: impl Fn(&Live)) {
        lock(&self.slots).live.iter().flatten().for_each(|live| act(live));
    }
}

/// A connection's place in its worker's registry.
#[derive(Debug)]
pub(crate) struct Entry {
    live: Arc<Live>,
    registry: Arc<Registry>,
    slot: u32,
}

impl Entry {
    /// The connection itself, without its place.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Whether its worker is to end. A task that asked why it must close is woken when it is.
    pub(crate) fn draining(&self) -> bool {
        self.registry.draining.load(Relaxed)
    }
}

impl std::ops::Deref for Entry {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut slots = lock(&self.registry.slots);
        slots.live[self.slot as usize] = None;
        slots.free.push(self.slot);
        if slots.free.len() == slots.live.len() {
            self.registry.emptied.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closing_code(close: CloseReason) -> u8 {
    match close {
        CloseReason::PolicyChanged => 1,
        CloseReason::IdleTimeout => 2,
        _ => 3,
    }
}

fn closing_of(code: u8) -> Option<CloseReason> {
    match code {
        0 => None,
        1 => Some(CloseReason::PolicyChanged),
        2 => Some(CloseReason::IdleTimeout),
        _ => Some(CloseReason::Drained),
    }
}
