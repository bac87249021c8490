//! What the application asks, parsed strictly, and what it is told, built anew: no byte of it is ever forwarded.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};

/// Questions are short; a longer one carries something else. Bytes.
pub const LONGEST_QUESTION: usize = 1232;
/// Smallest datagram that every client takes (RFC 1035 section 2.3.4).
const SMALLEST_PAYLOAD: u16 = 512;
/// Largest datagram sent, whatever the client offers.
const LARGEST_PAYLOAD: u16 = 4096;
/// Payload that our own EDNS names.
const OWN_PAYLOAD: u16 = 1232;
const HEADER: usize = 12;

/// One question, as it may be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    id: u16,
    name: Name,
    record_type: RecordType,
    recursion_desired: bool,
    /// Largest datagram the client takes, when it speaks EDNS.
    payload: Option<u16>,
}

/// Why a message is not judged at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too short for a header, or itself an answer. Replying could start a loop.
    #[error("it is not a question")]
    NotAQuestion,
    /// Not exactly one plain question, or bytes that don't add up.
    #[error("it is malformed")]
    Malformed,
    /// Not a standard query: NOTIFY, UPDATE, ...
    #[error("its opcode is not QUERY")]
    Opcode,
    /// A class other than IN.
    #[error("its class is not IN")]
    Class,
    /// An EDNS version other than 0.
    #[error("its EDNS version is not 0")]
    EdnsVersion,
}

/// A message that is not judged: its fault, and what to send back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub fault: Fault,
    /// The response; `None` for silence.
    pub response: Option<Vec<u8>>,
}

/// What the application is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// NOERROR with these addresses for `ttl` seconds; those of another family than the question's are left out.
    Addresses {
        /// In the order in which they are sent.
        addresses: &'a [IpAddr],
        /// Seconds.
        ttl: u32,
    },
    /// NOERROR without records: the name exists, this type of it does not.
    NoRecords,
    /// A response code alone.
    Code(ResponseCode),
}

/// Parses one message from the application. Records that a question has no use for are a fault; EDNS options are
/// dropped (client subnet, cookies, padding: all of them could carry something out).
///
/// # Errors
/// [`Refusal`], with the response that says so.
pub fn parse_question(bytes: &[u8]) -> Result<Question, Refusal> {
    let mut decoder = BinDecoder::new(bytes);
    let header = match Header::read(&mut decoder) {
        Ok(header) if header.message_type == MessageType::Query => header,
        _ => return Err(Refusal { fault: Fault::NotAQuestion, response: None }),
    };
    parse_body(&header, bytes, &mut decoder).map_err(|fault| refusal(&header, fault))
}

fn parse_body(header: &Header, bytes: &[u8], decoder: &mut BinDecoder<'_>) -> Result<Question, Fault> {
    if header.op_code != OpCode::Query {
        return Err(Fault::Opcode);
    }
    let counts = header.counts;
    let plain =
        counts.queries == 1 && counts.answers == 0 && counts.authorities == 0 && counts.additionals <= 1;
    if !plain || header.truncation || bytes.len() > LONGEST_QUESTION {
        return Err(Fault::Malformed);
    }
    let query = Query::read(decoder).map_err(|_| Fault::Malformed)?;
    if is_compressed(bytes) {
        return Err(Fault::Malformed);
    }
    if query.query_class() != DNSClass::IN {
        return Err(Fault::Class);
    }
    let payload = if counts.additionals == 1 { Some(parse_edns(decoder)?) } else { None };
    if !decoder.is_empty() {
        return Err(Fault::Malformed);
    }
    Ok(Question {
        id: header.id,
        name: query.name().clone(),
        record_type: query.query_type(),
        recursion_desired: header.recursion_desired,
        payload,
    })
}

/// The one additional record that a question may have, and of it only the payload size.
fn parse_edns(decoder: &mut BinDecoder<'_>) -> Result<u16, Fault> {
    let record = Record::read(decoder).map_err(|_| Fault::Malformed)?;
    if record.record_type() != RecordType::OPT {
        return Err(Fault::Malformed);
    }
    // RFC 6891 section 6.1.3: the version is the second byte of what is the TTL elsewhere.
    if record.ttl.to_be_bytes()[1] != 0 {
        return Err(Fault::EdnsVersion);
    }
    Ok(u16::from(record.dns_class).clamp(SMALLEST_PAYLOAD, LARGEST_PAYLOAD))
}

/// Whether the first name, right after the header, has a compression pointer: it has nothing to point at.
fn is_compressed(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    while let Some((length, tail)) = rest.split_first() {
        match *length {
            0 => return false,
            64.. => return true,
            length => rest = tail.get(usize::from(length)..).unwrap_or_default(),
        }
    }
    true
}

fn refusal(header: &Header, fault: Fault) -> Refusal {
    let code = match fault {
        Fault::NotAQuestion => return Refusal { fault, response: None },
        Fault::Malformed => ResponseCode::FormErr,
        Fault::Opcode => ResponseCode::NotImp,
        Fault::Class => ResponseCode::Refused,
        Fault::EdnsVersion => ResponseCode::BADVERS,
    };
    let mut message = Message::response(header.id, header.op_code);
    message.metadata.recursion_desired = header.recursion_desired;
    message.metadata.response_code = code;
    if fault == Fault::EdnsVersion {
        // The upper bits of the code travel in the OPT record.
        message.set_edns(own_edns());
    }
    Refusal { fault, response: message.to_vec().ok() }
}

impl Question {
    /// The name as it was sent, root included. May be no valid host name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The type asked for.
    pub fn record_type(&self) -> RecordType {
        self.record_type
    }

    /// The largest response that a datagram may carry, in bytes.
    pub fn udp_limit(&self) -> usize {
        self.payload.unwrap_or(SMALLEST_PAYLOAD).into()
    }

    /// A response of at most `limit` bytes: what does not fit is left out and TC is set, so that the client asks over
    /// TCP.
    pub fn response(&self, reply: Reply<'_>, limit: usize) -> Vec<u8> {
        let mut message = self.response_head();
        match reply {
            Reply::Addresses { addresses, ttl } => {
                message.insert_answers(addresses.iter().filter_map(|ip| self.record(*ip, ttl)).collect());
            }
            Reply::NoRecords => {}
            Reply::Code(code) => message.metadata.response_code = code,
        }
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= limit => bytes,
            _ => message.truncate().to_vec().unwrap_or_default(),
        }
    }

    fn response_head(&self) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        // Without it some clients take an empty answer for a lame referral and give up.
        message.metadata.recursion_available = true;
        message.add_query(Query::query(self.name.clone(), self.record_type));
        if self.payload.is_some() {
            message.set_edns(own_edns());
        }
        message
    }

    fn record(&self, address: IpAddr, ttl: u32) -> Option<Record> {
        let rdata = match (address, self.record_type) {
            (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
            (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
            _ => return None,
        };
        Some(Record::from_rdata(self.name.clone(), ttl, rdata))
    }
}

fn own_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(OWN_PAYLOAD);
    edns
}

#[cfg(test)]
mod tests;
