//! Valid documents, drawn from the whole format.

use super::*;
use crate::{
    demands::{ClientAddress, OriginTls, RequestLimit},
    deny_table::Grant,
};

pub(super) fn document() -> impl Strategy<Value = Document> {
    let rules = || (named(egress()), named(ingress()), probes());
    (
        name(),
        prop::option::of(prose()),
        prop::option::of(prose()),
        prop::option::of(workloads()),
        audit(),
        rules(),
    )
        .prop_map(|(name, owner, description, applies_to, audit_until, (egress, ingress, probes))| {
            Document {
                source: Source::new("", ""),
                name: Spanned { value: name, span: 0..0 },
                owner,
                description,
                applies_to,
                audit_until,
                probes,
                egress,
                ingress,
            }
        })
}

fn probes() -> impl Strategy<Value = Vec<Probe>> {
    let path = "/([a-z0-9._~-]{0,3}[a-z])?(/%C3%A9)?";
    let path = path.prop_map(|text| CanonicalPath::parse(&text).unwrap());
    prop::collection::vec((1..=u16::MAX, path).prop_map(|(port, path)| Probe { port, path }), 0..3)
}

fn limit() -> impl Strategy<Value = Option<RequestLimit>> {
    let most = || 1..=1_000_000_u32;
    prop::option::of((most(), most()).prop_map(|(per_second, burst)| RequestLimit { per_second, burst }))
}

fn origin() -> impl Strategy<Value = OriginTls> {
    let pin = "sha256/[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=";
    (prop::option::of(name()), prop::collection::vec(pin, 0..3), any::<bool>()).prop_map(
        |(roots, pins, client_identity)| OriginTls { roots: roots.map(Into::into), pins, client_identity },
    )
}

/// What a rule of any direction may demand; of the rest each rule keeps what fits it.
fn demands() -> impl Strategy<Value = Demands> {
    let kinds = vec![ClientAddress::ProxyProtocol, ClientAddress::Forwarded];
    (limit(), origin(), prop::option::of(name()), prop::option::of(prop::sample::select(kinds))).prop_map(
        |(limit, origin, certificate, client_address)| {
            let certificate = certificate.map(Into::into);
            Demands { limit, origin, certificate, client_address }
        },
    )
}

fn fitting(demands: Demands, rule: (Action, Protocol, TlsMode), egress: bool) -> Demands {
    let (action, protocol, tls) = rule;
    let requests = judges_requests(protocol, tls);
    let verified = matches!(tls, TlsMode::Originate | TlsMode::Inspect);
    let tells = |kind: &ClientAddress| match kind {
        ClientAddress::ProxyProtocol => !egress && protocol != Protocol::Udp,
        ClientAddress::Forwarded => !egress && requests,
    };
    if action == Action::Deny {
        return Demands::default();
    }
    Demands {
        limit: demands.limit.filter(|_| requests),
        origin: if verified { demands.origin } else { OriginTls::default() },
        certificate: demands.certificate.filter(|_| tls == TlsMode::Terminate),
        client_address: demands.client_address.filter(tells),
    }
}

/// Rules with distinct names.
fn named<T: std::fmt::Debug>(rule: impl Strategy<Value = Rule<T>>) -> impl Strategy<Value = Vec<Rule<T>>> {
    prop::collection::vec(rule, 0..4).prop_map(|mut rules| {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.name.value = format!("rule-{number}");
        }
        rules
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{1,63}", Just("on".to_owned()), Just("0x1".to_owned()), Just("1e3".to_owned())]
}

fn prose() -> impl Strategy<Value = String> {
    "[ -~éß–]{0,20}[!-~é][ -~\\n\u{2028}]{0,5}"
        .prop_filter("YAML's end of text", |text| !text.trim().is_empty())
}

fn audit() -> impl Strategy<Value = Option<Date>> {
    prop::option::of((0..2_932_896).prop_map(Date::from_days))
}

fn workloads() -> impl Strategy<Value = Vec<SpiffePattern>> {
    let pattern = "spiffe://[a-z0-9._-]{1,8}(/([A-Za-z0-9_]{1,4}|\\*)){0,3}(/\\*\\*)?";
    prop::collection::vec(pattern.prop_map(|text| SpiffePattern::parse(&text).unwrap()), 1..3)
}

fn hosts(parse: fn(&str) -> HostPattern) -> impl Strategy<Value = Destination> {
    let pattern = "(\\*\\.|\\*\\*\\.)?([a-z][a-z0-9]{0,5}\\.){1,2}(test|example\\.com|co\\.uk)"
        .prop_map(move |text| parse(&text));
    (prop::collection::vec(pattern, 1..3), any::<bool>())
        .prop_map(|(hosts, private)| Destination::Hosts { hosts, private })
}

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, length)| IpNet::new(std::net::Ipv4Addr::from(bits).into(), length)),
        (any::<u128>(), 0..=128_u8).prop_map(|(bits, length)| {
            IpNet::new(std::net::Ipv6Addr::from(bits | 1 << 127).into(), length)
        }),
    ]
    .prop_map(|net| net.unwrap().trunc())
}

fn cidrs() -> impl Strategy<Value = (Vec<IpNet>, Vec<IpNet>)> {
    (prop::collection::vec(net(), 1..3), any::<bool>()).prop_map(|(cidrs, with)| {
        let narrower =
            |net: &IpNet| IpNet::new(net.addr(), (net.prefix_len() + 1).min(net.max_prefix_len())).unwrap();
        let except = if with { cidrs.iter().map(narrower).collect() } else { Vec::new() };
        (cidrs, except)
    })
}

fn groups(prefix: &'static str) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[0-9a-f]{1,17}".prop_map(move |digits| format!("{prefix}{digits}")), 1..3)
}

fn addresses() -> impl Strategy<Value = Destination> {
    prop_oneof![
        cidrs().prop_map(|(cidrs, except)| Destination::Cidrs { cidrs, except }),
        groups("sg-").prop_map(Destination::SecurityGroups),
        groups("pl-").prop_map(Destination::PrefixLists),
    ]
}

fn ports() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    let range = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop::collection::vec(prop_oneof![(1..=u16::MAX).prop_map(|port| port..=port), range], 1..4)
}

fn http() -> impl Strategy<Value = Vec<HttpMatch>> {
    let methods = prop::collection::vec("(GET|POST|PROPFIND|x-Custom)", 0..3);
    let paths = prop::collection::vec(
        "/([a-z0-9._~-]{0,3}[a-z]|\\*)(/%C3%A9)?(/\\*\\*)?"
            .prop_map(|text| PathPattern::parse(&text).unwrap()),
        0..3,
    );
    let upgrade = prop::option::weighted(0.2, Just(Upgrade::WebSocket));
    let entry = (methods, paths, upgrade)
        .prop_filter("an entry names something", |(methods, paths, upgrade)| {
            !methods.is_empty() || !paths.is_empty() || upgrade.is_some()
        })
        .prop_map(|(methods, paths, upgrade)| HttpMatch {
            methods: if upgrade.is_some() { Vec::new() } else { methods },
            paths,
            upgrade,
        });
    prop::collection::vec(entry, 0..3)
}

fn ends<T: std::fmt::Debug>(end: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<Spanned<T>>> {
    prop::collection::vec(end.prop_map(|value| Spanned { value, span: 0..0 }), 1..3)
}

fn rule<T: Clone + std::fmt::Debug>(
    ends: impl Strategy<Value = Vec<Spanned<T>>>,
    carriage: impl Strategy<Value = (Action, Protocol, TlsMode)>,
    egress: bool,
) -> impl Strategy<Value = Rule<T>> {
    (ends, carriage, prose(), ports(), (http(), demands()), audit()).prop_map(
        move |(ends, (action, protocol, tls), reason, ports, (http, demands), audit_until)| {
            let requests = protocol == Protocol::Http || tls == TlsMode::Inspect;
            Rule {
                name: Spanned { value: String::new(), span: 0..0 },
                reason: Some(reason),
                action,
                ends,
                ports,
                protocol,
                tls,
                demands: fitting(demands, (action, protocol, tls), egress),
                http: if requests { http } else { Vec::new() },
                audit_until,
                span: 0..0,
            }
        },
    )
}

fn carriage(choices: &'static [(Protocol, TlsMode)]) -> impl Strategy<Value = (Action, Protocol, TlsMode)> {
    prop::sample::select(choices).prop_map(|(protocol, tls)| (Action::Allow, protocol, tls))
}

const PASSTHROUGH: TlsMode = TlsMode::Passthrough { min_tls12: false };
const PASSTHROUGH_12: TlsMode = TlsMode::Passthrough { min_tls12: true };

fn denied() -> impl Strategy<Value = (Action, Protocol, TlsMode)> {
    prop::sample::select(vec![Protocol::Tls, Protocol::Http, Protocol::Tcp])
        .prop_map(|protocol| (Action::Deny, protocol, PASSTHROUGH))
}

fn egress() -> impl Strategy<Value = Rule<Destination>> {
    use Protocol::{Http, Tcp, Tls, Udp};
    let allowed = |text: &str| HostPattern::parse(text).unwrap();
    let denied_hosts = |text: &str| HostPattern::parse_for_deny(text).unwrap();
    let by_host = carriage(&[
        (Tls, PASSTHROUGH),
        (Tls, PASSTHROUGH_12),
        (Tls, TlsMode::Inspect),
        (Tls, TlsMode::None),
        (Http, TlsMode::Originate),
        (Http, TlsMode::None),
        (Tcp, TlsMode::Originate),
        (Tcp, TlsMode::None),
    ]);
    let by_address = carriage(&[
        (Tls, PASSTHROUGH),
        (Tls, PASSTHROUGH_12),
        (Http, TlsMode::None),
        (Tcp, TlsMode::None),
        (Udp, TlsMode::None),
    ]);
    let meshed = carriage(&[(Tls, TlsMode::Mesh), (Http, TlsMode::Mesh), (Tcp, TlsMode::Mesh)]);
    let grant = prop::collection::vec(prop::sample::select(Grant::ALL), 1..3);
    let grants = ends(grant.prop_map(Destination::Grants));
    prop_oneof![
        rule(ends(hosts(allowed)), by_host, true),
        rule(ends(addresses()), by_address, true),
        rule(ends(workloads().prop_map(Destination::Workloads)), meshed, true),
        rule(ends(prop_oneof![hosts(denied_hosts), addresses()]), denied(), true),
        rule(grants, carriage(&[(Tls, PASSTHROUGH)]), true)
            .prop_map(|rule| Rule { ports: Vec::new(), ..rule }),
    ]
}

fn ingress() -> impl Strategy<Value = Rule<Origin>> {
    use Protocol::{Http, Tcp, Tls, Udp};
    let addresses = || {
        prop_oneof![
            cidrs().prop_map(|(cidrs, except)| Origin::Cidrs { cidrs, except }),
            groups("sg-").prop_map(Origin::SecurityGroups),
            groups("pl-").prop_map(Origin::PrefixLists),
        ]
    };
    let by_address = carriage(&[
        (Tls, PASSTHROUGH),
        (Tls, TlsMode::Terminate),
        (Http, TlsMode::Terminate),
        (Http, TlsMode::None),
        (Tcp, TlsMode::None),
        (Udp, TlsMode::None),
    ]);
    let meshed = carriage(&[(Tls, TlsMode::Mesh), (Http, TlsMode::Mesh), (Tcp, TlsMode::Mesh)]);
    prop_oneof![
        rule(ends(addresses()), by_address, false),
        rule(ends(prop_oneof![addresses(), workloads().prop_map(Origin::Workloads)]), meshed, false),
        rule(ends(addresses()), denied(), false),
    ]
}
