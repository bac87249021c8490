//! A large policy and the requests that the benches and the allocation test ask of it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sidegate_policy::{
    Date, Demands, Direction, Document, HostEvidence, HostName, HostPattern, Observed, Request, Source,
    decision::TlsMode,
    document::{Action, Destination, Protocol, Rule, Spanned},
};

/// 10,000 rules: half name hosts (exact and wildcards, four labels deep), half hold 20 prefixes each; every tenth
/// denies. 100,000 prefixes in all, of both families and many lengths, nested several deep.
///
/// # Panics
/// Never: the names and prefixes made here are valid.
pub fn large_policy() -> Vec<Document> {
    let mut nets = (0_u64..).map(net);
    let rules = (0..10_000_u32).map(|number| {
        let end = match number % 4 {
            0 | 2 => Destination::Cidrs { cidrs: nets.by_ref().take(20).collect(), except: Vec::new() },
            1 => Destination::Hosts { hosts: vec![HostPattern::Exact(host(number))], private: false },
            _ => Destination::Hosts { hosts: vec![HostPattern::OneLabel(host(number))], private: false },
        };
        rule(number, end)
    });
    let egress: Vec<Rule<Destination>> = rules.collect();
    vec![Document {
        source: Source::new("large.yaml", ""),
        name: spanned("large".to_owned()),
        owner: None,
        description: None,
        applies_to: None,
        audit_until: None,
        probes: Vec::new(),
        egress,
        ingress: Vec::new(),
    }]
}

fn rule(number: u32, end: Destination) -> Rule<Destination> {
    let action = if number % 20 == 7 || number % 20 == 14 { Action::Deny } else { Action::Allow };
    Rule {
        name: spanned(format!("rule-{number}")),
        reason: None,
        action,
        ends: vec![spanned(end)],
        ports: vec![443..=443, 8000..=8100],
        protocol: Protocol::Tls,
        tls: TlsMode::Passthrough { min_tls12: false },
        demands: Demands::default(),
        http: Vec::new(),
        audit_until: None,
        span: 0..0,
    }
}

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned { value, span: 0..0 }
}

/// `service-7.team-7.region-3.example.com`.
///
/// # Panics
/// Never: the name is valid.
pub fn host(number: u32) -> HostName {
    let name = format!("service-{number}.team-{}.region-{}.example.com", number % 500, number % 7);
    HostName::parse(&name).expect("letters, digits and hyphens")
}

/// A prefix by number: well spread, of length 8 to 32 (IPv4) or 24 to 64 (IPv6).
fn net(number: u64) -> IpNet {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let spread = (mixed >> 32) as u32;
    if number.is_multiple_of(4) {
        let length = 24 + (number / 4 % 41) as u8;
        let bits = (0x2600_u128 << 112) | (u128::from(mixed) << 48);
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length).trunc())
    } else {
        let length = [12, 16, 20, 22, 24, 24, 26, 28, 32][(number % 9) as usize];
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(spread), length).trunc())
    }
}

/// An address inside the `number`th prefix.
pub fn address(number: u64) -> IpAddr {
    net(number).network()
}

/// Requests of one kind, asked in turn so that no answer stays in the nearest cache.
pub struct Scenario {
    /// Such as `exact host`.
    pub name: &'static str,
    asked: Vec<(Option<HostName>, Option<IpAddr>)>,
}

impl Scenario {
    /// What [`large_policy`] is asked, 4,096 requests of each kind.
    ///
    /// # Panics
    /// Never: the names are valid.
    pub fn all() -> Vec<Scenario> {
        const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));
        /// No prefix holds it, so that nothing but the name can be near.
        const APART: IpAddr = IpAddr::V4(Ipv4Addr::new(34, 144, 8, 8));
        let below = |number| HostName::parse(&format!("www.{}", host(number))).expect("a label more");
        let exact = |number: u32| host(number % 2500 * 4 + 1);
        let numbers = 0..4096_u32;
        let of = |name, asked: &dyn Fn(u32) -> (Option<HostName>, Option<IpAddr>)| Scenario {
            name,
            asked: numbers.clone().map(asked).collect(),
        };
        let at = |number| Some(address(u64::from(number) * 17));
        vec![
            of("exact host", &|number| (Some(exact(number)), Some(PUBLIC))),
            of("wildcard host", &|number| (Some(below(number % 2500 * 4 + 3)), Some(PUBLIC))),
            of("unknown host", &|number| (Some(host(20_000 + number)), Some(APART))),
            of("address", &|number| (None, at(number))),
            of("host and address", &|number| (Some(exact(number)), at(number))),
        ]
    }

    /// The requests.
    pub fn requests(&self) -> Vec<Request<'_>> {
        self.asked.iter().map(|(host, address)| request(host.as_ref(), *address)).collect()
    }
}

/// TLS 1.3 to port 443.
pub fn request(host: Option<&HostName>, address: Option<IpAddr>) -> Request<'_> {
    Request {
        direction: Direction::Egress,
        host: host.map(|host| (HostEvidence::Sni, host)),
        address,
        port: 443,
        observed: Observed::Tls { offers_tls13: true, ech: false },
        peer: None,
        arrival: sidegate_policy::Arrival::Plain,
        http: None,
        today: Date::from_days(20_000),
    }
}
