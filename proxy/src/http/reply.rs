//! What a client is answered: by the far end, with a head of our own, or in words of ours.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode,
    body::{Body, Incoming},
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT},
    http::response,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use sidegate_api::CloseReason;
use sidegate_policy::{Reason, reason::Side};

use super::{
    asked::Asked,
    body::Reply,
    denial::Denial,
    engine::Client,
    exchange::Exchange,
    fields::strip,
    tunnel::Switched,
    upgrade::{agree, agreed},
};
use crate::connection::{
    connect::ConnectError, decide::Facts, explain::in_words, live::Judgement, record::Record,
};

/// A switch of protocols that the far end was asked for.
pub(super) struct Switch {
    /// What it has to say to agree.
    pub(super) proof: HeaderValue,
    /// The client's stream, where it is one of HTTP/2.
    pub(super) client: Option<OnUpgrade>,
}

/// The far end's answer, with a head of our own.
pub(super) fn pass_on(
    mut exchange: Exchange,
    switch: Option<Switch>,
    mut answer: Response<Incoming>,
    method: &Method,
) -> Response<Reply> {
    let agreed =
        switch.as_ref().is_some_and(|switch| agreed(answer.status(), answer.headers(), &switch.proof));
    let http2 = switch.as_ref().is_some_and(|switch| switch.client.is_some());
    if let Some(switch) = switch.filter(|_| agreed) {
        let upstream = hyper::upgrade::on(&mut answer);
        return pass_over(exchange, switch, upstream, answer);
    }
    let status = answer.status();
    // Nobody asked to change protocols, or to this one; and any success would open the stream of an HTTP/2 client.
    if status == StatusCode::SWITCHING_PROTOCOLS || http2 && status.is_success() {
        let error = ConnectError::new(
            Reason::UpstreamMalformed,
            format!("{status} that does not answer the request"),
        );
        exchange.upstream = None;
        return fail(exchange, error, method);
    }
    let (response::Parts { mut headers, .. }, body) = answer.into_parts();
    strip(&mut headers);
    exchange.record.answered(status.as_u16());
    exchange.record.closed(if body.is_end_stream() { CloseReason::Done } else { CloseReason::ClientReset });
    let mut response = Response::new(Reply::Theirs(body, Box::new(exchange)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Both sides go on with the other protocol.
fn pass_over(
    mut exchange: Exchange,
    switch: Switch,
    upstream: OnUpgrade,
    answer: Response<Incoming>,
) -> Response<Reply> {
    let (response::Parts { status, mut headers, .. }, _) = answer.into_parts();
    exchange.upstream = None;
    // What came before the answer could be read two ways, and nothing of it was handed on.
    if switch.client.is_none() && !exchange.client.upgraded() {
        let reason = exchange.client.tells_refusal().unwrap_or(Reason::HttpMalformed);
        return refuse(exchange, Judgement::refused(reason), &Method::GET);
    }
    exchange.record.answered(status.as_u16());
    exchange.record.closed(CloseReason::ClientReset);
    strip(&mut headers);
    let client = Arc::clone(&exchange.client);
    let switched = Switched { exchange: Box::new(exchange), upstream };
    let mut response = Response::new(Reply::Ours(None));
    match switch.client {
        None => {
            agree(&mut headers);
            *response.status_mut() = status;
            client.switch(switched);
        }
        Some(stream) => {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            tokio::spawn(async move {
                if let Ok(stream) = stream.await {
                    switched.relay(&mut TokioIo::new(stream), Bytes::new(), None).await;
                }
            });
        }
    }
    *response.headers_mut() = headers;
    response
}

pub(super) fn refuse(mut exchange: Exchange, judgement: Judgement, method: &Method) -> Response<Reply> {
    let mut response = words(&judgement, method, exchange.record.facts.as_deref());
    exchange.record.denied(judgement);
    exchange.record.answered(response.status().as_u16());
    if exchange.client.refused().is_some() {
        // Nothing more that the client says is read.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

pub(super) fn fail(mut exchange: Exchange, error: ConnectError, method: &Method) -> Response<Reply> {
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
pub(super) fn broken_off(mut exchange: Exchange, method: &Method) -> Response<Reply> {
    match exchange.client.tells_refusal() {
        Some(reason) => refuse(exchange, Judgement::refused(reason), method),
        None => {
            exchange.record.closed(CloseReason::ClientReset);
            words(&Judgement::refused(Reason::ClassifyEof), method, exchange.record.facts.as_deref())
        }
    }
}

/// A request that can't be judged: not well-formed, or for somebody else than its connection.
pub(super) fn unread(
    client: Arc<Client>,
    asked: Option<Asked>,
    method: &Method,
    reason: Reason,
) -> Response<Reply> {
    let facts = Arc::clone(&client.facts);
    let mut record = Record::of_request(&client.worker, client.source, client.original, facts);
    if let Some(asked) = &asked {
        record.requested(asked.method.as_str(), asked.path.as_str());
    }
    let exchange = Exchange { record, progress: Arc::default(), upstream: None, client };
    refuse(exchange, Judgement::refused(reason), method)
}

/// What a client is told instead of an answer.
pub(super) fn words(judgement: &Judgement, method: &Method, facts: Option<&Facts>) -> Response<Reply> {
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
