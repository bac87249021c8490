//! Which fields pass a proxy: not those of one hop, and none by which a workload could claim to be somebody else.
//! RFC 9110 section 7.6.1.

#[cfg(test)]
mod tests;

use hyper::{
    HeaderMap,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONNECTION, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    },
};

/// Fields of one hop, beside those that `Connection` names.
const OF_ONE_HOP: [HeaderName; 6] =
    [CONNECTION, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE];
const ALSO_OF_ONE_HOP: [&str; 4] = ["keep-alive", "proxy-connection", "http2-settings", "expect"];

/// Identities that meshes put into fields; a peer believes its own proxy's alone.
const IDENTITIES: [&str; 3] = ["x-forwarded-client-cert", "l5d-client-id", "x-sidegate-peer"];

/// Fields that `Connection` may not take away: without them the message would be another one.
const NEEDED: [&str; 5] = ["host", "content-length", "content-type", "authorization", "cookie"];

/// Removes what doesn't pass. `TE: trailers` stays, since trailers do pass.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let trailers = wants_trailers(headers);
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
    for name in ALSO_OF_ONE_HOP {
        headers.remove(name);
    }
    remove_however_spelt(headers, &IDENTITIES);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// All that a health probe may say beside its path: anybody may send one, and no other word of theirs reaches the application.
const OF_A_PROBE: [HeaderName; 3] = [ACCEPT, ACCEPT_ENCODING, USER_AGENT];

/// Removes what a health probe has no need of.
pub(crate) fn keep_of_a_probe(headers: &mut HeaderMap) {
    let others: Vec<HeaderName> = headers.keys().filter(|name| !OF_A_PROBE.contains(name)).cloned().collect();
    for name in others {
        headers.remove(name);
    }
}

/// What tells of a client's address: RFC 7239, what was there before it, and what proxies of others say.
const OF_THE_CLIENT: [&str; 14] = [
    "forwarded",
    "x-forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
];

/// Removes what a client says of its own address, where the proxy tells it.
pub(crate) fn strip_forwarded(headers: &mut HeaderMap) {
    remove_however_spelt(headers, &OF_THE_CLIENT);
}

/// An application behind CGI or WSGI can't tell `_` from `-` in a field's name (RFC 3875 section 4.1.18): to it both are
/// one field.
fn remove_however_spelt(headers: &mut HeaderMap, names: &[&str]) {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let is_one =
        |field: &HeaderName| names.iter().any(|name| field.as_str().bytes().map(folded).eq(name.bytes()));
    let found: Vec<HeaderName> = headers.keys().filter(|field| is_one(field)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes what trailers may not carry: what frames, routes or authenticates. RFC 9110 section 6.5.1.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    for name in OF_ONE_HOP.into_iter().chain([TRAILER]) {
        trailers.remove(name);
    }
    for name in ALSO_OF_ONE_HOP.into_iter().chain(NEEDED) {
        trailers.remove(name);
    }
    remove_however_spelt(trailers, &IDENTITIES);
    remove_however_spelt(trailers, &OF_THE_CLIENT);
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let tokens = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
    };
    headers.get_all(TE).iter().any(tokens)
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names =
        names.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    names.filter(|name| !NEEDED.contains(&name.as_str())).collect()
}
