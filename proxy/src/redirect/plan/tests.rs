use std::collections::{BTreeSet, HashSet};

use sidegate_policy::set::UdpDestination;

use super::{Chain, ChainKind, Expr, Plan, encode::elements, encode_changes, encode_elements, encode_tables};
use crate::redirect::{Exempt, Spec};

fn specs() -> [Spec; 3] {
    [
        Spec::run(),
        Spec::sidecar(1337),
        Spec { inbound: Some(15006), nflog_group: None, ..Spec::sidecar(1337) },
    ]
}

fn plan(spec: &Spec) -> Plan {
    Plan::new(spec, &["eth0".to_owned()])
}

fn chain<'a>(plan: &'a Plan, name: &str) -> &'a Chain {
    plan.tables().flat_map(|table| &table.chains).find(|chain| chain.name == name).expect("the chain")
}

/// The expressions that nft 1.0.6 sends for `meta l4proto tcp redirect to :15001`.
const NFT_REDIRECT: &str = "24000180 09000100 6d657461 00000000 14000280 08000200 00000010 08000100 00000001 2c000180 \
    08000100 636d7000 20000280 08000100 00000001 08000200 00000000 0c000380 05000100 06000000 2c000180 0e000100 \
    696d6d65 64696174 65000000 18000280 08000100 00000001 0c000280 06000100 3a990000 24000180 0a000100 72656469 \
    72000000 14000280 08000100 00000001 08000300 00000002";

/// The element that nft 1.0.6 sends for `10.0.0.0/8 . 100-200`.
const NFT_ELEMENT: &str =
    "28000380 24000180 10000180 0c000100 0a000000 00640000 10000a80 0c000100 0affffff 00c80000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn rules_are_encoded_as_nft_encodes_them() {
    let sent: Vec<u8> = encode_tables(plan(&Spec::run()).tables()).iter().flat_map(|m| m.finish(0)).collect();
    assert!(contains(&sent, &bytes(NFT_REDIRECT)));
}

#[test]
fn elements_are_encoded_as_nft_encodes_them() {
    let udp = vec![UdpDestination { net: "10.0.0.0/8".parse().expect("a net"), ports: 100..=200 }];
    let sets = plan(&Spec { udp, ..Spec::run() }).udp_sets();
    let sent: Vec<u8> = encode_elements(&sets).iter().flat_map(|m| m.finish(0)).collect();
    assert!(contains(&sent, &bytes(NFT_ELEMENT)));
}

/// An element that stays is neither taken out nor put in.
#[test]
fn a_change_touches_only_what_differs() {
    let allow = |net: &str| UdpDestination { net: net.parse().expect("a net"), ports: 53..=53 };
    let set = |nets: &[&str]| {
        let udp = nets.iter().map(|net| allow(net)).collect();
        plan(&Spec { udp, ..Spec::run() }).udp_sets().swap_remove(0)
    };
    let held = |nets: &[&str]| elements(&set(nets)).into_iter().collect::<BTreeSet<_>>();
    let change = |from: &[&str], to: &[&str]| encode_changes(&[(set(to), held(from))]);
    assert!(change(&["10.0.0.1/32"], &["10.0.0.1/32"]).is_none());
    let sent: Vec<u8> = change(&["10.0.0.1/32", "10.0.0.9/32"], &["10.0.0.1/32", "10.7.0.0/16"])
        .expect("a change")
        .iter()
        .flat_map(|message| message.finish(0))
        .collect();
    for (address, touched) in [([10, 0, 0, 1], false), ([10, 0, 0, 9], true), ([10, 7, 255, 255], true)] {
        assert_eq!(contains(&sent, &address), touched, "{address:?}");
    }
}

#[test]
fn what_leaves_is_denied_by_policy_and_by_the_last_rule() {
    for spec in specs() {
        let plan = plan(&spec);
        for name in ["leave", "through", "frame"] {
            let chain = chain(&plan, name);
            assert!(chain.base.as_ref().is_some_and(|base| base.policy_drop), "{name}");
            let last = chain.rules.last().expect("a rule");
            let denies = matches!(last.body.last(), Some(Expr::Drop | Expr::Goto("refuse")));
            let unconditional =
                last.body.iter().all(|e| matches!(e, Expr::Counter | Expr::Drop | Expr::Goto(_)));
            assert!(denies && unconditional, "{name}");
        }
    }
}

#[test]
fn chains_come_before_the_rules_that_go_to_them() {
    for spec in specs() {
        for table in plan(&spec).tables() {
            let names: HashSet<_> = table.chains.iter().map(|chain| chain.name).collect();
            assert_eq!(names.len(), table.chains.len());
            let targets = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.body);
            for expr in targets {
                if let Expr::Goto(target) = expr {
                    assert!(names.contains(target), "{target}");
                }
            }
        }
    }
}

#[test]
fn only_a_uid_is_ever_exempt() {
    let exempting = |plan: &Plan| {
        let rules = plan.inet.chains.iter().flat_map(|chain| &chain.rules);
        rules.filter(|rule| rule.body.iter().any(|expr| matches!(expr, Expr::Owner(_)))).count()
    };
    assert_eq!(exempting(&plan(&Spec::run())), 0);
    assert!(exempting(&plan(&Spec::sidecar(1337))) > 0);
    let run_text = plan(&Spec::run()).to_string();
    assert!(!run_text.contains("skuid 1337") && !run_text.contains("meta mark"));
    assert_eq!(Spec::run().exempt, Exempt::None);
}

#[test]
fn redirects_come_first_of_all_translations() {
    for spec in specs() {
        let plan = plan(&spec);
        let nat = plan.inet.chains.iter().filter_map(|chain| chain.base.as_ref());
        for base in nat.filter(|base| base.kind == ChainKind::Nat) {
            assert!((-199..-100).contains(&base.priority));
        }
    }
}
