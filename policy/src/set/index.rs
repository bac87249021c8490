//! Where a request finds the rules that could concern it: by host, by address, by peer. Lookups allocate nothing.
//!
//! Each lookup leads to spots, most specific first where that is cheap: what both allow and deny rules say at one key.
//! The caller answers with the rank below which it has no more use for allow rules, so that a request which a host
//! rule allows looks at addresses only as far as a deny rule may stand there.

use std::net::IpAddr;

use crate::{
    Request, SpiffeId,
    address::{AddressRange, host_net},
};

use super::{RuleId, addresses::AddressIndex, hosts::HostIndex, peers::PeerIndex, rank::Rank, rule::End};

/// First and last port of each range, ascending and disjoint.
pub(crate) type Ranges = Box<[(u16, u16)]>;

/// One end of one rule, at all its ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) rule: RuleId,
    /// Lowest and highest port.
    pub(super) ports: (u16, u16),
    /// One-based index of the list of ranges, where the rule has several; 0: `ports` is all.
    pub(super) ranges: u32,
    /// One-based index of the `except` list that narrows this end; 0: none.
    pub(super) except: u32,
    pub(crate) private: bool,
}

/// The entries of one key, a range in [`Index::entries`]: those of allow rules, then those of deny rules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    pub(super) allows: u32,
    pub(super) denies: u32,
    pub(super) end: u32,
}

impl Bucket {
    pub(super) fn has_allows(self) -> bool {
        self.allows < self.denies
    }

    pub(super) fn has_denies(self) -> bool {
        self.denies < self.end
    }
}

/// A key that a request reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'a> {
    index: &'a Index,
    pub(crate) rank: Rank,
    pub(crate) end: End,
    /// The address that led here.
    address: Option<IpAddr>,
    bucket: Bucket,
}

impl<'a> Spot<'a> {
    /// In the order of rules.
    pub(crate) fn allows(self) -> impl Iterator<Item = Candidate<'a>> {
        self.candidates(self.bucket.allows, self.bucket.denies)
    }

    /// In the order of rules.
    pub(crate) fn denies(self) -> impl Iterator<Item = Candidate<'a>> {
        self.candidates(self.bucket.denies, self.bucket.end)
    }

    fn candidates(self, first: u32, end: u32) -> impl Iterator<Item = Candidate<'a>> {
        let entries = self.index.entries.get(first as usize..end as usize).unwrap_or_default();
        entries.iter().map(move |entry| Candidate { spot: self, entry })
    }
}

/// An entry that a request reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) spot: Spot<'a>,
    pub(crate) entry: &'a Entry,
}

impl<'a> Candidate<'a> {
    /// Ascending, disjoint.
    pub(crate) fn ports(&self) -> &'a [(u16, u16)] {
        let several = (self.entry.ranges as usize).checked_sub(1);
        match several.and_then(|several| self.spot.index.ranges.get(several)) {
            Some(ranges) => ranges,
            None => std::slice::from_ref(&self.entry.ports),
        }
    }

    pub(crate) fn covers_port(&self, port: u16) -> bool {
        let (first, last) = self.entry.ports;
        let within = first <= port && port <= last;
        within
            && (self.entry.ranges == 0
                || self.ports().iter().any(|(first, last)| *first <= port && port <= *last))
    }

    /// Whether the address is in the `except` of this end.
    pub(crate) fn is_excepted(&self) -> bool {
        let except = (self.entry.except as usize).checked_sub(1);
        let Some(ranges) = except.and_then(|except| self.spot.index.excepts.get(except)) else {
            return false;
        };
        let Some(address) = self.spot.address else { return false };
        let point = AddressRange::of(host_net(address));
        let after = ranges.partition_point(|range| (range.v4, range.first) <= (point.v4, point.first));
        let before = after.checked_sub(1).and_then(|index| ranges.get(index));
        before.is_some_and(|range| range.v4 == point.v4 && point.first <= range.last)
    }
}

/// The rules of one direction.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(super) entries: Box<[Entry]>,
    pub(super) hosts: HostIndex,
    pub(super) addresses: AddressIndex,
    pub(super) peers: PeerIndex,
    pub(super) ranges: Box<[Ranges]>,
    pub(super) excepts: Box<[Box<[AddressRange]>]>,
}

impl Index {
    pub(crate) fn hosts(&self) -> &HostIndex {
        &self.hosts
    }

    /// Every spot that the request's host, peer or address reaches. `visit` returns the rank below which allow rules
    /// no longer matter; `floor` is that rank from the start.
    pub(crate) fn visit<'a>(
        &'a self,
        request: &Request<'_>,
        mut floor: Rank,
        mut visit: impl FnMut(Spot<'a>) -> Rank,
    ) {
        if let Some((_, host)) = request.host {
            self.visit_host(host.as_str(), |spot| floor = visit(spot));
        }
        if let Some(peer) = request.peer {
            self.visit_peer(peer, |spot| floor = visit(spot));
        }
        if let Some(address) = request.address {
            self.visit_address(address, floor, visit);
        }
    }

    pub(crate) fn visit_host<'a>(&'a self, host: &str, mut visit: impl FnMut(Spot<'a>)) {
        self.hosts.visit(host, |rank, bucket| {
            visit(Spot { index: self, rank, end: End::Host, address: None, bucket });
        });
    }

    pub(crate) fn visit_peer<'a>(&'a self, peer: &SpiffeId, mut visit: impl FnMut(Spot<'a>)) {
        self.peers.visit(peer, |rank, bucket| {
            visit(Spot { index: self, rank, end: End::Workload, address: None, bucket });
        });
    }

    /// As [`Index::visit`], for one address.
    pub(crate) fn visit_address<'a>(
        &'a self,
        address: IpAddr,
        floor: Rank,
        mut visit: impl FnMut(Spot<'a>) -> Rank,
    ) {
        self.addresses.visit(address, floor, |rank, bucket| {
            visit(Spot { index: self, rank, end: End::Address, address: Some(address), bucket })
        });
    }
}
