//! Requests that two readers could take differently, over every way in: what the client hears, exactly which bytes arrive,
//! how many records there are. Beside each class stands a naive reader for whom the same bytes are two requests.

use std::sync::{Arc, Mutex};

use sidegate_certs::tls::HTTP1;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use super::{
    super::world::{Zone, web},
    inspected::sealed,
    *,
};

const ZONE_V6: Zone = &[("www.ok.example", &["2606:2800:21f:cb07::34"])];

/// A way in: the rule's treatment, the destination, the zone.
const WAYS: [(&str, &str, Zone); 4] = [
    ("none", "93.184.216.34:80", ZONE),
    ("none", "[2606:2800:21f:cb07::34]:80", ZONE_V6),
    ("inspect", "93.184.216.34:443", ZONE),
    ("inspect", "[2606:2800:21f:cb07::34]:443", ZONE_V6),
];

fn rules(mode: &str) -> String {
    let how = if mode == "inspect" {
        "tls: { mode: inspect }"
    } else {
        "protocol: http\n      tls: { mode: none }"
    };
    format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: test }}\nspec:\n  egress:\n    - name: api\n      reason: \"a test\"\n      to: [ {{ hosts: [ www.ok.example ] }} ]\n      ports: [ 80, 443 ]\n      {how}\n      http: [ {{ methods: [ GET, HEAD, POST ], paths: [ \"/v1/**\" ] }} ]\n"
    )
}

/// Answers every request that a plain reader finds, and keeps the bytes as they came.
fn recorder(listener: TcpListener, sealed: bool) -> Arc<Mutex<Vec<u8>>> {
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let bytes = Arc::clone(&seen);
    let credential = Arc::new(arc_swap::ArcSwap::from_pointee(web().1.clone()));
    let config =
        sidegate_certs::tls::serve(credential, &[HTTP1], sidegate_certs::tls::system_time()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (bytes, acceptor) = (Arc::clone(&bytes), acceptor.clone());
            tokio::spawn(async move {
                if !sealed {
                    return record(stream, &bytes).await;
                }
                if let Ok(stream) = acceptor.accept(stream).await {
                    record(stream, &bytes).await;
                }
            });
        }
    });
    seen
}

async fn record(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Vec<u8>>) {
    let mut unread = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut chunk).await else { return };
        seen.lock().unwrap().extend_from_slice(&chunk[..read]);
        unread.extend_from_slice(&chunk[..read]);
        while let Some(length) = first(&unread, Reader::Standard) {
            unread.drain(..length);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
    }
}

/// How a server finds the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// `Transfer-Encoding` overrides `Content-Length`. RFC 9112 section 6.3.
    Standard,
    /// It knows nothing of chunks.
    ByLength,
    /// It reads no body at all where it expects none.
    NoBody,
}

/// The length of the first whole request.
fn first(bytes: &[u8], reader: Reader) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    let chunked = field("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let length: usize = field("content-length").and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    match reader {
        Reader::NoBody => Some(head),
        Reader::Standard if chunked => {
            let end = bytes[head..].windows(5).position(|five| five == b"0\r\n\r\n")?;
            Some(head + end + 5)
        }
        _ => (bytes.len() >= head + length).then_some(head + length),
    }
}

/// The paths that a reader takes for requests.
fn requests(mut bytes: &[u8], reader: Reader) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(length) = first(bytes, reader) {
        let line = String::from_utf8_lossy(&bytes[..length]).lines().next().unwrap_or_default().to_owned();
        found.push(line.split(' ').nth(1).unwrap_or_default().to_owned());
        bytes = &bytes[length..];
    }
    found
}

/// Everything that a client hears who says `words` and no more; and every byte that arrived, with the records.
async fn heard(way: (&str, &str, Zone), words: &[u8], answers: usize) -> (Vec<u16>, Vec<u8>) {
    let (mode, address, zone) = way;
    let world = World::start(&rules(mode), zone).await;
    let seen = recorder(world.origin(address).await, mode == "inspect");
    let heard = if mode == "inspect" {
        let pem = world.worker.gate.inspection.authority_pem().unwrap();
        let client = sealed(&world, address, "www.ok.example", &pem).await.unwrap();
        said(client, words).await
    } else {
        said(world.client(address).await, words).await
    };
    let statuses = statuses(&heard);
    assert_eq!(world.records(answers).await.len(), answers);
    let seen = seen.lock().unwrap().clone();
    (statuses, seen)
}

async fn said(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> Vec<u8> {
    stream.write_all(words).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    heard
}

fn statuses(heard: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(heard);
    let lines = text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok());
    lines.filter(|status| *status != 100).collect()
}

const GET: &str = "GET /v1/a HTTP/1.1\r\nHost: www.ok.example\r\n\r\n";
const EVIL: &str = "GET /v2/evil HTTP/1.1\r\nHost: www.ok.example\r\n\r\n";
const GOT: &str = "GET /v1/a HTTP/1.1\r\nhost: www.ok.example\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST /v1/a HTTP/1.1\r\nHost: www.ok.example\r\n{fields}\r\n{body}")
}

fn with(line: &str) -> String {
    GET.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1)
}

/// Refused whole: one answer, one record, not a byte that arrives.
fn refused() -> Vec<(&'static str, String, u16)> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let smuggled = format!("0\r\n\r\n{EVIL}");
    let length = smuggled.len();
    vec![
        ("35 CL.TE", post(&format!("Content-Length: {length}\r\n{chunked}"), &smuggled), 400),
        (
            "35 TE.CL",
            post(&format!("{chunked}Content-Length: 4\r\n"), &format!("5c\r\n{EVIL}\r\n0\r\n\r\n")),
            400,
        ),
        ("38 TE identity", post("Transfer-Encoding: identity\r\n", ""), 400),
        ("38 TE list", post("Transfer-Encoding: gzip, chunked\r\n", &smuggled), 400),
        ("38 TE odd token", post("Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n", "abc"), 400),
        ("38 TE quoted", post("Transfer-Encoding: \"chunked\"\r\n", &smuggled), 400),
        ("38 TE vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", &smuggled), 400),
        ("38 TE twice", post(&format!("{chunked}{chunked}"), &smuggled), 400),
        ("38 TE and identity", post(&format!("{chunked}Transfer-Encoding: identity\r\n"), &smuggled), 400),
        ("38 TE in 1.0", post(chunked, &smuggled).replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("39 CL twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400),
        (
            "39 CL twice, different",
            post(&format!("Content-Length: 0\r\nContent-Length: {}\r\n", EVIL.len()), EVIL),
            400,
        ),
        ("39 CL list", post("Content-Length: 3, 3\r\n", "abc"), 400),
        ("39 CL plus", post("Content-Length: +3\r\n", "abc"), 400),
        ("39 CL negative", post("Content-Length: -1\r\n", "abc"), 400),
        ("39 CL hexadecimal", post("Content-Length: 0x3\r\n", "abc"), 400),
        ("39 CL empty", post("Content-Length: \r\n", "abc"), 400),
        ("39 CL beyond 64 bits", post("Content-Length: 18446744073709551616\r\n", "abc"), 400),
        ("42 bare LF", GET.replace("\r\n", "\n"), 400),
        ("42 bare LF in one line", GET.replacen("\r\n", "\n", 1), 400),
        ("42 bare CR", with("X: a\rb"), 400),
        ("42 obs-fold", with("X: a\r\n b"), 400),
        ("42 space before colon", with("X : a"), 400),
        ("42 no name", with(": a"), 400),
        ("42 NUL", with("X: a\0b"), 400),
        ("44 two hosts", with("Host: evil.example"), 400),
        ("44 the same host twice", with("Host: www.ok.example"), 400),
        ("44 no host", "GET /v1/a HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("44 a host with a user", GET.replace("www.ok", "u@www.ok"), 400),
        ("45 another absolute target", GET.replace("GET /v1/a", "GET http://evil.example/v1/a"), 403),
        (
            "53 CONNECT",
            "CONNECT www.ok.example:443 HTTP/1.1\r\nHost: www.ok.example:443\r\n\r\n".to_owned(),
            400,
        ),
        ("57 a fragment", GET.replace("/v1/a", "/v1/a#b"), 400),
        ("58 an encoded slash", GET.replace("/v1/a", "/v1/..%2f..%2fv2"), 400),
        ("58 an encoded backslash", GET.replace("/v1/a", "/v1/..%5cv2"), 400),
        ("58 encoded twice", GET.replace("/v1/a", "/v1/%252e%252e/v2"), 400),
        ("58 NUL", GET.replace("/v1/a", "/v1/a%00"), 400),
        ("61 no version", GET.replace(" HTTP/1.1", ""), 400),
        ("61 another version", GET.replace("HTTP/1.1", "HTTP/1.2"), 400),
        ("61 two spaces", GET.replace("GET ", "GET  "), 400),
        ("62 another method", GET.replace("GET", "PURGE"), 403),
        ("66 another expectation", post("Content-Length: 3\r\nExpect: y 100-continue\r\n", "abc"), 400),
    ]
}

/// Not refused, or not whole: the answers in order, and exactly what arrives.
fn carried() -> Vec<(&'static str, String, &'static [u16], String)> {
    let posted = |body: &str| {
        format!("POST /v1/a HTTP/1.1\r\ncontent-length: {}\r\nhost: www.ok.example\r\n\r\n{body}", body.len())
    };
    let smuggled = post(&format!("Content-Length: {}\r\n", EVIL.len()), EVIL);
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    vec![
        ("a plain request", GET.to_owned(), &[200], GOT.to_owned()),
        ("37 a request in a body is a body", smuggled, &[200], posted(EVIL)),
        (
            "37 a body of GET",
            GET.replacen("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc", 1),
            &[200],
            GOT.replace("host", "content-length: 3\r\nhost") + "abc",
        ),
        ("47 pipelined, the second is denied", [GET, EVIL].concat(), &[200, 403], GOT.to_owned()),
        ("48 a later host", [GET, &GET.replace("www.ok", "evil")].concat(), &[200, 403], GOT.to_owned()),
        (
            "37 0.CL: what follows an empty body is a request",
            [&post("Content-Length: 0\r\n", ""), EVIL].concat(),
            &[200, 403],
            posted(""),
        ),
        (
            "45 the same absolute target",
            GET.replace("GET /v1/a", "GET http://www.ok.example/v1/a"),
            &[200],
            GOT.to_owned(),
        ),
        ("56 dots", GET.replace("/v1/a", "/v1/x/../a"), &[200], GOT.to_owned()),
        ("56 encoded dots", GET.replace("/v1/a", "/v1/%2e%2e/v1/a"), &[200], GOT.to_owned()),
        ("56 dots that leave", GET.replace("/v1/a", "/v1/../v2"), &[403], String::new()),
        ("56 empty segments", GET.replace("/v1/a", "//v1//a"), &[200], GOT.to_owned()),
        ("64 an identity", with("X-Forwarded-Client-Cert: By=spiffe://x"), &[200], GOT.to_owned()),
        ("60 named by Connection", with("Connection: x-a, close\r\nX-A: 1"), &[200], GOT.to_owned()),
        ("a second line of blanks", format!("{GET}\r\n{GET}"), &[200, 400], GOT.to_owned()),
        (
            "41 a chunk extension",
            [GET, &chunked("3;x=1\r\nabc\r\n0\r\n\r\n")].concat(),
            &[200, 400],
            String::new(),
        ),
        (
            "41 a chunk that is too long",
            [GET, &chunked("3\r\nabcd\r\n0\r\n\r\n")].concat(),
            &[200, 400],
            String::new(),
        ),
    ]
}

#[tokio::test]
async fn what_readers_could_take_differently_is_refused_whole() {
    let mut wrong = Vec::new();
    for way in WAYS {
        for (case, words, status) in refused() {
            let (statuses, seen) = heard(way, words.as_bytes(), 1).await;
            if statuses != [status] || !seen.is_empty() {
                wrong.push(format!(
                    "{case} by {} to {}: {statuses:?} {}",
                    way.0,
                    way.1,
                    String::from_utf8_lossy(&seen)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn what_is_carried_arrives_as_one_reader_and_all_take_it() {
    let mut wrong = Vec::new();
    for way in WAYS {
        for (case, words, expected, arrived) in carried() {
            let (statuses, seen) = heard(way, words.as_bytes(), expected.len()).await;
            // Of a body that breaks off, what came before may have arrived; nothing that a reader takes for a request.
            let as_it_should = if case.starts_with("41") {
                requests(&seen, Reader::Standard) == ["/v1/a"]
            } else {
                seen == arrived.as_bytes()
            };
            if statuses != expected || !as_it_should {
                wrong.push(format!(
                    "{case} by {} to {}: {statuses:?} {}",
                    way.0,
                    way.1,
                    String::from_utf8_lossy(&seen)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The control: forwarded as they came, the same bytes are a request that no rule allows, for one reader or another.
#[test]
fn forwarded_as_they_came_they_are_other_requests_for_some_reader() {
    let readings = |words: &str| {
        [Reader::Standard, Reader::ByLength, Reader::NoBody].map(|reader| requests(words.as_bytes(), reader))
    };
    let smuggles =
        |words: &str| readings(words).iter().any(|paths| paths.iter().any(|path| path == "/v2/evil"));
    let agree = |words: &str| readings(words).iter().all(|paths| paths == &["/v1/a"]);
    for case in ["35 CL.TE", "38 TE list", "38 TE quoted", "38 TE twice", "39 CL twice, different"] {
        let (_, words, _) = refused().into_iter().find(|(name, ..)| *name == case).unwrap();
        assert!(smuggles(&words) && !agree(&words), "{case}");
    }
    for (case, words, _, arrived) in carried().into_iter().filter(|(case, ..)| case.starts_with("47")) {
        assert!(smuggles(&words) && agree(&arrived), "{case}");
    }
}
