//! How many packets chain `refuse` has refused: all of them, also those that are not told one by one.

use std::io;

use crate::redirect::{
    netlink::{
        Netlink,
        message::{attribute, attributes, be64, string},
        uapi::*,
    },
    plan::{Family, REFUSE, TABLE, nft},
};

/// Packets that the counters of chain `refuse` have counted. They begin again when the rules are put in place.
/// The caller needs `CAP_NET_ADMIN` over the network namespace of the socket.
pub(in crate::redirect) fn refused_packets(netlink: &mut Netlink) -> io::Result<u64> {
    let mut request = nft(NFT_MSG_GETRULE, 0, Family::Inet, "reading the counters of refusals".to_owned());
    request.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, REFUSE);
    let mut packets = 0;
    netlink.dump(request, |message| {
        let Some(rule) = message.payload.get(4..) else { return };
        let text = |kind| attribute(rule, kind).and_then(string);
        // Before Linux 4.17 a dump tells the rules of every chain.
        if text(NFTA_RULE_TABLE) == Some(TABLE) && text(NFTA_RULE_CHAIN) == Some(REFUSE) {
            packets += counted(rule);
        }
    })?;
    Ok(packets)
}

fn counted(rule: &[u8]) -> u64 {
    let expressions = attribute(rule, NFTA_RULE_EXPRESSIONS).into_iter().flat_map(attributes);
    let counters = expressions.filter_map(|(_, expression)| {
        let counter = attribute(expression, NFTA_EXPR_NAME).and_then(string) == Some("counter");
        let counts = attribute(expression, NFTA_EXPR_DATA).filter(|_| counter)?;
        attribute(counts, NFTA_COUNTER_PACKETS).and_then(be64)
    });
    counters.sum()
}
