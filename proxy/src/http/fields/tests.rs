use super::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn stripped(fields: &[(&'static str, &'static str)]) -> Vec<String> {
    let mut headers = map(fields);
    strip(&mut headers);
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_belongs_to_one_hop_stays_on_it() {
    let kept = stripped(&[
        ("connection", "close, x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic c2VjcmV0"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("accept", "*/*"),
    ]);
    assert_eq!(kept, ["accept: */*"]);
}

#[test]
fn trailers_are_still_wanted() {
    assert_eq!(stripped(&[("te", "gzip, Trailers"), ("connection", "te")]), ["te: trailers"]);
}

#[test]
fn connection_takes_nothing_away_that_the_message_needs() {
    let kept = stripped(&[
        ("connection", "host, authorization, x-a"),
        ("host", "a"),
        ("authorization", "b"),
        ("x-a", "c"),
    ]);
    assert_eq!(kept, ["authorization: b", "host: a"]);
}

#[test]
fn no_identity_can_be_forged() {
    let forged = IDENTITIES.map(|name| (name, "spiffe://example.org/admin"));
    assert_eq!(stripped(&forged), [""; 0]);
    let spelt = [("x_forwarded_client_cert", "a"), ("x-sidegate_peer", "b"), ("x_forwarded_for", "c")];
    assert_eq!(stripped(&spelt), ["x_forwarded_for: c"], "an address is told by nobody else here");
}

#[test]
fn no_address_can_be_forged_where_the_proxy_tells_it() {
    let forged = OF_THE_CLIENT.map(|name| (name, "8.8.8.8"));
    let mut headers = map(&forged);
    headers.extend(map(&[
        ("x_forwarded_for", "8.8.8.8"),
        ("true_client-ip", "8.8.8.8"),
        ("x-forwarded-forge", "kept"),
    ]));
    strip_forwarded(&mut headers);
    assert_eq!(headers, map(&[("x-forwarded-forge", "kept")]));
    let mut trailers = map(&forged);
    strip_trailers(&mut trailers);
    assert!(trailers.is_empty());
}

#[test]
fn trailers_neither_frame_nor_route() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("content-length", "5"),
        ("host", "b"),
        ("transfer-encoding", "chunked"),
    ]);
    strip_trailers(&mut trailers);
    assert_eq!(trailers, map(&[("grpc-status", "0")]));
}
