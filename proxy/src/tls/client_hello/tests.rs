use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::tls::testing::*;

const BUDGET: usize = 64 * 1024;

type Outcome = Result<Option<ClientHello>, HelloError>;

/// Pushes pieces until something other than "more" comes.
fn push_all<'a>(reader: &mut HelloReader, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    for piece in pieces {
        match reader.push(piece) {
            Ok(None) => {}
            settled => return settled,
        }
    }
    Ok(None)
}

fn read(bytes: &[u8]) -> Outcome {
    HelloReader::new(BUDGET).push(bytes)
}

/// Captured from real clients; see the README beside them.
fn captured() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hello");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 12, "the fixtures are there: {}", files.len());
    files
}

fn host(text: &str) -> ServerName {
    ServerName::Host(HostName::parse(text).unwrap())
}

#[test]
fn hellos_of_real_clients_are_understood() {
    for (name, bytes) in captured() {
        let hello = read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")).expect("whole");
        let expected = match name.as_str() {
            "openssl_without_server_name" => ServerName::Absent,
            "openssl_address_as_server_name" => ServerName::Address,
            _ => host("api.example.com"),
        };
        assert_eq!(hello.server_name, expected, "{name}");
        assert_eq!(hello.offers_tls13, name != "openssl_tls12_only", "{name}");
        assert_eq!(hello.early_data, name.contains("zero_rtt"), "{name}");
        assert!(!hello.ech, "{name}");
        let alpn: &[&[u8]] = match name.as_str() {
            "openssl_alpn" | "curl" | "rustls_ml_kem" => &[b"h2", b"http/1.1"],
            "node_tls" => &[b"http/1.1"],
            _ => &[],
        };
        assert_eq!(hello.alpn, alpn, "{name}");
    }
}

#[test]
fn every_split_into_two_writes_gives_one_verdict() {
    for (name, bytes) in captured() {
        let whole = read(&bytes);
        for at in 0..=bytes.len() {
            let (front, back) = bytes.split_at(at);
            assert_eq!(push_all(&mut HelloReader::new(BUDGET), [front, back]), whole, "{name} at {at}");
        }
    }
}

#[test]
fn single_bytes_and_tiny_records_give_the_same_verdict() {
    for (name, bytes) in captured().into_iter().filter(|(name, _)| !name.ends_with("what_follows")) {
        let whole = read(&bytes);
        assert_eq!(push_all(&mut HelloReader::new(BUDGET), bytes.chunks(1)), whole, "{name}");
        for size in [1, 2, 3, 4, 5, 7, 100, 1000] {
            let records = re_recorded(&bytes, size);
            assert_eq!(read(&records), whole, "{name} in records of {size}");
            assert_eq!(push_all(&mut HelloReader::new(BUDGET), records.chunks(1)), whole, "{name}, {size}");
        }
    }
}

#[test]
fn the_hellos_end_is_told_from_what_follows() {
    let [hello, stream] = ["openssl_zero_rtt", "openssl_zero_rtt_and_what_follows"]
        .map(|name| captured().into_iter().find(|(other, _)| other == name).unwrap().1);
    assert!(stream.len() > hello.len() && stream.starts_with(&hello));
    for size in [1, 2, 64, stream.len()] {
        let mut reader = HelloReader::new(BUDGET);
        assert!(push_all(&mut reader, stream.chunks(size)).unwrap().unwrap().early_data);
        assert_eq!(reader.taken(), hello.len());
        assert_eq!(reader.push(b"more"), Err(HelloError::Malformed), "the verdict has been given");
    }
}

#[test]
fn grease_and_any_order_of_extensions_pass() {
    let plain = read(&HelloBuilder::new("a.example").record());
    let builder = HelloBuilder {
        cipher_suites: vec![0x1a, 0x1a, 0x13, 0x01],
        ..HelloBuilder::new("a.example").replace(SUPPORTED_VERSIONS, &[6, 0x2a, 0x2a, 3, 4, 3, 3])
    };
    let mut builder = builder.with(0x3a3a, &[]).with(0xdada, &[0]).with(21, &[0; 300]);
    assert_eq!(read(&builder.record()), plain);
    for _ in 0..5 {
        builder.extensions.as_mut().unwrap().rotate_left(1);
        assert_eq!(read(&builder.record()), plain);
    }
}

#[test]
fn faults_within_the_hello_are_refused() {
    let sound = || HelloBuilder::new("a.example");
    let named = |entries: &[(u8, &[u8])]| sound().replace(SERVER_NAME, &name_list(entries));
    let versions = |body: &[u8]| sound().replace(SUPPORTED_VERSIONS, body);
    let cases = [
        ("duplicate_server_name_extension", sound().with(SERVER_NAME, &name_list(&[(0, b"b.example")]))),
        ("duplicate_extension_of_any_type", sound().with(0xabcd, &[]).with(0xabcd, &[])),
        ("second_name_in_server_name", named(&[(0, b"a.example"), (0, b"b.example")])),
        ("second_name_of_another_type", named(&[(0, b"a.example"), (1, b"b")])),
        ("unknown_name_type", named(&[(1, b"a.example")])),
        ("empty_server_name", named(&[(0, b"")])),
        ("empty_server_name_list", named(&[])),
        ("empty_server_name_extension", sound().replace(SERVER_NAME, &[])),
        ("trailing_byte_in_server_name", {
            sound().replace(SERVER_NAME, &[name_list(&[(0, b"a.example")]), vec![0]].concat())
        }),
        ("trailing_byte_after_extensions", HelloBuilder { trailing: vec![0], ..sound() }),
        ("empty_supported_versions", versions(&[0])),
        ("odd_supported_versions", versions(&[3, 3, 4, 3])),
        ("trailing_byte_in_supported_versions", versions(&[2, 3, 4, 0])),
        ("supported_versions_without_length", versions(&[])),
        ("server_form_of_supported_versions", versions(&[3, 4])),
        ("pre_shared_key_before_another", sound().with(PRE_SHARED_KEY, &[0]).with(0xabcd, &[])),
        ("early_data_with_content", sound().with(ZERO_RTT, &[0, 0, 0, 0])),
        ("empty_alpn_list", sound().with(ALPN, &[0, 0])),
        ("empty_alpn_name", sound().with(ALPN, &[0, 1, 0])),
        ("alpn_name_beyond_the_list", sound().with(ALPN, &[0, 3, 9, b'h', b'2'])),
        ("outer_extensions_in_the_open", sound().with(0xfd00, &[])),
        ("tls13_with_compression", HelloBuilder { compression: vec![1, 0], ..sound() }),
        ("no_compression_method", HelloBuilder { compression: vec![], ..sound() }),
        ("tls13_with_an_older_legacy_version", HelloBuilder { legacy_version: 0x0301, ..sound() }),
        (
            "legacy_version_of_sslv2",
            HelloBuilder { legacy_version: 0x0002, ..sound().without(SUPPORTED_VERSIONS) },
        ),
        ("session_id_of_33_bytes", HelloBuilder { session_id: vec![0; 33], ..sound() }),
        ("no_cipher_suite", HelloBuilder { cipher_suites: vec![], ..sound() }),
        ("half_a_cipher_suite", HelloBuilder { cipher_suites: vec![0x13, 1, 0x13], ..sound() }),
        ("half_an_extension", HelloBuilder { extensions: None, trailing: vec![0, 3, 0, 0, 0], ..sound() }),
    ];
    for (name, builder) in cases {
        assert_eq!(read(&builder.record()), Err(HelloError::Malformed), "{name}");
    }
    assert!(matches!(read(&sound().record()), Ok(Some(_))), "without a fault it passes");
    let duplicate = sound().with(SERVER_NAME, &name_list(&[(0, b"b.example")])).message();
    // The negative control: a reader that stops at the first or takes the last would believe either name.
    let lenient = tls_parser::parse_tls_message_handshake(&duplicate);
    assert!(lenient.is_ok(), "a common parser accepts what is refused here");
}

#[test]
fn names_are_canonical_or_named_for_what_they_are() {
    let of = |name: &[u8]| {
        let builder = HelloBuilder::new("x.example").replace(SERVER_NAME, &name_list(&[(0, name)]));
        read(&builder.record()).unwrap().unwrap().server_name
    };
    assert_eq!(of(b"API.Example.COM"), host("api.example.com"));
    let long = [b'a'; 300];
    let invalid: [&[u8]; 9] = [
        b"a.example.",
        b"a..example",
        b"a.example\0.evil.test",
        b"a.example\r\nx: y",
        b"\x1b[2J.example",
        b"*.example",
        b"xn--\xc3\xa9.example",
        "a\u{3002}example".as_bytes(),
        &long,
    ];
    for name in invalid {
        assert_eq!(of(name), ServerName::Invalid, "{name:?}");
    }
    assert_eq!(of(b"192.0.2.1"), ServerName::Address);
    assert_eq!(of(b"2001:db8::1"), ServerName::Address);
    assert_eq!(
        read(&HelloBuilder::new("a").without(SERVER_NAME).record()).unwrap().unwrap().server_name,
        ServerName::Absent
    );
}

#[test]
fn ech_and_its_drafts_are_seen() {
    for kind in [0xfe0d, 0xfe08, 0xfe0a, 0xff02, 0xffce] {
        assert!(read(&HelloBuilder::new("a.example").with(kind, &[0; 40]).record()).unwrap().unwrap().ech);
    }
}

#[test]
fn an_old_hello_without_extensions_names_no_host() {
    let old = HelloBuilder {
        extensions: None,
        legacy_version: 0x0301,
        compression: vec![1, 0],
        ..HelloBuilder::new("a")
    };
    let hello = read(&old.record()).unwrap().unwrap();
    assert_eq!((hello.server_name, hello.offers_tls13), (ServerName::Absent, false));
}

#[test]
fn faults_of_the_record_layer_are_refused() {
    let message = HelloBuilder::new("a.example").message();
    let (front, back) = message.split_at(50);
    let cases = [
        ("sslv2_hello", HelloError::NotTls, vec![0x80, 0x2e, 1, 3, 1, 0, 0x15]),
        ("plain_text", HelloError::NotTls, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("alert_first", HelloError::NotTls, record(21, &[2, 40])),
        ("application_record_first", HelloError::NotTls, record(23, &message)),
        ("record_of_version_2", HelloError::NotTls, [vec![22, 2, 0], vector16(&message)].concat()),
        ("empty_record_first", HelloError::NotTls, [record(22, &[]), record(22, &message)].concat()),
        ("empty_record_between", HelloError::Malformed, [record(22, front), record(22, &[])].concat()),
        (
            "alert_between",
            HelloError::Malformed,
            [record(22, front), record(21, &[1, 0]), record(22, back)].concat(),
        ),
        (
            "change_cipher_spec_between",
            HelloError::Malformed,
            [record(22, front), record(20, &[1]), record(22, back)].concat(),
        ),
        ("record_beyond_16_kib", HelloError::NotTls, vec![22, 3, 1, 0x40, 1]),
        (
            "second_message_in_the_record",
            HelloError::Malformed,
            record(22, &[&message[..], &message].concat()),
        ),
        ("one_byte_behind_the_hello", HelloError::Malformed, record(22, &[&message[..], &[0]].concat())),
        ("another_message_first", HelloError::Malformed, record(22, &super::super::testing::message(0, &[]))),
        ("hello_of_16_mib", HelloError::TooLarge, record(22, &[1, 0xff, 0xff, 0xff])),
    ];
    for (name, error, bytes) in cases {
        assert_eq!(read(&bytes), Err(error), "{name}");
        assert_eq!(
            push_all(&mut HelloReader::new(BUDGET), bytes.chunks(1)),
            Err(error),
            "{name}, byte by byte"
        );
    }
    assert!(
        matches!(read(&[record(22, front), record(22, back)].concat()), Ok(Some(_))),
        "without a fault it passes"
    );
}

#[test]
fn the_budget_counts_record_headers() {
    let big = HelloBuilder::new("a.example").with(21, &vec![0; 20_000]).message();
    let records = |size| big.chunks(size).flat_map(|chunk| record(22, chunk)).collect::<Vec<_>>();
    assert!(matches!(read(&records(16_384)), Ok(Some(_))));
    assert_eq!(read(&records(1)), Err(HelloError::TooLarge), "120 kB of one-byte records");
    let exact = records(16_384).len();
    assert!(matches!(HelloReader::new(exact).push(&records(16_384)), Ok(Some(_))));
    assert_eq!(HelloReader::new(exact - 1).push(&records(16_384)), Err(HelloError::TooLarge));
    let mut dripping = HelloReader::new(BUDGET);
    assert_eq!(push_all(&mut dripping, records(1).chunks(1)), Err(HelloError::TooLarge));
    assert_eq!(dripping.taken(), BUDGET, "settled by the budget's last byte");
}

#[test]
fn memory_follows_what_arrived_not_what_is_claimed() {
    let mut reader = HelloReader::new(BUDGET);
    assert_eq!(reader.push(&record(22, &[1, 0, 0xff, 0xf0])), Ok(None));
    assert!(reader.message.capacity() < 64, "{}", reader.message.capacity());
}

proptest! {
    #[test]
    fn any_bytes_get_one_verdict_however_they_are_split(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            mutated(),
        ],
        cuts in prop::collection::vec(1usize..40, 1..60),
    ) {
        let mut one = HelloReader::new(600);
        let whole = one.push(&bytes);
        let mut split = HelloReader::new(600);
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        let mut verdict = Ok(None);
        while !rest.is_empty() && verdict == Ok(None) {
            let (piece, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            verdict = split.push(piece);
            rest = later;
        }
        if matches!(whole, Ok(Some(_))) {
            prop_assert_eq!(split.taken(), one.taken(), "the hello ends at the same byte");
        }
        prop_assert_eq!(verdict, whole);
    }
}

/// A sound hello in small records with a few bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (1usize..80, changes).prop_map(|(size, changes)| {
        let mut bytes = re_recorded(&HelloBuilder::new("a.example").record(), size);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}
