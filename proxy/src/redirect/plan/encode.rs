//! The plan as messages of one nftables transaction.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Base, Chain, ChainKind, Family, Hook, Rule, Set, SetName, TABLE, Table, expression::value, udp::Block,
};
use crate::redirect::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, uapi::*};

/// Elements in one message; one is at most 100 bytes, and a message's attributes end at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

impl Family {
    const fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Netdev => 5,
        }
    }
}

/// A transaction that puts these tables in the place of what there is.
pub(crate) fn encode_tables<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Vec<Message> {
    let mut messages = Vec::new();
    for table in tables {
        let family = table.family;
        messages.extend(removal(family));
        messages.push(table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE, family));
        for set in &table.sets {
            messages.push(new_set(family, set));
            messages.extend(new_elements(family, set));
        }
        messages.extend(table.chains.iter().map(|chain| new_chain(family, chain)));
        for chain in &table.chains {
            messages.extend(chain.rules.iter().map(|rule| new_rule(family, chain.name, rule)));
        }
    }
    transaction(messages)
}

/// A transaction that removes the tables of these families, which need not exist.
pub(crate) fn encode_removal(families: &[Family]) -> Vec<Message> {
    transaction(families.iter().flat_map(|family| removal(*family)).collect())
}

/// A transaction that replaces the elements of sets.
pub(crate) fn encode_elements(sets: &[Set]) -> Vec<Message> {
    let mut messages = Vec::new();
    for set in sets {
        let mut flush = nft(NFT_MSG_DELSETELEM, 0, Family::Inet, format!("emptying set `{}`", set.name()));
        flush.text(NFTA_SET_ELEM_LIST_TABLE, TABLE).text(NFTA_SET_ELEM_LIST_SET, set.name().as_str());
        messages.push(flush);
        messages.extend(new_elements(Family::Inet, set));
    }
    transaction(messages)
}

/// A transaction that turns the elements that sets hold into those of `sets`, and touches no element that stays: before
/// Linux 6.17 the kernel hides an element for a moment also when one transaction takes it out and puts it in again.
/// `None`: nothing is to be changed.
pub(crate) fn encode_changes(sets: &[(Set, BTreeSet<Element>)]) -> Option<Vec<Message>> {
    let mut messages = Vec::new();
    for (set, held) in sets {
        let wanted: BTreeSet<Element> = elements(set).into_iter().collect();
        let gone: Vec<Element> = held.difference(&wanted).cloned().collect();
        let new: Vec<Element> = wanted.difference(held).cloned().collect();
        messages.extend(element_messages(NFT_MSG_DELSETELEM, Family::Inet, set.name(), &gone));
        messages.extend(element_messages(NFT_MSG_NEWSETELEM, Family::Inet, set.name(), &new));
    }
    (!messages.is_empty()).then(|| transaction(messages))
}

fn transaction(messages: Vec<Message>) -> Vec<Message> {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let edge = |kind, purpose| Message::new(kind, 0, &[0, 0, high, low], purpose);
    let begin = edge(NFNL_MSG_BATCH_BEGIN, "committing the nftables transaction");
    let end = edge(NFNL_MSG_BATCH_END, "ending the nftables transaction");
    std::iter::once(begin).chain(messages).chain([end]).collect()
}

/// Deleting what may not exist: create it first.
fn removal(family: Family) -> [Message; 2] {
    [table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE, family), table_message(NFT_MSG_DELTABLE, 0, family)]
}

/// A message to the nftables subsystem about `family`.
pub(crate) fn nft(kind: u16, flags: u16, family: Family, purpose: String) -> Message {
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[family.number(), 0, 0, 0], purpose)
}

fn table_message(kind: u16, flags: u16, family: Family) -> Message {
    let verb = if kind == NFT_MSG_DELTABLE { "deleting" } else { "adding" };
    let mut message = nft(kind, flags, family, format!("{verb} table `{family} {TABLE}`"));
    message.text(NFTA_TABLE_NAME, TABLE);
    message
}

fn new_chain(family: Family, chain: &Chain) -> Message {
    let purpose = format!("adding chain `{family} {TABLE} {}`", chain.name);
    let mut message = nft(NFT_MSG_NEWCHAIN, NLM_F_CREATE, family, purpose);
    message.text(NFTA_CHAIN_TABLE, TABLE).text(NFTA_CHAIN_NAME, chain.name);
    if let Some(base) = &chain.base {
        base.encode(&mut message);
    }
    message
}

impl Base {
    fn encode(&self, message: &mut Message) {
        let hook = match self.hook {
            Hook::Prerouting => 0,
            Hook::Input | Hook::Egress => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        message.nested(NFTA_CHAIN_HOOK, |m| {
            m.be32(NFTA_HOOK_HOOKNUM, hook).be32(NFTA_HOOK_PRIORITY, self.priority.cast_unsigned());
            if !self.devices.is_empty() {
                m.nested(NFTA_HOOK_DEVS, |m| {
                    for name in &self.devices {
                        m.text(NFTA_DEVICE_NAME, name);
                    }
                });
            }
        });
        let policy = if self.policy_drop { NF_DROP } else { NF_ACCEPT };
        message.be32(NFTA_CHAIN_POLICY, policy.cast_unsigned());
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        message.text(NFTA_CHAIN_TYPE, kind);
    }
}

fn new_rule(family: Family, chain: &str, rule: &Rule) -> Message {
    let purpose = format!("adding a rule to chain `{family} {TABLE} {chain}` ({})", rule.why);
    let mut message = nft(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, purpose);
    message.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, chain);
    message.nested(NFTA_RULE_EXPRESSIONS, |m| {
        for expr in &rule.body {
            expr.encode(m);
        }
    });
    if !rule.why.is_empty() {
        let length = u8::try_from(rule.why.len() + 1).unwrap_or(u8::MAX);
        let mut comment = vec![UDATA_COMMENT, length];
        comment.extend_from_slice(rule.why.as_bytes());
        comment.push(0);
        message.attr(NFTA_RULE_USERDATA, &comment);
    }
    message
}

impl Set {
    pub(crate) fn name(&self) -> SetName {
        match self {
            Set::Ports(name, _) | Set::Destinations(name, _) => *name,
        }
    }
}

/// Type numbers of nft (`enum datatypes`); a concatenation packs them in 6 bits each.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_BITS: u32 = 6;

fn new_set(family: Family, set: &Set) -> Message {
    let name = set.name();
    let mut message = nft(NFT_MSG_NEWSET, NLM_F_CREATE, family, format!("adding set `{name}`"));
    message.text(NFTA_SET_TABLE, TABLE).text(NFTA_SET_NAME, name.as_str());
    // The kernel wants an id that is unique within the transaction.
    message.be32(NFTA_SET_ID, name as u32 + 1);
    let address = match name {
        SetName::Closed => {
            message.be32(NFTA_SET_FLAGS, 0).be32(NFTA_SET_KEY_TYPE, TYPE_INET_SERVICE);
            message.be32(NFTA_SET_KEY_LEN, 2);
            return message;
        }
        SetName::Udp4 => (TYPE_IPV4_ADDR, 4),
        SetName::Udp6 => (TYPE_IPV6_ADDR, 16),
    };
    message.be32(NFTA_SET_FLAGS, NFT_SET_INTERVAL | NFT_SET_CONCAT);
    message.be32(NFTA_SET_KEY_TYPE, address.0 << TYPE_BITS | TYPE_INET_SERVICE);
    message.be32(NFTA_SET_KEY_LEN, address.1 + 4);
    message.nested(NFTA_SET_DESC, |m| {
        m.nested(NFTA_SET_DESC_CONCAT, |m| {
            for length in [address.1, 2] {
                m.nested(NFTA_LIST_ELEM, |m| {
                    m.be32(NFTA_SET_FIELD_LEN, length);
                });
            }
        });
    });
    message
}

/// First and last key of an element; a single key has no last one.
pub(crate) type Element = (Vec<u8>, Option<Vec<u8>>);

pub(super) fn elements(set: &Set) -> Vec<Element> {
    match set {
        Set::Ports(_, ports) => ports.iter().map(|port| (port.to_be_bytes().to_vec(), None)).collect(),
        Set::Destinations(_, blocks) => blocks.iter().map(bounds).collect(),
    }
}

fn new_elements(family: Family, set: &Set) -> Vec<Message> {
    element_messages(NFT_MSG_NEWSETELEM, family, set.name(), &elements(set))
}

fn element_messages(kind: u16, family: Family, set: SetName, elements: &[Element]) -> Vec<Message> {
    let (verb, flags) = match kind {
        NFT_MSG_NEWSETELEM => ("adding elements to", NLM_F_CREATE),
        _ => ("taking elements out of", 0),
    };
    let message = |elements: &[Element]| {
        let mut message = nft(kind, flags, family, format!("{verb} set `{set}`"));
        message.text(NFTA_SET_ELEM_LIST_TABLE, TABLE).text(NFTA_SET_ELEM_LIST_SET, set.as_str());
        message.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |m| {
            for (key, end) in elements {
                m.nested(NFTA_LIST_ELEM, |m| {
                    m.nested(NFTA_SET_ELEM_KEY, |m| value(m, key));
                    if let Some(end) = end {
                        m.nested(NFTA_SET_ELEM_KEY_END, |m| value(m, end));
                    }
                });
            }
        });
        message
    };
    elements.chunks(ELEMENTS_PER_MESSAGE).map(message).collect()
}

/// Each field padded to 4 bytes.
fn bounds(block: &Block) -> Element {
    let key = |address: IpAddr, port: &u16| {
        let mut key = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        key.extend_from_slice(&port.to_be_bytes());
        key.extend_from_slice(&[0, 0]);
        key
    };
    let (first, last) = block.bounds();
    (key(first, block.ports.start()), Some(key(last, block.ports.end())))
}
