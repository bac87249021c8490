//! What the kernel holds of our tables, reduced to what must not change.

use std::{collections::BTreeSet, io};

use super::{
    netlink::{
        Message, Netlink, Received,
        message::{attribute, attributes, be32, string},
        uapi::*,
    },
    plan::{Element, Family, SetName, TABLE, nft},
};

/// Tables, chains, rules and set elements of ours, without handles and counters. Equal snapshots mean equal behaviour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Tables, chains and sets, in whatever order the kernel lists them.
    objects: BTreeSet<Vec<u8>>,
    /// Rules in their order.
    rules: Vec<Vec<u8>>,
    /// Elements of sets.
    elements: BTreeSet<Vec<u8>>,
}

/// A chain of somebody else's that translates destinations before ours does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EarlierChain {
    pub(super) table: String,
    pub(super) chain: String,
}

impl Snapshot {
    /// Reads every table of ours.
    pub(super) fn take(netlink: &mut Netlink) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for family in [Family::Inet, Family::Netdev] {
            snapshot.add_objects(netlink, family)?;
            let mut request = nft(NFT_MSG_GETRULE, 0, family, "reading rules".to_owned());
            request.text(NFTA_RULE_TABLE, TABLE);
            netlink.dump(request, |message| {
                if let Some(attributes) = ours(&message, NFTA_RULE_TABLE) {
                    snapshot.rules.push(rule(attributes));
                }
            })?;
        }
        Ok(snapshot)
    }

    /// Any rule of ours.
    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// DNS to local addresses is redirected too: the redirect to the DNS server comes before local destinations return.
    pub(super) fn loopback_dns(&self) -> bool {
        let first = |expression: &[u8]| {
            let says = |rule: &&Vec<u8>, word: &[u8]| rule.windows(word.len()).any(|bytes| bytes == word);
            let mut dial = self.rules.iter().filter(|rule| says(rule, b"dial\0"));
            dial.position(|rule| says(&rule, expression))
        };
        first(b"redir\0") < first(b"fib\0")
    }

    /// The same but for the elements of sets.
    pub(super) fn differs_in_elements_only(&self, other: &Snapshot) -> bool {
        self.objects == other.objects && self.rules == other.rules
    }

    fn add_objects(&mut self, netlink: &mut Netlink, family: Family) -> io::Result<()> {
        let kept: [(u16, u16, &[u16]); 3] = [
            (NFT_MSG_GETTABLE, NFTA_TABLE_NAME, &[NFTA_TABLE_NAME, NFTA_TABLE_FLAGS]),
            (
                NFT_MSG_GETCHAIN,
                NFTA_CHAIN_TABLE,
                &[NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE],
            ),
            (NFT_MSG_GETSET, NFTA_SET_TABLE, &[NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE]),
        ];
        for (kind, table, keep) in kept {
            let mut request = nft(kind, 0, family, "reading tables, chains and sets".to_owned());
            if kind == NFT_MSG_GETSET {
                request.text(NFTA_SET_TABLE, TABLE);
            }
            let objects = &mut self.objects;
            match netlink.dump(request, |message| {
                objects.extend(ours(&message, table).map(|found| only(found, kind, keep)));
            }) {
                // Asked for the sets of a table that is not there.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                outcome => outcome?,
            }
        }
        if matches!(family, Family::Inet) {
            for set in [SetName::Closed, SetName::Udp4, SetName::Udp6] {
                self.add_elements(netlink, set)?;
            }
        }
        Ok(())
    }

    fn add_elements(&mut self, netlink: &mut Netlink, set: SetName) -> io::Result<()> {
        let elements = &mut self.elements;
        let outcome = netlink.dump(elements_of(set), |message| {
            let list = message.payload.get(4..).and_then(|rest| attribute(rest, NFTA_SET_ELEM_LIST_ELEMENTS));
            for (_, element) in list.into_iter().flat_map(attributes) {
                let mut kept = set.as_str().as_bytes().to_vec();
                kept.extend(only(element, NFT_MSG_GETSETELEM, &[NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END]));
                elements.insert(kept);
            }
        });
        match outcome {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }
}

/// What a set of ours holds.
pub(super) fn held(netlink: &mut Netlink, set: SetName) -> io::Result<BTreeSet<Element>> {
    fn value(element: &[u8], kind: u16) -> Option<Vec<u8>> {
        attribute(attribute(element, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec)
    }
    let mut elements = BTreeSet::new();
    netlink.dump(elements_of(set), |message| {
        let list = message.payload.get(4..).and_then(|rest| attribute(rest, NFTA_SET_ELEM_LIST_ELEMENTS));
        for (_, element) in list.into_iter().flat_map(attributes) {
            elements.extend(
                value(element, NFTA_SET_ELEM_KEY).map(|key| (key, value(element, NFTA_SET_ELEM_KEY_END))),
            );
        }
    })?;
    Ok(elements)
}

fn elements_of(set: SetName) -> Message {
    let mut request = nft(NFT_MSG_GETSETELEM, 0, Family::Inet, format!("reading set `{set}`"));
    request.text(NFTA_SET_ELEM_LIST_TABLE, TABLE).text(NFTA_SET_ELEM_LIST_SET, set.as_str());
    request
}

/// Chains of other tables that could take connections away before our `dial` sees them.
pub(super) fn earlier_chains(netlink: &mut Netlink, ours_at: i32) -> io::Result<BTreeSet<EarlierChain>> {
    /// `NF_INET_LOCAL_OUT`.
    const OUTPUT: u32 = 3;
    let mut found = BTreeSet::new();
    let request = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0, &[0; 4], "reading chains");
    netlink.dump(request, |message| {
        let Some(chain) = message.payload.get(4..) else { return };
        let text = |kind| attribute(chain, kind).and_then(string).unwrap_or_default();
        let Some(hook) = attribute(chain, NFTA_CHAIN_HOOK) else { return };
        let number = |kind| attribute(hook, kind).and_then(be32);
        let earlier = number(NFTA_HOOK_PRIORITY).is_some_and(|priority| priority.cast_signed() <= ours_at);
        let translates = text(NFTA_CHAIN_TYPE) == "nat" && number(NFTA_HOOK_HOOKNUM) == Some(OUTPUT);
        if translates && earlier && text(NFTA_CHAIN_TABLE) != TABLE {
            let (table, chain) = (text(NFTA_CHAIN_TABLE).to_owned(), text(NFTA_CHAIN_NAME).to_owned());
            found.insert(EarlierChain { table, chain });
        }
    })?;
    Ok(found)
}

/// The attributes of a message about our table; its family is part of the request.
fn ours<'a>(message: &Received<'a>, table: u16) -> Option<&'a [u8]> {
    let attributes = message.payload.get(4..)?;
    (attribute(attributes, table).and_then(string) == Some(TABLE)).then_some(attributes)
}

/// The attributes of these types, as bytes that can be compared.
fn only(attributes_of: &[u8], kind: u16, keep: &[u16]) -> Vec<u8> {
    let mut bytes = kind.to_ne_bytes().to_vec();
    for (kind, value) in attributes(attributes_of).filter(|(kind, _)| keep.contains(kind)) {
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// A rule's chain and expressions, without what counters have counted.
fn rule(rule: &[u8]) -> Vec<u8> {
    let mut bytes = only(rule, NFT_MSG_GETRULE, &[NFTA_RULE_CHAIN]);
    for (_, expression) in attribute(rule, NFTA_RULE_EXPRESSIONS).into_iter().flat_map(attributes) {
        let name = attribute(expression, NFTA_EXPR_NAME).unwrap_or_default();
        bytes.extend_from_slice(name);
        if string(name) != Some("counter") {
            bytes.extend_from_slice(attribute(expression, NFTA_EXPR_DATA).unwrap_or_default());
        }
    }
    bytes
}
