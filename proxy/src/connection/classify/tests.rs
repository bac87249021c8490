use proptest::prelude::*;

use super::*;
use crate::tls::testing::{HelloBuilder, re_recorded, record};

const BUDGET: usize = 64 * 1024;

/// The verdict, which must be the same byte by byte.
fn classify(bytes: &[u8]) -> Progress {
    let whole = Classifier::new(BUDGET).push(bytes);
    let mut classifier = Classifier::new(BUDGET);
    let mut last = Progress::NeedMore;
    for byte in bytes {
        last = classifier.push(&[*byte]);
    }
    assert_eq!(last, whole);
    whole
}

fn finish(bytes: &[u8], why: NoMore) -> Result<FirstBytes, Reason> {
    let mut classifier = Classifier::new(BUDGET);
    classifier.push(bytes);
    classifier.finish(why)
}

#[test]
fn the_three_kinds_are_told_apart() {
    let hello = HelloBuilder::new("a.example").record();
    assert!(matches!(classify(&hello), Progress::Done(FirstBytes::Tls(hello)) if hello.offers_tls13));
    assert!(matches!(classify(&re_recorded(&hello, 1)), Progress::Done(FirstBytes::Tls(_))));
    let head = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert!(matches!(classify(head), Progress::Done(FirstBytes::Http(Preface::Http1 { .. }))));
    assert!(matches!(
        classify(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Progress::Done(FirstBytes::Http(Preface::Http2))
    ));
    for opaque in
        [&b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..], b"SSH-2.0-x\r\n", b"\x80\x01\x02", &record(21, &[2, 40])]
    {
        assert_eq!(classify(opaque), Progress::Done(FirstBytes::Opaque));
    }
}

#[test]
fn what_can_not_be_judged_is_refused_with_its_reason() {
    let duplicate = HelloBuilder::new("a.example").with(0xabcd, &[]).with(0xabcd, &[]).record();
    for (bytes, reason) in [
        (&duplicate[..], Reason::TlsMalformed),
        (&[0x80, 0x2e, 1, 3, 1], Reason::TlsMalformed),
        (&[0x16, 0x16], Reason::TlsMalformed),
        (&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], Reason::ClassifyTooLarge),
        (b"GET /\n", Reason::HttpMalformed),
        (b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", Reason::HostMismatch),
        (b"GET / HTTP/1.1\r\nHost: a_b!\r\n\r\n", Reason::HostInvalid),
        (&[b"GET /".as_slice(), &[b'a'; BUDGET]].concat(), Reason::ClassifyTooLarge),
    ] {
        assert_eq!(classify(bytes), Progress::Refused(reason), "{}", bytes.escape_ascii());
    }
}

#[test]
fn the_end_of_input_is_the_last_word() {
    let hello = HelloBuilder::new("a.example").record();
    for half in [
        &b""[..],
        &hello[..1],
        &hello[..hello.len() - 1],
        b"GET ",
        b"GET / HTTP/1.1\r\nHost: a",
        b"PRI * HTTP/2.0\r\n",
    ] {
        assert_eq!(finish(half, NoMore::Eof), Err(Reason::ClassifyEof), "{}", half.escape_ascii());
        assert_eq!(finish(half, NoMore::Deadline), Err(Reason::ClassifyTimeout));
    }
    for text in [&b"PING"[..], b"QUIT", b"hello there", b"\x80", b"\x80\x01"] {
        assert_eq!(finish(text, NoMore::Eof), Ok(FirstBytes::Opaque), "{}", text.escape_ascii());
        assert_eq!(finish(text, NoMore::Deadline), Ok(FirstBytes::Opaque));
    }
    assert!(matches!(finish(&hello, NoMore::Eof), Ok(FirstBytes::Tls(_))));
    assert_eq!(finish(b"GET /\n", NoMore::Eof), Err(Reason::HttpMalformed));
}

#[test]
fn the_hellos_length_is_known() {
    let hello = HelloBuilder::new("a.example").record();
    let mut classifier = Classifier::new(BUDGET);
    classifier.push(&[&hello[..], b"early"].concat());
    assert_eq!(classifier.taken(), hello.len());
}

proptest! {
    #[test]
    fn any_bytes_get_one_verdict_however_they_are_split(
        first in prop::sample::select(vec![0x16u8, 0x80, b'G', b'P', 0x00]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        size in 1usize..30,
    ) {
        let bytes = [vec![first], rest].concat();
        let mut split = Classifier::new(100);
        let mut last = Progress::NeedMore;
        for piece in bytes.chunks(size) {
            last = split.push(piece);
        }
        prop_assert_eq!(last, Classifier::new(100).push(&bytes));
    }
}
