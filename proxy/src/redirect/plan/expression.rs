//! Conditions and effects as the kernel's expressions. They hand values on in registers.

use super::{Direction, End, Expr, IpVersion, L4, SetName, Way};
use crate::redirect::netlink::{
    Message,
    uapi::{self, *},
};

/// Bytes of a refused packet that user space sees: enough for addresses and ports behind any header.
pub(super) const SNAPLEN: u32 = 128;
/// `lo` has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const LIMIT_UNIT_SECONDS: u64 = 1;

impl Expr {
    /// Adds the expressions of the kernel that this one consists of.
    pub(super) fn encode(&self, m: &mut Message) {
        match *self {
            Expr::Ip(IpVersion::V4) => meta_is(m, NFT_META_NFPROTO, NFT_CMP_EQ, &[2]),
            Expr::Ip(IpVersion::V6) => meta_is(m, NFT_META_NFPROTO, NFT_CMP_EQ, &[10]),
            Expr::L4(protocol) => meta_is(m, NFT_META_L4PROTO, NFT_CMP_EQ, &[protocol.number()]),
            Expr::DestinationPort(port) => {
                payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, (2, 2), NFT_REG_1);
                compare(m, NFT_CMP_EQ, &port.to_be_bytes());
            }
            Expr::DestinationPortIn(set) => {
                payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, (2, 2), NFT_REG_1);
                lookup(m, set);
            }
            Expr::DestinationIn(set) => destination_in(m, set),
            Expr::LinkLocal => {
                payload(m, NFT_PAYLOAD_NETWORK_HEADER, (24, 16), NFT_REG_1);
                bits(m, &[0xff, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                compare(m, NFT_CMP_EQ, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            Expr::Icmpv6Types(from, to) => {
                payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, (0, 1), NFT_REG_1);
                if from == to {
                    compare(m, NFT_CMP_EQ, &[from]);
                } else {
                    compare(m, NFT_CMP_GTE, &[from]);
                    compare(m, NFT_CMP_LTE, &[to]);
                }
            }
            Expr::Local(end, is) => {
                fib_type(m, end);
                compare(m, equal(is), &RTN_LOCAL.to_ne_bytes());
            }
            Expr::Loopback(way, is) => {
                let key = if way == Way::In { NFT_META_IIF } else { NFT_META_OIF };
                meta_is(m, key, equal(is), &LOOPBACK_INDEX.to_ne_bytes());
            }
            Expr::Owner(uid) => meta_is(m, NFT_META_SKUID, NFT_CMP_EQ, &uid.to_ne_bytes()),
            Expr::OwnerNot(uid) => meta_is(m, NFT_META_SKUID, NFT_CMP_NEQ, &uid.to_ne_bytes()),
            // Always true where there is something to load, and no match where there is nothing.
            Expr::Owned => meta_is(m, NFT_META_SKUID, NFT_CMP_GTE, &[0; 4]),
            Expr::Routed => meta_is(m, NFT_META_RTCLASSID, NFT_CMP_GTE, &[0; 4]),
            Expr::EtherType(kind) => meta_is(m, NFT_META_PROTOCOL, NFT_CMP_EQ, &kind.to_be_bytes()),
            Expr::CtState(mask) => ct_bits(m, NFT_CT_STATE, mask, true),
            Expr::CtTranslated(is) => ct_bits(m, NFT_CT_STATUS, CT_STATUS_DNAT, is),
            Expr::CtDirection(direction) => {
                ct(m, NFT_CT_DIRECTION);
                compare(m, NFT_CMP_EQ, &[u8::from(direction == Direction::Reply)]);
            }
            Expr::CtMark(mark) => {
                ct(m, NFT_CT_MARK);
                compare(m, NFT_CMP_EQ, &mark.to_ne_bytes());
            }
            _ => self.encode_effect(m),
        }
    }

    fn encode_effect(&self, m: &mut Message) {
        match *self {
            Expr::SetCtMark(mark) => {
                immediate(m, &mark.to_ne_bytes());
                expression(m, "ct", |m| {
                    m.be32(uapi::NFTA_CT_KEY, NFT_CT_MARK).be32(uapi::NFTA_CT_SREG, NFT_REG_1);
                });
            }
            Expr::Counter => expression(m, "counter", |_| {}),
            Expr::Limit(rate, burst) => expression(m, "limit", |m| {
                m.attr(uapi::NFTA_LIMIT_RATE, &u64::from(rate).to_be_bytes());
                m.attr(uapi::NFTA_LIMIT_UNIT, &LIMIT_UNIT_SECONDS.to_be_bytes());
                m.be32(uapi::NFTA_LIMIT_BURST, burst);
            }),
            Expr::Log(group) => expression(m, "log", |m| {
                m.attr(uapi::NFTA_LOG_GROUP, &group.to_be_bytes()).be32(uapi::NFTA_LOG_SNAPLEN, SNAPLEN);
            }),
            Expr::Redirect(port) => {
                immediate(m, &port.to_be_bytes());
                expression(m, "redir", |m| {
                    m.be32(uapi::NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
                    m.be32(uapi::NFTA_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
                });
            }
            Expr::RejectReset => reject(m, NFT_REJECT_TCP_RST, 0),
            Expr::RejectProhibited => reject(m, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED),
            Expr::Accept => verdict(m, NF_ACCEPT, None),
            Expr::Drop => verdict(m, NF_DROP, None),
            Expr::Return => verdict(m, NFT_RETURN, None),
            Expr::Goto(chain) => verdict(m, NFT_GOTO, Some(chain)),
            _ => {}
        }
    }
}

impl L4 {
    const fn number(self) -> u8 {
        match self {
            L4::Tcp => 6,
            L4::Udp => 17,
            L4::Icmpv6 => 58,
        }
    }
}

const fn equal(is: bool) -> u32 {
    if is { NFT_CMP_EQ } else { NFT_CMP_NEQ }
}

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.nested(NFTA_LIST_ELEM, |m| {
        m.text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, fill);
    });
}

pub(super) fn value(m: &mut Message, bytes: &[u8]) {
    m.attr(NFTA_DATA_VALUE, bytes);
}

fn meta_is(m: &mut Message, key: u32, op: u32, bytes: &[u8]) {
    expression(m, "meta", |m| {
        m.be32(uapi::NFTA_META_KEY, key).be32(uapi::NFTA_META_DREG, NFT_REG_1);
    });
    compare(m, op, bytes);
}

fn compare(m: &mut Message, op: u32, bytes: &[u8]) {
    expression(m, "cmp", |m| {
        m.be32(uapi::NFTA_CMP_SREG, NFT_REG_1).be32(uapi::NFTA_CMP_OP, op);
        m.nested(uapi::NFTA_CMP_DATA, |m| value(m, bytes));
    });
}

fn ct(m: &mut Message, key: u32) {
    expression(m, "ct", |m| {
        m.be32(uapi::NFTA_CT_DREG, NFT_REG_1).be32(uapi::NFTA_CT_KEY, key);
    });
}

/// Some bit of the mask is set, or none is.
fn ct_bits(m: &mut Message, key: u32, mask: u32, set: bool) {
    ct(m, key);
    bits(m, &mask.to_ne_bytes());
    compare(m, equal(!set), &[0; 4]);
}

/// Keeps the bits of a mask of up to 16 bytes.
fn bits(m: &mut Message, mask: &[u8]) {
    expression(m, "bitwise", |m| {
        m.be32(uapi::NFTA_BITWISE_SREG, NFT_REG_1).be32(uapi::NFTA_BITWISE_DREG, NFT_REG_1);
        m.be32(uapi::NFTA_BITWISE_LEN, mask.len() as u32);
        m.nested(uapi::NFTA_BITWISE_MASK, |m| value(m, mask));
        m.nested(uapi::NFTA_BITWISE_XOR, |m| value(m, &[0; 16][..mask.len()]));
    });
}

/// Loads bytes (offset, length) of a header into a register.
fn payload(m: &mut Message, base: u32, (offset, length): (u32, u32), register: u32) {
    expression(m, "payload", |m| {
        m.be32(uapi::NFTA_PAYLOAD_DREG, register).be32(uapi::NFTA_PAYLOAD_BASE, base);
        m.be32(uapi::NFTA_PAYLOAD_OFFSET, offset).be32(uapi::NFTA_PAYLOAD_LEN, length);
    });
}

fn destination_in(m: &mut Message, set: SetName) {
    let (offset, length) = if set == SetName::Udp6 { (24, 16) } else { (16, 4) };
    payload(m, NFT_PAYLOAD_NETWORK_HEADER, (offset, length), NFT_REG_1);
    payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, (2, 2), NFT_REG32_00 + length / 4);
    lookup(m, set);
}

fn lookup(m: &mut Message, set: SetName) {
    expression(m, "lookup", |m| {
        m.text(uapi::NFTA_LOOKUP_SET, set.as_str()).be32(uapi::NFTA_LOOKUP_SREG, NFT_REG_1);
    });
}

fn fib_type(m: &mut Message, end: End) {
    let flag = if end == End::Source { NFTA_FIB_F_SADDR } else { NFTA_FIB_F_DADDR };
    expression(m, "fib", |m| {
        m.be32(uapi::NFTA_FIB_DREG, NFT_REG_1).be32(uapi::NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        m.be32(uapi::NFTA_FIB_FLAGS, flag);
    });
}

fn immediate(m: &mut Message, bytes: &[u8]) {
    expression(m, "immediate", |m| {
        m.be32(uapi::NFTA_IMMEDIATE_DREG, NFT_REG_1);
        m.nested(uapi::NFTA_IMMEDIATE_DATA, |m| value(m, bytes));
    });
}

fn reject(m: &mut Message, kind: u32, code: u8) {
    expression(m, "reject", |m| {
        m.be32(uapi::NFTA_REJECT_TYPE, kind).attr(uapi::NFTA_REJECT_ICMP_CODE, &[code]);
    });
}

fn verdict(m: &mut Message, code: i32, chain: Option<&str>) {
    expression(m, "immediate", |m| {
        m.be32(uapi::NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        m.nested(uapi::NFTA_IMMEDIATE_DATA, |m| {
            m.nested(NFTA_DATA_VERDICT, |m| {
                m.be32(NFTA_VERDICT_CODE, code.cast_unsigned());
                if let Some(chain) = chain {
                    m.text(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}
