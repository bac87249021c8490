//! Questions from careless and hostile applications. A fixture is named for its fault.

use hickory_proto::rr::rdata::{OPT, opt::EdnsOption};
use proptest::prelude::*;

use super::*;

fn question(edit: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name("Api.Shop.test."), RecordType::A));
    edit(&mut message);
    message.to_vec().unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn fault(bytes: &[u8]) -> Fault {
    parse_question(bytes).unwrap_err().fault
}

/// The response code of a refusal.
fn code(bytes: &[u8]) -> ResponseCode {
    let response = parse_question(bytes).unwrap_err().response.unwrap();
    let message = Message::from_vec(&response).unwrap();
    assert_eq!((message.metadata.id, message.metadata.message_type), (7, MessageType::Response));
    message.metadata.response_code
}

fn edns(payload: u16) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    edns
}

#[test]
fn a_plain_question_is_parsed() {
    let parsed = parse_question(&question(|_| {})).unwrap();
    assert_eq!(parsed.name().to_ascii(), "Api.Shop.test.");
    assert_eq!((parsed.record_type(), parsed.udp_limit()), (RecordType::A, 512));
    // Checking disabled, authentic data and the like are no fault: dig sends them.
    assert!(parse_question(&question(|m| m.metadata.authentic_data = true)).is_ok());
}

#[test]
fn the_payload_is_kept_within_bounds_and_options_are_dropped() {
    for (offered, kept) in [(0, 512), (512, 512), (1232, 1232), (65535, 4096)] {
        let bytes = question(|m| {
            m.set_edns(edns(offered));
        });
        assert_eq!(parse_question(&bytes).unwrap().udp_limit(), kept);
    }
    let with_option = question(|m| {
        let mut carrier = edns(1232);
        carrier.options_mut().insert(EdnsOption::Unknown(65001, b"secret".to_vec()));
        m.set_edns(carrier);
    });
    let response = parse_question(&with_option).unwrap().response(Reply::NoRecords, 512);
    assert_eq!(*Message::from_vec(&response).unwrap().edns.unwrap().options(), OPT::default());
}

#[test]
fn what_is_no_question_gets_no_answer() {
    let answer = question(|m| m.metadata.message_type = MessageType::Response);
    for bytes in [&[][..], &[0; 11], &answer] {
        assert_eq!(parse_question(bytes), Err(Refusal { fault: Fault::NotAQuestion, response: None }));
    }
}

#[test]
fn malformed_questions_are_refused() {
    let a = || Record::from_rdata(name("x.test."), 0, RData::A(A::new(203, 0, 113, 1)));
    let two_names = question(|m| m.queries.push(m.queries[0].clone()));
    let no_name = question(|m| m.queries.clear());
    let with_answer = question(|m| m.answers.push(a()));
    let with_authority = question(|m| m.authorities.push(a()));
    let with_additional = question(|m| m.additionals.push(a()));
    let edns_and_more = question(|m| {
        m.additionals.push(a());
        m.set_edns(edns(1232));
    });
    let truncated = question(|m| m.metadata.truncation = true);
    let plain = question(|_| {});
    let trailing = [&plain[..], &[0]].concat();
    let cut = plain[..plain.len() - 1].to_vec();
    let oversized = question(|m| {
        let mut carrier = edns(4096);
        carrier.options_mut().insert(EdnsOption::Unknown(65001, vec![0; LONGEST_QUESTION]));
        m.set_edns(carrier);
    });
    let faults = [
        two_names,
        no_name,
        with_answer,
        with_authority,
        with_additional,
        edns_and_more,
        truncated,
        trailing,
        cut,
        oversized,
    ];
    for (number, bytes) in faults.iter().enumerate() {
        assert_eq!(
            (fault(bytes), code(bytes)),
            (Fault::Malformed, ResponseCode::FormErr),
            "fixture {number}"
        );
    }
}

#[test]
fn a_compressed_question_is_malformed() {
    // A pointer to the id: 0x0000 reads as the root name.
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&[3, b'a', b'p', b'i', 0xc0, 0, 0, 1, 0, 1]);
    assert!(Message::from_vec(&bytes).is_ok(), "the control: a plain parser takes it");
    assert_eq!(fault(&bytes), Fault::Malformed);
}

#[test]
fn other_opcodes_classes_and_versions_are_refused() {
    let notify = question(|m| m.metadata.op_code = OpCode::Notify);
    assert_eq!((fault(&notify), code(&notify)), (Fault::Opcode, ResponseCode::NotImp));
    let chaos = question(|m| {
        m.queries[0].set_query_class(DNSClass::CH);
    });
    assert_eq!((fault(&chaos), code(&chaos)), (Fault::Class, ResponseCode::Refused));
    let version = question(|m| {
        let mut next = edns(1232);
        next.set_version(1);
        m.set_edns(next);
    });
    assert_eq!(fault(&version), Fault::EdnsVersion);
    let response = parse_question(&version).unwrap_err().response.unwrap();
    let message = Message::from_vec(&response).unwrap();
    assert_eq!((message.edns.unwrap().rcode_high(), u16::from(message.metadata.response_code)), (1, 16));
}

#[test]
fn a_response_repeats_the_question_as_it_was_sent() {
    let parsed = parse_question(&question(|_| {})).unwrap();
    let addresses = ["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let bytes = parsed.response(Reply::Addresses { addresses: &addresses, ttl: 60 }, 512);
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.queries[0].name().to_ascii(), "Api.Shop.test.", "case and all");
    assert_eq!(
        message.answers,
        [Record::from_rdata(name("api.shop.test."), 60, RData::A(A::new(203, 0, 113, 1)))]
    );
    let flags = message.metadata;
    assert_eq!((flags.id, flags.recursion_desired, flags.recursion_available), (7, true, true));
    assert_eq!((flags.response_code, flags.truncation, message.edns), (ResponseCode::NoError, false, None));
}

#[test]
fn what_does_not_fit_is_truncated_whole() {
    let parsed = parse_question(&question(|_| {})).unwrap();
    let addresses: Vec<IpAddr> = (0..64).map(|last| IpAddr::from([203, 0, 113, last])).collect();
    let reply = Reply::Addresses { addresses: &addresses, ttl: 60 };
    let message = Message::from_vec(&parsed.response(reply, 512)).unwrap();
    assert!(message.metadata.truncation && message.answers.is_empty());
    let message = Message::from_vec(&parsed.response(reply, 65_535)).unwrap();
    assert!(!message.metadata.truncation);
    assert_eq!(message.answers.len(), 64);
}

proptest! {
    #[test]
    fn whatever_comes_it_is_answered_in_kind_or_not_at_all(
        kept in 0_usize..=60,
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = question(|m| {
            m.set_edns(edns(1232));
        });
        bytes.truncate(kept);
        bytes.extend_from_slice(&rest);
        let response = match parse_question(&bytes) {
            Ok(parsed) => Some(parsed.response(Reply::NoRecords, parsed.udp_limit())),
            Err(refusal) => refusal.response,
        };
        if let Some(response) = response {
            let message = Message::from_vec(&response).unwrap();
            prop_assert_eq!(&response[..2], &bytes[..2], "the id");
            prop_assert_eq!(message.metadata.message_type, MessageType::Response);
            prop_assert!(message.answers.is_empty() && response.len() <= bytes.len().max(HEADER) + 11);
        }
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let plain = question(|m| {
        m.set_edns(edns(1232));
    });
    for place in 0..plain.len() {
        for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let mut bytes = plain.clone();
            bytes[place] = value;
            if let Ok(parsed) = parse_question(&bytes) {
                assert!(parsed.response(Reply::NoRecords, 4096).len() >= HEADER);
            }
            let _ = parse_question(&bytes[..place]);
        }
    }
}
