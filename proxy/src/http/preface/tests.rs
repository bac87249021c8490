use proptest::prelude::*;

use super::*;

fn push_all<'a>(
    reader: &mut PrefaceReader,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> PrefaceProgress {
    let mut last = PrefaceProgress::NeedMore;
    for piece in pieces {
        last = reader.push(piece);
    }
    last
}

/// The verdict, which must be the same byte by byte.
fn read(bytes: &[u8]) -> PrefaceProgress {
    let whole = PrefaceReader::new(4096).push(bytes);
    assert_eq!(push_all(&mut PrefaceReader::new(4096), bytes.chunks(1)), whole, "{:?}", bytes.escape_ascii().to_string());
    whole
}

fn http1(method: &str, target: &str, host: Option<&str>) -> PrefaceProgress {
    PrefaceProgress::Done(Preface::Http1 {
        method: method.to_owned(),
        target: target.to_owned(),
        host: host.map(|host| HostName::parse(host).unwrap()),
        host_address: None,
        body: BodyLength::Exactly(0),
    })
}

#[test]
fn sound_heads_are_read() {
    let named = Some("a.example");
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", http1("GET", "/", named)),
        ("GET /x?token=secret HTTP/1.1\r\nhost:\ta.example:8080 \r\nX: \r\n\r\n", http1("GET", "/x", named)),
        ("POST /x HTTP/1.1\r\nHOST: A.Example.\r\nContent-Length: 3\r\n\r\nabc", http1("POST", "/x", named)),
        ("PURGE /x HTTP/1.1\r\nHost: a.example\r\n\r\n", http1("PURGE", "/x", named)),
        ("get / HTTP/1.1\r\nHost: a.example\r\n\r\n", http1("get", "/", named)),
        ("GET http://a.example/p?q HTTP/1.1\r\nHost: a.example:80\r\n\r\n", http1("GET", "/p", named)),
        ("GET HTTP://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", http1("GET", "/", named)),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", http1("CONNECT", "a.example:443", named)),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", http1("OPTIONS", "*", named)),
        ("GET / HTTP/1.0\r\n\r\n", http1("GET", "/", None)),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nX: \u{e9}\r\nTransfer-Encoding: chunked\r\n\r\n", http1("GET", "/", named)),
    ] {
        assert_eq!(read(head.as_bytes()), expected, "{head}");
    }
}

#[test]
fn hosts_that_are_addresses_are_told_apart() {
    for (host, address) in [("192.0.2.1:80", "192.0.2.1"), ("[2001:db8::1]:80", "2001:db8::1")] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let PrefaceProgress::Done(Preface::Http1 { host: None, host_address, .. }) = read(head.as_bytes()) else {
            panic!("{host}")
        };
        assert_eq!(host_address, Some(address.parse().unwrap()));
    }
}

#[test]
fn heads_that_readers_disagree_about_are_refused() {
    use PrefaceError::{HostInvalid, HostMismatch, Malformed};
    let cases = [
        ("bare_lf_in_the_request_line", Malformed, "GET / HTTP/1.1\nHost: a.example\r\n\r\n"),
        ("bare_lf_in_a_header", Malformed, "GET / HTTP/1.1\r\nHost: a.example\nHost: b.example\r\n\r\n"),
        ("bare_cr", Malformed, "GET / HTTP/1.1\r\nHost: a.example\rX: b\r\n\r\n"),
        ("bare_lf_at_the_end", Malformed, "GET / HTTP/1.1\r\nHost: a.example\r\n\n"),
        ("folded_line", Malformed, "GET / HTTP/1.1\r\nHost: a.example\r\n b.example\r\n\r\n"),
        ("folded_first_line", Malformed, "GET / HTTP/1.1\r\n Host: a.example\r\n\r\n"),
        ("space_before_the_colon", Malformed, "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n"),
        ("header_without_colon", Malformed, "GET / HTTP/1.1\r\nHost\r\n\r\n"),
        ("header_without_name", Malformed, "GET / HTTP/1.1\r\n: x\r\nHost: a.example\r\n\r\n"),
        ("two_hosts", Malformed, "GET / HTTP/1.1\r\nHost: a.example\r\nhost: b.example\r\n\r\n"),
        ("two_equal_hosts", Malformed, "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n"),
        ("no_host", Malformed, "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        ("no_host_but_an_absolute_target", Malformed, "GET http://a.example/ HTTP/1.1\r\n\r\n"),
        ("empty_host", HostInvalid, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("absolute_target_of_another_host", HostMismatch, "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        ("absolute_target_of_another_port", HostMismatch, "GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("connect_to_another_host", HostMismatch, "CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n"),
        ("connect_without_port", Malformed, "CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("user_name_in_the_host", Malformed, "GET / HTTP/1.1\r\nHost: a.example@b.example\r\n\r\n"),
        ("user_name_in_the_target", Malformed, "GET http://a.example@b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        ("two_host_values", HostInvalid, "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n"),
        ("host_with_a_path", HostInvalid, "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n"),
        ("host_with_odd_port", Malformed, "GET / HTTP/1.1\r\nHost: a.example:8x\r\n\r\n"),
        ("host_with_port_0", Malformed, "GET / HTTP/1.1\r\nHost: a.example:0\r\n\r\n"),
        ("host_with_empty_port", Malformed, "GET / HTTP/1.1\r\nHost: a.example:\r\n\r\n"),
        ("host_with_signed_port", Malformed, "GET / HTTP/1.1\r\nHost: a.example:+80\r\n\r\n"),
        ("host_in_hexadecimal", HostInvalid, "GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n"),
        ("host_beyond_ascii", HostInvalid, "GET / HTTP/1.1\r\nHost: a\u{3002}example\r\n\r\n"),
        ("host_with_zone", HostInvalid, "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n"),
        ("space_in_the_target", Malformed, "GET /a b HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("tab_in_the_target", Malformed, "GET /a\tb HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("two_spaces", Malformed, "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("fragment", Malformed, "GET /#x HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("relative_target", Malformed, "GET a HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("target_of_another_scheme", Malformed, "GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("asterisk_for_get", Malformed, "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("nul_in_the_target", Malformed, "GET /\0 HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("nul_in_a_value", Malformed, "GET / HTTP/1.1\r\nHost: a.example\r\nX: \0\r\n\r\n"),
        ("escape_in_a_value", Malformed, "GET / HTTP/1.1\r\nHost: a.example\r\nX: \x1b[2J\r\n\r\n"),
        ("version_0_9", Malformed, "GET /\r\n"),
        ("version_1_2", Malformed, "GET / HTTP/1.2\r\nHost: a.example\r\n\r\n"),
        ("version_2_without_preface", Malformed, "GET / HTTP/2.0\r\nHost: a.example\r\n\r\n"),
        ("version_in_lower_case", Malformed, "GET / http/1.1\r\nHost: a.example\r\n\r\n"),
        ("length_and_encoding", Malformed, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("two_lengths", Malformed, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
        ("signed_length", Malformed, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +3\r\n\r\n"),
        ("odd_encoding", Malformed, "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        ("encoding_in_1_0", Malformed, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("http2_preface_cut_short", Malformed, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    ];
    for (name, error, head) in cases {
        assert_eq!(read(head.as_bytes()), PrefaceProgress::Refused(error), "{name}");
    }
}

#[test]
fn http2_is_known_by_its_whole_preface() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut reader = PrefaceReader::new(4096);
    assert_eq!(reader.push(&[&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()), PrefaceProgress::Done(Preface::Http2));
    assert_eq!(reader.taken(), preface.len());
    assert_eq!(read(&preface[..preface.len() - 1]), PrefaceProgress::NeedMore);
}

#[test]
fn other_protocols_are_told_at_their_first_telling_byte() {
    let cases: [(&[u8], usize); 12] = [
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1),
        (b"\x10\x0c\x00\x04MQTT", 1),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 20),
        (b"SSH-2.0-OpenSSH_9.6 Debian-3\r\n", 30),
        (b"EHLO a.example\r\n", 16),
        (b"*1\r\n$4\r\nPING\r\n", 3),
        (b"PING\r\n", 5),
        (b"AMQP\x00\x00\x09\x01", 5),
        (b"GET\r\n", 4),
        (b" GET / HTTP/1.1\r\n", 1),
        (b"\r\nGET / HTTP/1.1\r\n", 1),
        (b"003egit-upload-pack /x\0host=a.example\0", 23),
    ];
    for (bytes, telling) in cases {
        assert_eq!(read(bytes), PrefaceProgress::NotHttp);
        assert_eq!(read(&bytes[..telling]), PrefaceProgress::NotHttp);
        assert_eq!(read(&bytes[..telling - 1]), PrefaceProgress::NeedMore, "{}", bytes.escape_ascii());
    }
    assert_eq!(read(&[b'A'; 24]), PrefaceProgress::NeedMore);
    assert_eq!(read(&[b'A'; 25]), PrefaceProgress::NotHttp, "no method is that long");
}

#[test]
fn the_budget_is_kept() {
    let endless = [b"GET /".as_slice(), &[b'a'; 5000]].concat();
    let mut reader = PrefaceReader::new(4096);
    assert_eq!(reader.push(&endless), PrefaceProgress::Refused(PrefaceError::TooLarge));
    assert_eq!(reader.taken(), 4096);
    let head = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(PrefaceReader::new(head.len()).push(head), http1("GET", "/", None));
    assert_eq!(PrefaceReader::new(head.len() - 1).push(head), PrefaceProgress::Refused(PrefaceError::TooLarge));
}

proptest! {
    #[test]
    fn any_bytes_get_one_verdict_however_they_are_split(bytes in mutated(), size in 1usize..30) {
        let mut one = PrefaceReader::new(200);
        let mut split = PrefaceReader::new(200);
        prop_assert_eq!(push_all(&mut split, bytes.chunks(size)), one.push(&bytes));
        prop_assert_eq!(split.taken(), one.taken());
    }

    /// What is accepted here is read alike by a parser that was written by others.
    #[test]
    fn accepted_heads_are_understood_alike_elsewhere(bytes in mutated()) {
        if let PrefaceProgress::Done(Preface::Http1 { method, .. }) = PrefaceReader::new(4096).push(&bytes) {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            prop_assert!(request.parse(&bytes).is_ok_and(|status| status.is_complete()));
            prop_assert_eq!(request.method, Some(&*method));
            prop_assert!(request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count() <= 1);
        }
    }
}

/// Sound heads with a few bytes changed, and plain noise.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let heads: Vec<&[u8]> = vec![
        b"GET /path?query HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc",
        b"CONNECT a.example:443 HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PURGE / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n",
        b"",
    ];
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n :\t@/.?0aH".to_vec())];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte), 0..4);
    (prop::sample::select(heads), changes, prop::collection::vec(any::<u8>(), 0..10)).prop_map(
        |(head, changes, tail)| {
            let mut bytes = [head, &tail].concat();
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        },
    )
}
