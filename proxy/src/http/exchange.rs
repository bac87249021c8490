//! One request and its answer: judged, forwarded with a head of our own, recorded.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue},
    http::{response, uri::Scheme},
};
use sidegate_api::CloseReason;
use sidegate_policy::{Reason, reason::Side};

use super::{
    asked::Asked,
    body::{Progress, Reply, Sent},
    denial::Denial,
    engine::Client,
    fields::strip,
    upstream::{Unanswered, Upstream, upstream_for},
};
use crate::connection::{
    connect::ConnectError,
    decide::{Facts, Permit, decide},
    explain::in_words,
    live::Judgement,
    record::Record,
};

/// A request under way. Dropped, it is recorded.
pub(crate) struct Exchange {
    pub(super) record: Record,
    progress: Arc<Progress>,
    /// Goes back to the pool when the answer was read to its end.
    upstream: Option<Upstream>,
    client: Arc<Client>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record.sent = self.progress.sent.load(Relaxed);
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
        (Ok(asked), Ok(facts)) => (asked, Arc::new(facts)),
        (asked, Ok(_)) | (asked, Err(_)) => {
            let reason = facts_fault(&asked, &client);
            return unread(client, asked.ok(), &head.method, reason);
        }
    };
    let mut record = Record::of_request(&client.worker, client.source, client.original, Arc::clone(&facts));
    record.requested(asked.method.as_str(), asked.path.as_str());
    let exchange = Exchange { record, progress: Arc::default(), upstream: None, client };
    match admit(&exchange, facts) {
        Ok(permit) => forward(exchange, permit, asked, head, body).await,
        Err(judgement) => refuse(exchange, judgement, &asked.method),
    }
}

fn facts_fault(asked: &Result<Asked, Reason>, client: &Client) -> Reason {
    match asked {
        Err(reason) => *reason,
        Ok(asked) => asked.facts(&client.facts).err().unwrap_or(Reason::HttpMalformed),
    }
}

/// Judges by the set of the moment.
fn admit(exchange: &Exchange, facts: Arc<Facts>) -> Result<Permit, Judgement> {
    let policies = &exchange.client.worker.gate.policies;
    let entry = &exchange.record.entry;
    let outcome = {
        let set = policies.current();
        match decide(&set, facts) {
            Ok(permit) => {
                entry.permitted(&permit, Judgement::of(&set, permit.decision()));
                Ok(permit)
            }
            Err(denied) => Err(Judgement::of(&set, &denied.decision)),
        }
    };
    // A set that came between judging and registering has not seen this request.
    entry.catch_up(policies);
    outcome
}

/// Forwards a permitted request and hands its answer on.
async fn forward(
    mut exchange: Exchange,
    permit: Permit,
    asked: Asked,
    head: hyper::http::request::Parts,
    body: Incoming,
) -> Response<Reply> {
    let live = exchange.record.entry.live();
    let method = asked.method.clone();
    let sent = Sent::new(body, Arc::clone(&exchange.progress), Arc::clone(&live));
    let client = Arc::clone(&exchange.client);
    let outgoing = Outgoing { asked, head, version: client.upstream_version() };
    let asking = ask(&client, permit, outgoing, sent);
    match live.until_closed(Box::pin(async { Some(asking.await) })).await {
        Some(Ok((upstream, answer))) => {
            exchange.record.upstream = Some(upstream.address);
            exchange.record.tls = upstream.tls;
            exchange.record.entry.dialled(upstream.address);
            exchange.record.entry.handshaken(exchange.record.tls);
            exchange.record.entry.catch_up(&client.worker.gate.policies);
            exchange.upstream = Some(upstream);
            pass_on(exchange, answer)
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
    head: hyper::http::request::Parts,
    version: Version,
}

/// Finds a connection and asks. Only a request of which an idle connection sent nothing is asked again.
async fn ask(
    client: &Client,
    permit: Permit,
    outgoing: Outgoing,
    body: Sent,
) -> Result<(Upstream, Response<Incoming>), ConnectError> {
    let (facts, version) = (Arc::clone(permit.facts()), outgoing.version);
    let (mut upstream, idle) = upstream_for(&client.worker, permit, version).await?;
    let scheme = if upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let request = outgoing.rebuilt(upstream.is_http2(), scheme, body);
    match upstream.send(request).await {
        Ok(answer) => Ok((upstream, answer)),
        Err(Unanswered { unsent: Some(request), .. }) if idle => {
            let again = decide(&client.worker.gate.policies.current(), facts).map_err(|denied| {
                ConnectError::new(denied.decision.reason, "the policy changed meanwhile")
            })?;
            let (mut upstream, _) = upstream_for(&client.worker, again, version).await?;
            match upstream.send(request).await {
                Ok(answer) => Ok((upstream, answer)),
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
    /// The request with a head of our own: nothing of the client's is passed on but what was read.
    fn rebuilt(self, http2: bool, scheme: Scheme, body: Sent) -> Request<Sent> {
        let Outgoing { asked, mut head, version: _ } = self;
        strip(&mut head.headers);
        head.headers.remove(HOST);
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
        request
    }
}

/// The far end's answer, with a head of our own.
fn pass_on(mut exchange: Exchange, answer: Response<Incoming>) -> Response<Reply> {
    use hyper::body::Body;
    let (head, body) = answer.into_parts();
    let response::Parts { status, mut headers, .. } = head;
    // Nobody asked to change protocols.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let error = ConnectError::new(Reason::UpstreamMalformed, "101 without an upgrade");
        exchange.upstream = None;
        return fail(exchange, error, &Method::GET);
    }
    strip(&mut headers);
    exchange.record.answered(status.as_u16());
    exchange.record.closed(if body.is_end_stream() { CloseReason::Done } else { CloseReason::ClientReset });
    let mut response = Response::new(Reply::Theirs(body, Box::new(exchange)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn refuse(mut exchange: Exchange, judgement: Judgement, method: &Method) -> Response<Reply> {
    let response = words(&judgement, method, exchange.record.facts.as_deref());
    exchange.record.denied(judgement);
    exchange.record.answered(response.status().as_u16());
    response
}

fn fail(mut exchange: Exchange, error: ConnectError, method: &Method) -> Response<Reply> {
    let ConnectError { reason, detail } = error;
    let close = match reason.side() {
        Side::Policy => CloseReason::Denied,
        _ if exchange.upstream.is_some() => CloseReason::UpstreamReset,
        _ => CloseReason::ConnectFailed,
    };
    exchange.record.failed(reason, format!("{} ({detail})", in_words(reason)), close);
    let judgement = exchange.record.outcome().cloned().unwrap_or_else(|| Judgement::refused(reason));
    let response = words(&judgement, method, exchange.record.facts.as_deref());
    exchange.record.answered(response.status().as_u16());
    response
}

/// The client's own doing: what came of the body is not in order, or no more comes.
fn broken_off(mut exchange: Exchange, method: &Method) -> Response<Reply> {
    match exchange.client.refused() {
        Some(reason) => refuse(exchange, Judgement::refused(reason), method),
        None => {
            exchange.record.closed(CloseReason::ClientReset);
            words(&Judgement::refused(Reason::ClassifyEof), method, exchange.record.facts.as_deref())
        }
    }
}

/// A request that can't be judged: not well-formed, or for somebody else than its connection.
fn unread(client: Arc<Client>, asked: Option<Asked>, method: &Method, reason: Reason) -> Response<Reply> {
    let facts = Arc::clone(&client.facts);
    let mut record = Record::of_request(&client.worker, client.source, client.original, facts);
    if let Some(asked) = &asked {
        record.requested(asked.method.as_str(), asked.path.as_str());
    }
    let exchange = Exchange { record, progress: Arc::default(), upstream: None, client };
    refuse(exchange, Judgement::refused(reason), method)
}

/// What a client is told instead of an answer.
fn words(judgement: &Judgement, method: &Method, facts: Option<&Facts>) -> Response<Reply> {
    let rule = judgement.policy.as_deref().zip(judgement.rule.as_deref());
    let rule = rule.map(|(policy, rule)| format!("{policy}/{rule}"));
    let denial = Denial {
        reason: judgement.reason,
        rule: rule.as_deref(),
        host: facts.and_then(|facts| facts.host.as_ref()).map(|(_, host)| host),
        explanation: judgement.explanation.as_deref(),
        head: method == Method::HEAD,
    };
    let mut response = Response::new(Reply::Ours(Some(Bytes::from(denial.body()))));
    *response.status_mut() = StatusCode::from_u16(denial.status().0).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
