//! Answers from honest, broken and hostile resolvers. A fixture is named for its fault.

use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use proptest::prelude::*;

use super::*;

fn asked(family: Family) -> Asked {
    let mut asked = Asked::new(&HostName::parse("api.shop.test").unwrap(), family).unwrap();
    asked.id = 7;
    asked
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(203, 0, 113, last)))
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(zone: &str, ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.test."), name("admin.test."), 1, 1, 1, 1, minimum);
    Record::from_rdata(name(zone), ttl, RData::SOA(soa))
}

/// A matching answer with these records.
fn answer(records: Vec<Record>) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(Query::query(name("api.shop.test."), RecordType::A));
    message.insert_answers(records);
    message
}

fn read(message: &Message) -> Result<Answer, NotOurs> {
    asked(Family::V4).read(&message.to_vec().unwrap())
}

fn addresses(last: &[u8], ttl: u32) -> Result<Answer, NotOurs> {
    let addresses = last.iter().map(|last| IpAddr::from([203, 0, 113, *last])).collect();
    Ok(Answer::Addresses { addresses, ttl })
}

#[test]
fn addresses_of_the_question_are_taken_in_order_and_once() {
    let records = vec![a("api.shop.test.", 300, 2), a("API.shop.TEST.", 60, 1), a("api.shop.test.", 300, 2)];
    assert_eq!(read(&answer(records)), addresses(&[2, 1], 60));
}

type Edit = fn(&mut Message);

#[test]
fn an_answer_that_is_not_to_the_question_is_not_ours() {
    let edits: [(&str, Edit); 7] = [
        ("wrong id", |m| m.metadata.id = 8),
        ("a question", |m| m.metadata.message_type = MessageType::Query),
        ("another opcode", |m| m.metadata.op_code = OpCode::Notify),
        ("another name", |m| m.queries = vec![Query::query(name("evil.test."), RecordType::A)]),
        ("another type", |m| m.queries = vec![Query::query(name("api.shop.test."), RecordType::AAAA)]),
        ("no question", |m| m.queries.clear()),
        ("two questions", |m| m.queries.push(m.queries[0].clone())),
    ];
    for (fault, edit) in edits {
        let mut message = answer(vec![a("api.shop.test.", 300, 1)]);
        assert_eq!(read(&message), addresses(&[1], 300), "the control");
        edit(&mut message);
        assert_eq!(read(&message), Err(NotOurs), "{fault}");
    }
    let mut chaos = answer(vec![a("api.shop.test.", 300, 1)]);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(read(&chaos), Err(NotOurs));
}

#[test]
fn the_question_may_come_back_in_another_case() {
    let mut message = answer(vec![a("api.shop.test.", 300, 1)]);
    message.queries = vec![Query::query(name("aPi.ShOp.tEsT."), RecordType::A)];
    assert_eq!(read(&message), addresses(&[1], 300));
}

#[test]
fn records_that_the_question_does_not_reach_do_not_count() {
    let mut message =
        answer(vec![a("other.test.", 300, 66), a("shop.test.", 300, 66), a("api.shop.test.", 300, 1)]);
    message.add_additional(a("api.shop.test.", 300, 66));
    message.add_authority(a("api.shop.test.", 300, 66));
    assert_eq!(read(&message), addresses(&[1], 300));

    let only_strangers = answer(vec![a("other.test.", 300, 66)]);
    assert_eq!(read(&only_strangers), Ok(Answer::NoAddress { ttl: NEGATIVE_TTL_WITHOUT_SOA }));
}

#[test]
fn aliases_are_followed_within_the_answer_and_the_least_ttl_counts() {
    let records = vec![
        a("edge.cdn.test.", 300, 1),
        alias("www.cdn.test.", 20, "edge.cdn.test."),
        alias("api.shop.test.", 600, "www.cdn.test."),
    ];
    assert_eq!(read(&answer(records)), addresses(&[1], 20));
}

#[test]
fn an_alias_whose_target_is_missing_is_no_address() {
    let message = answer(vec![alias("api.shop.test.", 600, "www.cdn.test.")]);
    assert_eq!(read(&message), Ok(Answer::NoAddress { ttl: NEGATIVE_TTL_WITHOUT_SOA }));
}

#[test]
fn alias_loops_and_long_chains_fail() {
    let looped = answer(vec![alias("api.shop.test.", 60, "b.test."), alias("b.test.", 60, "api.shop.test.")]);
    assert_eq!(read(&looped), Ok(Answer::Failed));
    let chain = |length: usize| {
        let owner = |n: usize| if n == 0 { "api.shop.test.".to_owned() } else { format!("n{n}.test.") };
        let mut records: Vec<_> = (0..length).map(|n| alias(&owner(n), 60, &owner(n + 1))).collect();
        records.push(a(&owner(length), 60, 1));
        answer(records)
    };
    assert_eq!(read(&chain(ALIASES)), addresses(&[1], 60));
    assert_eq!(read(&chain(ALIASES + 1)), Ok(Answer::Failed));
}

#[test]
fn two_aliases_that_disagree_fail() {
    let records = vec![
        alias("api.shop.test.", 60, "b.test."),
        alias("api.shop.test.", 60, "c.test."),
        a("b.test.", 60, 1),
    ];
    assert_eq!(read(&answer(records)), Ok(Answer::Failed));
}

#[test]
fn a_huge_set_is_cut() {
    let records = (0..=255).map(|last| a("api.shop.test.", 60, last)).collect();
    let Ok(Answer::Addresses { addresses, .. }) = read(&answer(records)) else { panic!("no addresses") };
    assert_eq!(addresses.len(), ADDRESSES);
}

#[test]
fn a_ttl_beyond_31_bits_counts_as_zero() {
    assert_eq!(read(&answer(vec![a("api.shop.test.", 1 << 31, 1)])), addresses(&[1], 0));
}

#[test]
fn the_other_family_is_no_address() {
    let v6 = RData::AAAA(AAAA("2001:db8::1".parse().unwrap()));
    let message = answer(vec![Record::from_rdata(name("api.shop.test."), 60, v6)]);
    assert_eq!(read(&message), Ok(Answer::NoAddress { ttl: NEGATIVE_TTL_WITHOUT_SOA }));
}

#[test]
fn absence_lasts_as_long_as_the_zone_says() {
    let mut message = answer(Vec::new());
    message.metadata.response_code = ResponseCode::NXDomain;
    message.add_authority(soa("evil.test.", 3, 3));
    message.add_authority(soa("shop.test.", 900, 40));
    assert_eq!(read(&message), Ok(Answer::NotFound { ttl: 40 }));
    message.metadata.response_code = ResponseCode::NoError;
    assert_eq!(read(&message), Ok(Answer::NoAddress { ttl: 40 }));
}

#[test]
fn failures_truncation_and_nonsense_have_names() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr] {
        let mut message = answer(vec![a("api.shop.test.", 60, 1)]);
        message.metadata.response_code = code;
        assert_eq!(read(&message), Ok(Answer::Failed), "{code}");
    }
    let mut truncated = answer(vec![a("api.shop.test.", 60, 1)]);
    truncated.metadata.truncation = true;
    assert_eq!(read(&truncated), Ok(Answer::Truncated));

    let whole = answer(vec![a("api.shop.test.", 60, 1)]).to_vec().unwrap();
    assert_eq!(asked(Family::V4).read(&whole[..whole.len() - 1]), Ok(Answer::Failed));
    assert_eq!(asked(Family::V4).read(&[]), Err(NotOurs));
    assert_eq!(asked(Family::V4).read(&whole[..11]), Err(NotOurs));
}

#[test]
fn a_compression_loop_ends() {
    let mut bytes = answer(Vec::new()).to_vec().unwrap();
    let here = u8::try_from(bytes.len()).unwrap();
    bytes[7] = 1; // one answer, whose owner points at itself
    bytes.extend_from_slice(&[0xc0, here, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 1]);
    assert_eq!(asked(Family::V4).read(&bytes), Ok(Answer::Failed));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_give_too_much(
        kept in 0_usize..=120,
        rest in proptest::collection::vec(any::<u8>(), 0..600),
        counts in any::<[u8; 2]>(),
    ) {
        let records = vec![alias("api.shop.test.", 60, "b.test."), a("b.test.", 60, 1), a("b.test.", 60, 2)];
        let mut bytes = answer(records).to_vec().unwrap();
        bytes.truncate(kept);
        bytes.extend_from_slice(&rest);
        for (place, count) in [7, 9].into_iter().zip(counts) {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = count;
            }
        }
        if let Ok(Answer::Addresses { addresses, .. }) = asked(Family::V4).read(&bytes) {
            prop_assert!((1..=ADDRESSES).contains(&addresses.len()));
            prop_assert!(addresses.iter().all(IpAddr::is_ipv4));
        }
    }
}
