//! The peers file: parsed whole or refused whole, every error with its place and fix.

use std::{collections::HashMap, hash::Hash, net::IpAddr, ops::Range};

use sidegate_policy::{
    Diagnostic, HostName, Source, SpiffeId,
    deny_table::denied_answer,
    document::{Section, read_sections},
};

use super::{Peer, Peers};
use crate::{dns::SyntheticAddresses, mesh::MESH_PORT};

const KIND: &str = "Peers";
const PEER: &str = "an entry of `peers`";
const ID: &str = "write a SPIFFE ID, such as spiffe://example.org/ns/orders/sa/api";
const ADDRESS: &str = "write an IP address, such as 10.0.3.7";
const HOST: &str = "write a domain name, such as orders.internal";

/// Parses a source.
///
/// # Errors
/// Every diagnostic at once.
pub fn parse(source: &Source) -> Result<Peers, Vec<Diagnostic>> {
    read_sections(source, KIND, &["apiVersion", "kind", "peers"], build)
}

fn build(root: &Section<'_, '_, '_>) -> Option<Peers> {
    root.require("apiVersion", KIND, "add `apiVersion: sidegate.dev/v1`");
    root.require("kind", KIND, "add `kind: Peers`");
    root.parsed("apiVersion", "write `sidegate.dev/v1`", |text| (text == "sidegate.dev/v1").then_some(()));
    root.parsed("kind", "write `Peers`", |text| (text == KIND).then_some(()));
    let sections = root.sections("peers", PEER, &["id", "addresses", "port", "hosts"]).unwrap_or_default();
    let mut claims = Claims::default();
    // What is wrong was reported, and then nothing of the file counts.
    Some(Peers::new(sections.iter().filter_map(|section| peer(section, &mut claims)).collect()))
}

/// What earlier entries have: each ID, address and name belongs to one.
#[derive(Default)]
struct Claims {
    ids: HashMap<SpiffeId, String>,
    addresses: HashMap<IpAddr, String>,
    hosts: HashMap<HostName, String>,
}

fn peer(section: &Section<'_, '_, '_>, claims: &mut Claims) -> Option<Peer> {
    section.require("id", PEER, "add the workload's SPIFFE ID, `id: spiffe://example.org/ns/orders/sa/api`");
    section.require("addresses", PEER, "add its addresses, `addresses: [ 10.0.3.7 ]`");
    let written = section.text("id");
    let id = section.parsed("id", ID, |text| SpiffeId::parse(text).ok());
    let addresses = section.placed_list("addresses", ADDRESS, |text| text.parse::<IpAddr>().ok());
    let hosts = section.placed_list("hosts", HOST, |text| HostName::parse(text).ok()).unwrap_or_default();
    let port = section.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok());
    let id = id?;
    let owner = id.as_str().to_owned();
    if let Some((_, span)) = written {
        let taken = claims.ids.insert(id.clone(), owner.clone()).is_some();
        if taken {
            let message = format!("{owner} has an entry already");
            section.wrong(&span, "duplicate-peer", message, "put its addresses into one entry");
        }
    }
    let addresses = addresses?;
    for (address, span) in &addresses {
        reachable(section, *address, span);
    }
    unclaimed(section, &mut claims.addresses, &addresses, ("duplicate-address", &owner));
    unclaimed(section, &mut claims.hosts, &hosts, ("duplicate-host", &owner));
    Some(Peer {
        id,
        addresses: addresses.into_iter().map(|(address, _)| address).collect(),
        port: port.unwrap_or(MESH_PORT),
        hosts: hosts.into_iter().map(|(host, _)| host).collect(),
    })
}

/// No workload is where the fixed deny table lets nobody go.
fn reachable(section: &Section<'_, '_, '_>, address: IpAddr, span: &Range<usize>) {
    if SyntheticAddresses::is_synthetic(address) {
        let message =
            format!("{address} is of the range that stands for names, 198.18.0.0/15 or fd00:5de6::/64");
        section.wrong(span, "address", message, "write the workload's own address");
    } else if let Some(reason) = denied_answer(address, true) {
        let message = format!("{address} can't be a workload's: {}", reason.meaning());
        section.wrong(span, "address", message, "write the address by which other hosts reach the workload");
    }
}

/// An address or a name that two workloads have would let either pass for the other.
fn unclaimed<T: Clone + Eq + Hash + ToString>(
    section: &Section<'_, '_, '_>,
    claimed: &mut HashMap<T, String>,
    wanted: &[(T, Range<usize>)],
    (code, owner): (&'static str, &str),
) {
    for (one, span) in wanted {
        if let Some(other) = claimed.insert(one.clone(), owner.to_owned()) {
            let message = format!("{} is {other}'s already", one.to_string());
            section.wrong(span, code, message, "leave it with the workload that has it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(peers: &str) -> Result<Peers, Vec<String>> {
        let text = format!("apiVersion: sidegate.dev/v1\nkind: Peers\n{peers}");
        let shown = |one: &Diagnostic| format!("{}:{} {}", one.line, one.column, one.code);
        parse(&Source::new("peers.yaml", text)).map_err(|wrong| wrong.iter().map(shown).collect())
    }

    #[test]
    fn every_field_arrives() {
        let peers = read(
            "peers:\n- { id: spiffe://example.org/a, addresses: [ 10.0.0.1, \"fd00::1\" ], port: 15009, hosts: [ A.internal ] }\n\
             - { id: spiffe://example.org/b, addresses: [ 10.0.0.2 ] }\n",
        )
        .unwrap();
        let [a, b]: [&Peer; 2] = peers.iter().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((a.id.as_str(), a.port, a.addresses.len()), ("spiffe://example.org/a", 15009, 2));
        assert_eq!((a.hosts[0].as_str(), b.port, b.hosts.len()), ("a.internal", 15008, 0));
        assert_eq!(peers.at("fd00::1".parse().unwrap()), Some(a));
        assert_eq!(read("").unwrap().iter().len(), 0, "nobody");
    }

    #[test]
    fn every_fault_comes_at_once_with_its_place() {
        let wrong = read(
            "peers:\n- { id: spiffe://example.org/*, addresses: [ 10.0.0.256 ] }\n- { colour: red, port: 0 }\n",
        );
        assert_eq!(
            wrong.unwrap_err(),
            [
                "4:9 value",
                "4:46 value",
                "5:3 missing-field",
                "5:3 missing-field",
                "5:5 unknown-field",
                "5:24 value"
            ]
        );
        assert!(parse(&Source::new("p", "kind: Policy")).is_err());
    }

    #[test]
    fn what_two_claim_is_refused() {
        let a = "{ id: spiffe://example.org/a, addresses: [ 10.0.0.1 ], hosts: [ a.internal ] }";
        for (other, code) in [
            ("{ id: spiffe://example.org/b, addresses: [ 10.0.0.1 ] }", "duplicate-address"),
            ("{ id: spiffe://example.org/b, addresses: [ 10.0.0.2, 10.0.0.2 ] }", "duplicate-address"),
            (
                "{ id: spiffe://example.org/b, addresses: [ 10.0.0.2 ], hosts: [ A.Internal ] }",
                "duplicate-host",
            ),
            ("{ id: spiffe://example.org/a, addresses: [ 10.0.0.2 ] }", "duplicate-peer"),
        ] {
            let wrong = read(&format!("peers:\n- {a}\n- {other}\n")).unwrap_err();
            assert!(matches!(wrong.as_slice(), [one] if one.ends_with(code)), "{other}: {wrong:?}");
        }
    }

    #[test]
    fn no_workload_is_where_nobody_may_go() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "\"::1\"",
            "\"::\"",
            "\"fe80::1\"",
            "\"ff02::1\"",
            "\"fd00:ec2::254\"",
            "\"::ffff:10.0.0.1\"",
            "\"64:ff9b::a00:1\"",
            "\"fd00:5de6::1\"",
        ] {
            let wrong = read(&format!("peers: [ {{ id: spiffe://t/a, addresses: [ {address} ] }} ]\n"));
            assert!(matches!(wrong.unwrap_err().as_slice(), [one] if one.ends_with("address")), "{address}");
        }
        for address in ["10.0.0.1", "100.64.0.1", "8.8.8.8", "\"fd00::1\"", "\"2600::1\""] {
            assert!(
                read(&format!("peers: [ {{ id: spiffe://t/a, addresses: [ {address} ] }} ]\n")).is_ok(),
                "{address}"
            );
        }
    }
}
