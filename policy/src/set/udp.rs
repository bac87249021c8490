//! Datagrams that may leave, as prefixes and ports for the kernel's set.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::{
    Direction,
    address::{AddressRange, host_net},
    deny_table::datagram_denials,
    document::{Action, Destination, Protocol},
};

use super::{CompileOptions, UdpDestination, rule::CompiledRule};

/// A rectangle of addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Area {
    addresses: AddressRange,
    first_port: u16,
    last_port: u16,
}

pub(super) fn destinations(rules: &[CompiledRule], options: &CompileOptions) -> Vec<UdpDestination> {
    let egress = || rules.iter().filter(|rule| rule.direction == Direction::Egress);
    let of_action = |action| egress().filter(move |rule| rule.action == action);
    let table: Vec<Area> = datagram_denials().map(|net| area(net, &(0..=u16::MAX))).collect();
    let mut allowed: Vec<Area> = Vec::new();
    for rule in of_action(Action::Allow).filter(|rule| rule.protocol == Protocol::Udp) {
        allowed.extend(subtract(areas(rule, options), &table));
    }
    allowed.extend(of_action(Action::Allow).flat_map(granted));
    if allowed.is_empty() {
        return Vec::new();
    }
    let denied: Vec<Area> = of_action(Action::Deny)
        .filter(|rule| matches!(rule.protocol, Protocol::Udp | Protocol::Tls))
        .flat_map(|rule| areas(rule, options).into_iter().chain(granted(rule)).collect::<Vec<_>>())
        .collect();
    let mut left = subtract(subtract(allowed, &denied), &own_listeners(options));
    left.sort_unstable();
    left.dedup();
    left.iter().flat_map(as_destinations).collect()
}

/// The proxy's own listeners; an unspecified address stands for every local one.
fn own_listeners(options: &CompileOptions) -> Vec<Area> {
    let mut areas = Vec::new();
    for own in &options.own_listeners {
        let port = own.port()..=own.port();
        if own.ip().is_unspecified() {
            areas.extend(
                options.local_addresses.iter().map(|local| area(host_net(local.to_canonical()), &port)),
            );
        } else {
            areas.push(area(host_net(own.ip().to_canonical()), &port));
        }
    }
    areas
}

fn as_destinations(area: &Area) -> impl Iterator<Item = UdpDestination> {
    let ports = area.first_port..=area.last_port;
    area.addresses.nets().into_iter().map(move |net| UdpDestination { net, ports: ports.clone() })
}

fn area(net: IpNet, ports: &RangeInclusive<u16>) -> Area {
    Area { addresses: AddressRange::of(net), first_port: *ports.start(), last_port: *ports.end() }
}

/// A rule's addresses and ports; `except` taken out, hosts and workloads left out.
fn areas(rule: &CompiledRule, options: &CompileOptions) -> Vec<Area> {
    let mut areas = Vec::new();
    for end in &rule.ends {
        let (nets, except): (Vec<IpNet>, &[IpNet]) = match end {
            Destination::Cidrs { cidrs, except } => (cidrs.clone(), except),
            Destination::SecurityGroups(ids) | Destination::PrefixLists(ids) => {
                (ids.iter().filter_map(|id| options.groups.get(id)).flatten().copied().collect(), &[])
            }
            Destination::Hosts { .. } | Destination::Workloads(_) | Destination::Grants(_) => continue,
        };
        let whole = nets.iter().flat_map(|net| rule.ports.iter().map(|ports| area(*net, ports))).collect();
        let except: Vec<Area> = except.iter().map(|net| area(*net, &(0..=u16::MAX))).collect();
        areas.extend(subtract(whole, &except));
    }
    areas
}

/// The datagram triples that a rule's grants open (or, in a deny rule, close).
fn granted(rule: &CompiledRule) -> Vec<Area> {
    let grants = rule.ends.iter().flat_map(|end| match end {
        Destination::Grants(grants) => grants.as_slice(),
        _ => &[],
    });
    let openings = grants.flat_map(|grant| grant.openings()).filter(|opening| opening.udp);
    let within = openings.filter(|opening| {
        rule.ports.is_empty() || rule.ports.iter().any(|range| range.contains(&opening.port))
    });
    within.map(|opening| area(host_net(opening.address), &(opening.port..=opening.port))).collect()
}

fn subtract(mut areas: Vec<Area>, holes: &[Area]) -> Vec<Area> {
    for hole in holes {
        areas = areas.into_iter().flat_map(|area| without(area, hole)).collect();
    }
    areas
}

/// What is left of an area: beside the hole all ports, within its addresses the ports below and above.
fn without(area: Area, hole: &Area) -> Vec<Area> {
    let shared = area.addresses.intersection(hole.addresses);
    let Some(shared) =
        shared.filter(|_| area.first_port <= hole.last_port && hole.first_port <= area.last_port)
    else {
        return vec![area];
    };
    let beside = area.addresses.without(hole.addresses).into_iter().flatten();
    let mut left: Vec<Area> = beside.map(|addresses| Area { addresses, ..area.clone() }).collect();
    if area.first_port < hole.first_port {
        left.push(Area { addresses: shared, first_port: area.first_port, last_port: hole.first_port - 1 });
    }
    if hole.last_port < area.last_port {
        left.push(Area { addresses: shared, first_port: hole.last_port + 1, last_port: area.last_port });
    }
    left
}
