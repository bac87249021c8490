//! One request and its answer: judged, forwarded with a head of our own, recorded.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use hyper::{
    Request, Response, Uri, Version,
    body::{Body, Incoming},
    header::{EXPECT, FORWARDED, HOST, HeaderValue, RETRY_AFTER},
    http::{request, uri::Scheme},
    upgrade::OnUpgrade,
};
use sidegate_api::CloseReason;
use sidegate_policy::{Arrival, Reason};

use super::{
    admit::{Refusal, admit, in_seconds},
    asked::Asked,
    body::{Progress, Reply, Sent},
    engine::Client,
    fields::{keep_of_a_probe, strip, strip_forwarded},
    reply::{Switch, broken_off, fail, pass_on, refuse, unread, words},
    upgrade,
    upstream::{Unanswered, Upstream, Wanted, upstream_for},
};
use crate::connection::{
    client_address::forwarded,
    connect::ConnectError,
    decide::{Permit, TlsVersion, decide},
    live::Judgement,
    record::Record,
};

/// A request under way. Dropped, it is recorded.
pub(crate) struct Exchange {
    pub(super) record: Record,
    pub(super) progress: Arc<Progress>,
    /// Goes back to the pool when the answer was read to its end.
    pub(super) upstream: Option<Upstream>,
    pub(super) client: Arc<Client>,
}

impl Exchange {
    /// What a tunnel counts into.
    pub(super) fn counted(&self) -> (&Record, &Progress) {
        (&self.record, &self.progress)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record.sent = self.progress.sent.load(Relaxed);
        self.record.received += self.progress.received.load(Relaxed);
        self.progress.over();
        if let (Some(upstream), Some(CloseReason::Done)) = (self.upstream.take(), self.record.close()) {
            self.client.worker.pool.keep(upstream);
        }
    }
}

/// Answers one request of `client`, whatever becomes of it.
pub(super) async fn answer(client: Arc<Client>, request: Request<Incoming>) -> Response<Reply> {
    client.requested();
    let (head, body) = request.into_parts();
    let asked = Asked::read(&head);
    let facts = asked.as_ref().map_err(|reason| *reason).and_then(|asked| asked.facts(&client.facts));
    let (asked, facts) = match (asked, facts) {
        (Ok(asked), Ok(mut facts)) => {
            if let Some(http) = &mut facts.http {
                http.bare = asked.target.query().is_none() && body.is_end_stream();
            }
            // Who is at the destination may be known better than when the connection began.
            (asked, Arc::new(facts.expecting(&client.worker.gate.policies.peers())))
        }
        (asked, Ok(_)) | (asked, Err(_)) => {
            let reason = facts_fault(&asked, &client);
            return unread(client, asked.ok(), &head.method, reason);
        }
    };
    let mut record = Record::of_request(&client.worker, client.source, client.original, Arc::clone(&facts));
    record.requested(asked.method.as_str(), asked.path.as_str());
    record.tls = (facts.arrival != Arrival::Plain).then_some(TlsVersion::Tls13);
    let mut exchange = Exchange { record, progress: Arc::default(), upstream: None, client };
    match admit(&mut exchange, facts) {
        Ok(permit) => forward(exchange, permit, asked, head, body).await,
        Err(Refusal { judgement, wait }) => {
            let mut response = refuse(exchange, judgement, &asked.method);
            if let Some(wait) = wait {
                response.headers_mut().insert(RETRY_AFTER, in_seconds(wait));
            }
            response
        }
    }
}

fn facts_fault(asked: &Result<Asked, Reason>, client: &Client) -> Reason {
    match asked {
        Err(reason) => *reason,
        Ok(asked) => asked.facts(&client.facts).err().unwrap_or(Reason::HttpMalformed),
    }
}

/// Forwards a permitted request and hands its answer on.
async fn forward(
    mut exchange: Exchange,
    permit: Permit,
    asked: Asked,
    mut head: request::Parts,
    body: Incoming,
) -> Response<Reply> {
    // What follows an upgrade before its answer could be taken two ways: nothing of it leaves.
    if let Some(reason) = asked.upgrade.and_then(|_| exchange.client.tells_refusal()) {
        return refuse(exchange, Judgement::refused(reason), &asked.method);
    }
    let live = exchange.record.entry.live();
    let method = asked.method.clone();
    let stream = head.extensions.remove::<OnUpgrade>().filter(|_| head.version == Version::HTTP_2);
    let mut sent = Sent::new(body, Arc::clone(&exchange.progress), Arc::clone(&live));
    if asked.expects {
        sent.wait_for_continue();
    }
    let client = Arc::clone(&exchange.client);
    if permit.decision().reason == Reason::ProbeAllows {
        keep_of_a_probe(&mut head.headers);
    }
    let forwarded = forwarded(&permit);
    let outgoing = Outgoing { asked, head, version: client.upstream_version(), forwarded };
    let asking = ask(&client, permit, outgoing, sent);
    match live.until_closed(Box::pin(async { Some(asking.await) })).await {
        Some(Ok(Answered { upstream, answer, proof })) => {
            exchange.record.upstream = Some(upstream.address);
            exchange.record.tls = upstream.tls.or(exchange.record.tls);
            exchange.record.peer = upstream.peer().cloned();
            exchange.record.entry.dialled(upstream.address);
            exchange.record.entry.handshaken(exchange.record.tls);
            exchange.record.entry.catch_up(&client.worker.gate.policies);
            exchange.upstream = Some(upstream);
            let switch = proof.map(|proof| Switch { proof, client: stream });
            pass_on(exchange, switch, answer, &method)
        }
        Some(Err(_)) if exchange.progress.broken.load(Relaxed) => broken_off(exchange, &method),
        Some(Err(error)) => fail(exchange, error, &method),
        // Told to close before there was an answer.
        None => {
            let judgement = exchange.record.entry.last_judgement();
            let judgement = judgement.unwrap_or_else(|| Judgement::refused(Reason::Draining));
            let close = exchange.record.entry.told_to_close().unwrap_or(CloseReason::Internal);
            let response = words(&judgement, &method, exchange.record.facts.as_deref());
            exchange.record.closed(close);
            exchange.record.answered(response.status().as_u16());
            response
        }
    }
}

/// A request whose head is still to be rebuilt.
struct Outgoing {
    asked: Asked,
    head: request::Parts,
    version: Version,
    /// Who connected, where the application is to learn it.
    forwarded: Option<String>,
}

/// The far end's answer, and how it came.
struct Answered {
    upstream: Upstream,
    answer: Response<Incoming>,
    /// What an answer has to prove that agrees to an upgrade.
    proof: Option<HeaderValue>,
}

/// Finds a connection and asks. Only a request of which an idle connection sent nothing is asked again.
async fn ask(
    client: &Client,
    permit: Permit,
    outgoing: Outgoing,
    body: Sent,
) -> Result<Answered, ConnectError> {
    let facts = Arc::clone(permit.facts());
    let wanted =
        if outgoing.asked.upgrade.is_some() { Wanted::Upgradable } else { Wanted::As(outgoing.version) };
    let (mut upstream, idle) = upstream_for(&client.worker, permit, wanted).await?;
    let (request, proof) = outgoing.rebuilt(upstream.is_http2(), upstream.scheme(), body);
    match upstream.send(request).await {
        Ok(answer) => Ok(Answered { upstream, answer, proof }),
        Err(Unanswered { unsent: Some(request), .. }) if idle => {
            let again = decide(&client.worker.gate.policies.current(), facts).map_err(|denied| {
                ConnectError::new(denied.decision.reason, "the policy changed meanwhile")
            })?;
            let (mut upstream, _) = upstream_for(&client.worker, again, wanted).await?;
            match upstream.send(request).await {
                Ok(answer) => Ok(Answered { upstream, answer, proof }),
                Err(unanswered) => Err(broken(&upstream, &unanswered.error)),
            }
        }
        Err(unanswered) => Err(broken(&upstream, &unanswered.error)),
    }
}

fn broken(upstream: &Upstream, error: &hyper::Error) -> ConnectError {
    let reason = if error.is_parse() { Reason::UpstreamMalformed } else { Reason::UpstreamClosed };
    ConnectError::new(reason, format!("{}: {error}", upstream.address))
}

impl Outgoing {
    /// The request with a head of our own: nothing of the client's is passed on but what was read. Where it asks for an
    /// upgrade, also what the far end proves by that it agreed.
    fn rebuilt(self, http2: bool, scheme: Scheme, body: Sent) -> (Request<Sent>, Option<HeaderValue>) {
        let Outgoing { asked, mut head, version: _, forwarded } = self;
        strip(&mut head.headers);
        if let Some(element) = forwarded {
            strip_forwarded(&mut head.headers);
            if let Ok(element) = HeaderValue::try_from(element) {
                head.headers.insert(FORWARDED, element);
            }
        }
        head.headers.remove(HOST);
        let proof = asked.upgrade.and_then(|_| upgrade::ask(&mut head.headers));
        let mut uri = Uri::builder();
        if http2 {
            // RFC 9113 section 8.3.1: `:authority` takes the place of `Host`.
            uri = uri.scheme(scheme).authority(asked.authority.as_bytes());
        } else {
            head.headers.insert(HOST, asked.authority.clone());
        }
        let uri = uri.path_and_query(asked.target).build().unwrap_or_default();
        let mut request = Request::new(body);
        *request.method_mut() = asked.method;
        *request.uri_mut() = uri;
        *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.headers_mut() = head.headers;
        match request.body().continued() {
            // An HTTP/2 server is not asked first: its flow control bounds what it did not ask for.
            Some(continued) if http2 => continued.go_on(),
            Some(continued) => {
                request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
                hyper::ext::on_informational(&mut request, move |answer| {
                    if answer.status() == hyper::StatusCode::CONTINUE {
                        continued.go_on();
                    }
                });
            }
            None => {}
        }
        (request, proof)
    }
}
