//! DNS messages from the application and from resolvers.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use sidegate_policy::HostName;
use sidegate_proxy::dns::{
    answer::{Answer, Asked},
    message::{Reply, parse_question},
    resolv_conf::ResolvConf,
    resolver::Family,
};

use super::text;

/// An accepted question can be answered within any limit; a refusal never looks like a question.
pub fn dns_question(bytes: &[u8]) {
    let question = match parse_question(bytes) {
        Ok(question) => question,
        Err(refusal) => {
            if let Some(response) = refusal.response {
                let message = Message::from_vec(&response).expect("a readable refusal");
                assert_eq!(message.metadata.message_type, MessageType::Response);
                assert_eq!(response[..2], bytes[..2], "the id is the question's");
            }
            return;
        }
    };
    let addresses: Vec<IpAddr> =
        (0..=255u8).flat_map(|n| [IpAddr::from([192, 0, 2, n]), IpAddr::from([n; 16])]).collect();
    let replies = [
        Reply::Addresses { addresses: &addresses, ttl: u32::MAX },
        Reply::NoRecords,
        Reply::Code(ResponseCode::Refused),
    ];
    for reply in replies {
        for limit in [question.udp_limit(), usize::from(u16::MAX)] {
            let response = question.response(reply, limit);
            assert!(response.len() <= limit, "{} of {limit}", response.len());
            let message = Message::from_vec(&response).expect("a readable response");
            assert_eq!(message.metadata.message_type, MessageType::Response);
            assert_eq!(response[..2], bytes[..2]);
            assert_eq!(message.queries.len(), 1);
            assert_eq!(message.queries[0].name(), question.name());
        }
    }
}

/// Only an answer to what was asked counts, and never more than a bounded part of it.
pub fn dns_answer(bytes: &[u8]) {
    let host = HostName::parse("api.example.com").expect("a name");
    for family in [Family::V4, Family::V6] {
        let asked = Asked::with_id(0x5369, &host, family).expect("a question");
        match asked.read(bytes) {
            Ok(Answer::Addresses { addresses, .. }) => {
                assert!(!addresses.is_empty() && addresses.len() <= 64);
                assert!(addresses.iter().all(|address| address.is_ipv4() == (family == Family::V4)));
                assert!(bytes.starts_with(b"Si"), "the id is the question's");
            }
            Ok(_) => assert!(bytes.starts_with(b"Si")),
            Err(_) => {}
        }
    }
}

/// Any text gives some configuration.
pub fn resolv_conf(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        let conf = ResolvConf::parse(text);
        assert!(conf.servers.len() <= text.lines().count());
    }
}
