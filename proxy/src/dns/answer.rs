//! An upstream answer, read with suspicion: it must be for the question, and only what the question reaches counts.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use sidegate_policy::HostName;

use super::resolver::Family;

/// UDP payload that the stub accepts, in bytes (DNS flag day 2020: never fragmented on common paths).
pub(super) const UDP_PAYLOAD: u16 = 1232;
/// Aliases followed within one answer.
const ALIASES: usize = 8;
/// Addresses kept of one answer.
const ADDRESSES: usize = 64;
/// How long a name without addresses is remembered when the answer carries no SOA, in seconds.
const NEGATIVE_TTL_WITHOUT_SOA: u32 = 5;

/// One question, and the id that its answer must carry.
#[derive(Clone, Debug)]
pub struct Asked {
    id: u16,
    name: Name,
    record_type: RecordType,
}

/// What a matching answer says. TTLs in seconds as the server gave them, not yet clamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one address.
    Addresses {
        /// In the order of the answer; at most 64.
        addresses: Vec<IpAddr>,
        /// The least of the records that led there.
        ttl: u32,
    },
    /// NXDOMAIN.
    NotFound {
        /// For how long, by the SOA.
        ttl: u32,
    },
    /// NOERROR without an address of the family.
    NoAddress {
        /// For how long, by the SOA.
        ttl: u32,
    },
    /// It did not fit into a datagram: ask again over TCP.
    Truncated,
    /// SERVFAIL, REFUSED, or an answer that can't be used.
    Failed,
}

/// The bytes are no answer to this question: somebody else's, or forged. Keep waiting for the real one.
#[derive(Debug, PartialEq, Eq)]
pub struct NotOurs;

impl Asked {
    /// A question with a fresh random id. `None`: the name can't be put on the wire.
    pub(super) fn new(host: &HostName, family: Family) -> Option<Self> {
        Self::with_id(rand::random(), host, family)
    }

    /// As `Asked::new` with an id of the caller's choice: a guessable id lets others answer.
    pub fn with_id(id: u16, host: &HostName, family: Family) -> Option<Self> {
        let mut name = Name::from_ascii(host.as_str()).ok()?;
        name.set_fqdn(true);
        Some(Asked { id, name, record_type: family.record_type() })
    }

    /// The question on the wire: one question, recursion desired, EDNS without options.
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.record_type));
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        message.set_edns(edns);
        message.to_vec().ok()
    }

    /// Reads what came back.
    ///
    /// # Errors
    /// [`NotOurs`] unless id, direction, opcode and the whole question are those that were sent (RFC 5452 section 9.1).
    pub fn read(&self, bytes: &[u8]) -> Result<Answer, NotOurs> {
        self.check(bytes)?;
        let Ok(message) = Message::from_vec(bytes) else { return Ok(Answer::Failed) };
        if message.metadata.truncation {
            return Ok(Answer::Truncated);
        }
        Ok(match message.metadata.response_code {
            ResponseCode::NoError => self.follow(&message),
            ResponseCode::NXDomain => Answer::NotFound { ttl: self.negative_ttl(&message) },
            _ => Answer::Failed,
        })
    }

    /// The part that tells our answer from another, checked before anything else is parsed.
    fn check(&self, bytes: &[u8]) -> Result<(), NotOurs> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| NotOurs)?;
        let ours = header.id == self.id
            && header.message_type == MessageType::Response
            && header.op_code == OpCode::Query
            && header.counts.queries == 1;
        if !ours {
            return Err(NotOurs);
        }
        let question = Query::read(&mut decoder).map_err(|_| NotOurs)?;
        // `Name` compares without regard to case (RFC 4343).
        let same = *question.name() == self.name
            && question.query_type() == self.record_type
            && question.query_class() == DNSClass::IN;
        if same { Ok(()) } else { Err(NotOurs) }
    }

    /// Follows aliases from the question; records that it does not reach are as good as absent.
    fn follow(&self, message: &Message) -> Answer {
        let mut owner = &self.name;
        let mut ttl = u32::MAX;
        for _ in 0..=ALIASES {
            let addresses = self.addresses_of(owner, message);
            if !addresses.is_empty() {
                let ttl = owned(owner, message)
                    .filter(|record| record.record_type() == self.record_type)
                    .fold(ttl, |least, record| least.min(sane_ttl(record.ttl)));
                return Answer::Addresses { addresses, ttl };
            }
            let mut aliases = owned(owner, message).filter_map(|record| match &record.data {
                RData::CNAME(target) => Some((&target.0, record.ttl)),
                _ => None,
            });
            let Some((target, alias_ttl)) = aliases.next() else {
                return Answer::NoAddress { ttl: self.negative_ttl(message).min(ttl) };
            };
            // A name has one alias at most (RFC 2181 section 10.1); two that differ leave it open who is meant.
            if aliases.any(|(other, _)| other != target) {
                return Answer::Failed;
            }
            ttl = ttl.min(sane_ttl(alias_ttl));
            owner = target;
        }
        Answer::Failed
    }

    fn addresses_of(&self, owner: &Name, message: &Message) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for record in owned(owner, message) {
            let address = match (&record.data, self.record_type) {
                (RData::A(address), RecordType::A) => IpAddr::V4(address.0),
                (RData::AAAA(address), RecordType::AAAA) => IpAddr::V6(address.0),
                _ => continue,
            };
            if addresses.len() < ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// RFC 2308 section 5: the lesser of the SOA's TTL and its minimum, from a zone that the question lies in.
    fn negative_ttl(&self, message: &Message) -> u32 {
        let zone_ttl = |record: &Record| match &record.data {
            RData::SOA(soa) if record.name.zone_of(&self.name) => {
                Some(sane_ttl(record.ttl).min(sane_ttl(soa.minimum)))
            }
            _ => None,
        };
        message.authorities.iter().find_map(zone_ttl).unwrap_or(NEGATIVE_TTL_WITHOUT_SOA)
    }
}

fn owned<'m>(owner: &'m Name, message: &'m Message) -> impl Iterator<Item = &'m Record> {
    message.answers.iter().filter(move |record| record.dns_class == DNSClass::IN && record.name == *owner)
}

/// RFC 2181 section 8: a TTL with the top bit set counts as zero.
fn sane_ttl(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

#[cfg(test)]
mod tests;
