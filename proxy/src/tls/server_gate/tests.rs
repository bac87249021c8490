use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::tls::{client_hello::HelloReader, testing::*};

const RANDOM: [u8; 32] = [9; 32];
const ID: [u8; 32] = [7; 32];
const CCS: [u8; 6] = [20, 3, 3, 0, 1, 1];

fn captured(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/server_hello");
    fs::read(folder.join(name)).unwrap()
}

fn gate_for(hello: &[u8]) -> ServerGate {
    ServerGate::new(HelloReader::new(HELD_BYTES).push(hello).unwrap().expect("a whole hello"))
}

/// A gate behind a hello that offers TLS 1.3 with session id [`ID`].
fn gate() -> ServerGate {
    gate_for(&HelloBuilder::new("a.example").record())
}

/// The last verdict after all pieces, and whether a retry was shown.
fn push_all<'a>(gate: &mut ServerGate, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Shown, bool) {
    let (mut last, mut retry) = (Shown::Undecided, false);
    for piece in pieces {
        last = gate.push_server(piece);
        retry |= last == Shown::Retry;
    }
    (last, retry)
}

fn tls13() -> Vec<u8> {
    server_hello((0x0303, Some(0x0304)), RANDOM, &ID)
}

fn retry() -> Vec<u8> {
    server_hello((0x0303, Some(0x0304)), RETRY, &ID)
}

#[test]
fn real_servers_show_their_version_at_every_split() {
    for (name, expected) in [
        ("openssl_tls13", Shown::Tls13),
        ("openssl_tls12", Shown::Tls12),
        ("openssl_refuses_tls13_only", Shown::Alert),
    ] {
        let hello = captured(&format!("{name}.client.bin"));
        let answer = captured(&format!("{name}.server.bin"));
        for at in 0..=answer.len() {
            let mut gate = gate_for(&hello);
            let (front, back) = answer.split_at(at);
            assert_eq!(push_all(&mut gate, [front, back]).0, expected, "{name} at {at}");
            assert_eq!(gate.releasable(), answer.len(), "{name} at {at}");
        }
        assert_eq!(push_all(&mut gate_for(&hello), answer.chunks(1)).0, expected, "{name}, byte by byte");
    }
}

#[test]
fn a_real_retry_is_followed_to_the_second_server_hello() {
    let [first, request, second, answer] = ["1_client", "2_server", "3_client", "4_server"]
        .map(|part| captured(&format!("openssl_retry.{part}.bin")));
    for at in 0..=request.len() {
        let mut gate = gate_for(&first);
        let (front, back) = request.split_at(at);
        let (_, retried) = push_all(&mut gate, [front, back]);
        assert!(retried, "at {at}");
        assert_eq!(gate.releasable(), request.len() - CCS.len(), "the request, not yet the record behind it");
        for piece in second.chunks(at + 1) {
            gate.push_client(piece).unwrap();
        }
        assert_eq!(gate.push_client(&[]), Ok(true));
        assert_eq!(push_all(&mut gate, answer.chunks(at + 1)).0, Shown::Tls13);
        assert_eq!(gate.releasable(), request.len() + answer.len());
    }
}

#[test]
fn tiny_records_show_the_same() {
    for (bytes, expected) in [
        (tls13(), Shown::Tls13),
        (server_hello((0x0303, None), RANDOM, &[]), Shown::Tls12),
        (server_hello((0x0302, None), RANDOM, &[]), Shown::Older),
        (server_hello((0x0300, None), RANDOM, &[]), Shown::Older),
    ] {
        for size in [1, 2, 5, 50] {
            assert_eq!(gate().push_server(&re_recorded(&bytes, size)), expected);
        }
    }
}

#[test]
fn what_is_no_honest_server_hello_is_malformed() {
    let versions = |body: &[u8]| vec![(SUPPORTED_VERSIONS, body.to_vec())];
    let message = |random, suite, extensions: &[_]| server_message(0x0303, random, &ID, suite, extensions);
    let sound = message(RANDOM, 0x1301, &versions(&[3, 4]));
    let cases = [
        ("plain_http", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ("application_record_first", record(23, &[0; 40])),
        ("change_cipher_spec_first", [&CCS[..], &tls13()].concat()),
        ("client_hello_from_the_server", HelloBuilder::new("a.example").record()),
        ("tls12_in_supported_versions", record(22, &message(RANDOM, 0x1301, &versions(&[3, 3])))),
        ("draft_in_supported_versions", record(22, &message(RANDOM, 0x1301, &versions(&[0x7f, 28])))),
        ("client_form_of_supported_versions", record(22, &message(RANDOM, 0x1301, &versions(&[2, 3, 4])))),
        ("duplicate_supported_versions", {
            record(22, &message(RANDOM, 0x1301, &[versions(&[3, 4]), versions(&[3, 4])].concat()))
        }),
        ("duplicate_extension", {
            let twice = [vec![(51, vec![]); 2], versions(&[3, 4])].concat();
            record(22, &message(RANDOM, 0x1301, &twice))
        }),
        ("tls13_legacy_field", server_hello((0x0304, None), RANDOM, &ID)),
        ("tls13_over_an_older_legacy_field", server_hello((0x0302, Some(0x0304)), RANDOM, &ID)),
        ("another_session_id", server_hello((0x0303, Some(0x0304)), RANDOM, &[8; 32])),
        ("no_session_id", server_hello((0x0303, Some(0x0304)), RANDOM, &[])),
        ("retry_without_tls13", server_hello((0x0303, None), RETRY, &ID)),
        ("integrity_only_suite", record(22, &message(RANDOM, 0xc0b4, &versions(&[3, 4])))),
        ("null_suite_of_tls12", record(22, &message(RANDOM, 0x003b, &[]))),
        ("message_behind_a_tls13_hello", record(22, &[&sound[..], &[8, 0, 0, 0]].concat())),
        (
            "trailing_byte_in_the_message",
            record(22, &super::super::testing::message(2, &[&sound[4..], &[0]].concat())),
        ),
        ("alert_within_the_hello", [record(22, &sound[..20]), record(21, &[2, 40])].concat()),
        ("alert_of_unknown_level", record(21, &[3, 40])),
        ("long_alert", record(21, &[2, 40, 0])),
        ("empty_record", record(22, &[])),
        ("hello_of_16_mib", record(22, &[2, 0xff, 0xff, 0xff])),
    ];
    for (name, bytes) in cases {
        let mut gate = gate();
        assert_eq!(gate.push_server(&bytes), Shown::Malformed, "{name}");
        assert_eq!(gate.releasable(), 0, "{name}");
        assert_eq!(gate.push_server(&tls13()), Shown::Malformed, "{name}: the verdict stays");
        assert_eq!(
            push_all(&mut super::tests::gate(), bytes.chunks(1)).0,
            Shown::Malformed,
            "{name}, byte by byte"
        );
    }
    assert_eq!(gate().push_server(&record(22, &sound)), Shown::Tls13, "without a fault it passes");
}

#[test]
fn tls13_that_the_client_did_not_offer_is_malformed() {
    let old = HelloBuilder::new("a.example").without(SUPPORTED_VERSIONS).record();
    assert_eq!(gate_for(&old).push_server(&tls13()), Shown::Malformed);
    assert_eq!(gate_for(&old).push_server(&retry()), Shown::Malformed);
    assert_eq!(gate_for(&old).push_server(&server_hello((0x0303, None), RANDOM, &[])), Shown::Tls12);
}

#[test]
fn tls12_messages_may_share_a_record() {
    let hello = server_message(0x0303, RANDOM, &[], 0xc02f, &[]);
    let flight = record(22, &[&hello[..], &message(11, &[0; 900]), &message(14, &[])].concat());
    let mut gate = gate();
    assert_eq!(push_all(&mut gate, flight.chunks(33)).0, Shown::Tls12);
    assert_eq!(gate.releasable(), flight.len());
}

#[test]
fn nothing_behind_an_alert_is_released() {
    let mut gate = gate();
    let refusal = [record(21, &[2, 70]), b"secrets in plain text".to_vec()].concat();
    assert_eq!(gate.push_server(&refusal), Shown::Alert);
    assert_eq!(gate.releasable(), 7);
}

#[test]
fn a_warning_about_the_name_does_not_end_the_handshake() {
    let warned = [record(21, &[1, 112]), tls13()].concat();
    assert_eq!(push_all(&mut gate(), warned.chunks(1)).0, Shown::Tls13);
    let mut closed = gate();
    assert_eq!(closed.push_server(&record(21, &[1, 0])), Shown::Alert);
    let forever = record(21, &[1, 112]).repeat(HELD_BYTES / 7 + 1);
    assert_eq!(gate().push_server(&forever), Shown::Malformed, "but not forever");
}

#[test]
fn a_retry_must_be_answered_before_the_server_goes_on() {
    let mut eager = gate();
    assert_eq!(eager.push_server(&[retry(), tls13()].concat()), Shown::Malformed);
    assert_eq!(eager.releasable(), 0);
    for after in [retry(), server_hello((0x0303, None), RANDOM, &[]), record(23, &[0; 8])] {
        let mut gate = gate();
        assert_eq!(gate.push_server(&retry()), Shown::Retry);
        assert_eq!(gate.push_client(&HelloBuilder::new("a.example").record()), Ok(true));
        assert_eq!(gate.push_server(&after), Shown::Malformed);
    }
    let mut gate = gate();
    assert_eq!(gate.push_server(&[retry(), CCS.to_vec()].concat()), Shown::Retry);
    assert_eq!(gate.push_server(&record(21, &[2, 40])), Shown::Alert);
    assert_eq!(gate.releasable(), retry().len() + CCS.len() + 7);
}

#[test]
fn the_second_hello_repeats_the_first() {
    let sound = || HelloBuilder::new("a.example");
    let with_early_data = || sound().with(ZERO_RTT, &[]);
    let early_record = record(23, &[0xee; 600]);
    let oversized = [23, 3, 3, 0x41, 1];
    let cases: [(&str, HelloBuilder, Vec<u8>, bool); 17] = [
        ("the_same", sound(), sound().record(), true),
        ("another_key_share", sound(), sound().with(51, &[1; 90]).record(), true),
        ("behind_change_cipher_spec", sound(), [&CCS[..], &sound().record()].concat(), true),
        ("in_tiny_records", sound(), re_recorded(&sound().record(), 1), true),
        ("behind_early_data", with_early_data(), [&CCS[..], &early_record, &sound().record()].concat(), true),
        (
            "early_data_that_was_not_announced",
            sound(),
            [&early_record[..], &sound().record()].concat(),
            false,
        ),
        ("early_data_beyond_the_record", with_early_data(), oversized.to_vec(), false),
        ("early_data_again", with_early_data(), with_early_data().record(), false),
        ("endless_early_data", with_early_data(), early_record.repeat(120), false),
        ("another_name", sound(), HelloBuilder::new("b.example").record(), false),
        ("no_name", sound(), sound().without(SERVER_NAME).record(), false),
        ("no_tls13", sound(), sound().without(SUPPORTED_VERSIONS).record(), false),
        ("another_session_id", sound(), HelloBuilder { session_id: vec![1; 32], ..sound() }.record(), false),
        ("ech_of_a_sudden", sound(), sound().with(0xfe0d, &[0]).record(), false),
        ("another_alpn", sound(), sound().with(ALPN, &[0, 3, 2, b'h', b'2']).record(), false),
        ("alert", sound(), record(21, &[2, 40]), false),
        ("odd_change_cipher_spec", sound(), record(20, &[2]), false),
    ];
    for (name, first, bytes, passes) in cases {
        for size in [1, 7, bytes.len()] {
            let mut gate = gate_for(&first.record());
            assert_eq!(gate.push_server(&retry()), Shown::Retry, "{name}");
            let results: Vec<_> = bytes.chunks(size).map(|piece| gate.push_client(piece)).collect();
            let expected = if passes { Ok(true) } else { Err(SecondHelloError) };
            assert_eq!(results.last(), Some(&expected), "{name} in pieces of {size}");
            assert_eq!(gate.push_client(&[]), expected, "{name}: it stays");
        }
    }
}

#[test]
fn without_a_retry_no_second_hello_is_expected() {
    assert_eq!(gate().push_client(&HelloBuilder::new("a.example").record()), Err(SecondHelloError));
}

proptest! {
    #[test]
    fn any_bytes_show_the_same_however_they_are_split(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), mutated()],
        size in 1usize..90,
    ) {
        let mut one = gate();
        let mut split = gate();
        let whole = one.push_server(&bytes);
        let (last, retried) = push_all(&mut split, bytes.chunks(size));
        if whole == Shown::Retry {
            prop_assert!(retried && matches!(last, Shown::Retry | Shown::Undecided));
        } else {
            prop_assert_eq!(last, whole);
        }
        prop_assert_eq!(split.releasable(), one.releasable());
    }
}

/// Sound answers in small records with a few bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let answers = prop::sample::select(vec![
        tls13(),
        retry(),
        [retry(), CCS.to_vec()].concat(),
        server_hello((0x0303, None), RANDOM, &[]),
        record(21, &[2, 40]),
    ]);
    (answers, changes).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}
