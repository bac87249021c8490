//! Entries of `to` and `from`: exactly one kind an entry.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
};

use ipnet::IpNet;

use crate::{HostPattern, SpiffePattern, deny_table::Grant, host::HostPatternError};

use super::{
    Action, Destination, Origin, demands,
    fields::{Fields, texts},
    findings::Findings,
    rule::RuleEnd,
    scalar::{self, shown},
    tls::Kinds,
    tree::{Node, Value},
    write,
};

pub(super) const GRANTS: [(&str, Grant); 5] = [
    ("ec2-imds", Grant::Ec2Imds),
    ("ec2-imds-credentials", Grant::Ec2ImdsCredentials),
    ("ecs-task", Grant::EcsTask),
    ("eks-pod-identity", Grant::EksPodIdentity),
    ("time", Grant::Time),
];

impl RuleEnd for Destination {
    const FIELD: &'static str = "to";
    const FIELDS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = "add `to`, such as `to: [ { hosts: [ api.example.com ] } ]`";

    fn read(node: &Node<'_>, action: Action, findings: &mut Findings<'_>) -> Option<Self> {
        let kinds = ["hosts", "cidrs", "securityGroups", "prefixLists", "workloads", "grants"];
        let guess = Self::guess;
        let (fields, found) = kinds_of(node, ("to", guess), &kinds, &["private", "except"], findings)?;
        if !found.contains(&"hosts") {
            let fix = "remove it, or write `hosts`; address rules may name private ranges anyway";
            findings.refuse(
                fields.entry("private"),
                "misplaced-field",
                "`private` belongs beside `hosts`",
                fix,
            );
        }
        refuse_except(&fields, &found, findings);
        only(found, |kind| destination(kind, &fields, action, findings))
    }

    fn guess(text: &str) -> Option<String> {
        if let Some((word, _)) = GRANTS.iter().find(|(word, _)| *word == text) {
            return Some(format!("{{ grants: [ {word} ] }}"));
        }
        let name = text.split_once("://").map_or(text, |(_, rest)| rest);
        let name = name.split(['/', ':']).next().unwrap_or_default();
        let host = || {
            HostPattern::parse_for_deny(name).ok().map(|_| format!("{{ hosts: [ {} ] }}", write::text(name)))
        };
        guess(text).or_else(host)
    }

    fn count(&self, kinds: &mut Kinds) {
        match self {
            Destination::Hosts { .. } => kinds.hosts = true,
            Destination::Cidrs { .. } => kinds.addresses = true,
            Destination::SecurityGroups(_) | Destination::PrefixLists(_) => kinds.addresses = true,
            Destination::Workloads(_) => kinds.workloads = true,
            Destination::Grants(_) => kinds.grants = true,
        }
    }
}

impl RuleEnd for Origin {
    const FIELD: &'static str = "from";
    const FIELDS: &'static [&'static str] = &demands::INGRESS;
    const EXAMPLE: &'static str =
        "add `from`, such as `from: [ { workloads: [ \"spiffe://example.org/ns/web/sa/*\" ] } ]`";

    fn read(node: &Node<'_>, _action: Action, findings: &mut Findings<'_>) -> Option<Self> {
        let kinds = ["workloads", "cidrs", "securityGroups", "prefixLists"];
        let (fields, found) = kinds_of(node, ("from", Self::guess), &kinds, &["except"], findings)?;
        refuse_except(&fields, &found, findings);
        only(found, |kind| origin(kind, &fields, findings))
    }

    fn guess(text: &str) -> Option<String> {
        guess(text)
    }

    fn count(&self, kinds: &mut Kinds) {
        match self {
            Origin::Workloads(_) => kinds.workloads = true,
            Origin::Cidrs { .. } | Origin::SecurityGroups(_) | Origin::PrefixLists(_) => {
                kinds.addresses = true
            }
        }
    }
}

fn destination(
    kind: &'static str,
    fields: &Fields<'_, '_>,
    action: Action,
    findings: &mut Findings<'_>,
) -> Option<Destination> {
    let list = fields.value(kind)?;
    Some(match kind {
        "hosts" => Destination::Hosts {
            hosts: texts(list, kind, findings, |text, span, findings| host(text, span, action, findings)),
            private: fields
                .value("private")
                .and_then(|node| scalar::boolean(node, "private", findings))
                .unwrap_or(false),
        },
        "cidrs" => {
            let (cidrs, except) = cidrs(list, fields, findings);
            Destination::Cidrs { cidrs, except }
        }
        "securityGroups" => Destination::SecurityGroups(texts(list, kind, findings, security_group)),
        "prefixLists" => Destination::PrefixLists(texts(list, kind, findings, prefix_list)),
        "workloads" => Destination::Workloads(texts(list, kind, findings, spiffe)),
        _ => Destination::Grants(texts(list, kind, findings, grant)),
    })
}

fn origin(kind: &'static str, fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<Origin> {
    let list = fields.value(kind)?;
    Some(match kind {
        "workloads" => Origin::Workloads(texts(list, kind, findings, spiffe)),
        "cidrs" => {
            let (cidrs, except) = cidrs(list, fields, findings);
            Origin::Cidrs { cidrs, except }
        }
        "securityGroups" => Origin::SecurityGroups(texts(list, kind, findings, security_group)),
        _ => Origin::PrefixLists(texts(list, kind, findings, prefix_list)),
    })
}

/// Reads every kind, so that each fault is told; an entry of several is none.
fn only<T>(kinds: Vec<&'static str>, read: impl FnMut(&'static str) -> Option<T>) -> Option<T> {
    let alone = kinds.len() == 1;
    let values: Vec<Option<T>> = kinds.into_iter().map(read).collect();
    values.into_iter().next().flatten().filter(|_| alone)
}

/// Opens an entry of `to` or `from` and tells its kinds, of which there must be one.
fn kinds_of<'n, 's>(
    node: &'n Node<'s>,
    (list, guess): (&str, fn(&str) -> Option<String>),
    kinds: &[&'static str],
    others: &[&'static str],
    findings: &mut Findings<'_>,
) -> Option<(Fields<'n, 's>, Vec<&'static str>)> {
    let what = format!("an entry of `{list}`");
    if let Value::Scalar(text, _) = &node.value
        && let Some(meant) = guess(text)
    {
        let message = format!("{what} must be a mapping, found text");
        findings.add("wrong-type", &node.span, message, format!("write `{meant}`"));
        return None;
    }
    let known: Vec<&'static str> = kinds.iter().chain(others).copied().collect();
    let fields = Fields::open(node, &what, &known, findings)?;
    let present: Vec<_> = kinds.iter().copied().filter(|kind| fields.entry(kind).is_some()).collect();
    match present.as_slice() {
        [] if fields.has_unknown() => return None,
        [] => {
            let fix = format!("write one of: {}", kinds.join(", "));
            findings.add("missing-field", fields.place(), format!("{what} names no kind"), fix);
            return None;
        }
        [_] => {}
        [first, second, ..] => {
            let message = format!("an entry has one kind, this has `{first}` and `{second}`");
            let place = fields.entry(second).map_or(&node.span, |entry| &entry.key_span);
            let fix = "make each a list entry of its own (`- `): any of them may match";
            findings.add("one-kind", place, message, fix);
        }
    }
    Some((fields, present))
}

/// What a bare text that is no name is meant to be.
fn guess(text: &str) -> Option<String> {
    let kind = match text {
        _ if text.starts_with("spiffe://") => "workloads",
        _ if text.starts_with("sg-") => "securityGroups",
        _ if text.starts_with("pl-") => "prefixLists",
        _ if strict_net(text).is_some() => "cidrs",
        _ => {
            let address: IpAddr = text.parse().ok()?;
            let length = if address.is_ipv4() { 32 } else { 128 };
            return Some(format!("{{ cidrs: [ \"{address}/{length}\" ] }}"));
        }
    };
    Some(format!("{{ {kind}: [ \"{}\" ] }}", shown(text)))
}

fn refuse_except(fields: &Fields<'_, '_>, kinds: &[&str], findings: &mut Findings<'_>) {
    if !kinds.contains(&"cidrs") {
        let fix = "remove it; to take hosts out, add a rule with `action: deny`";
        findings.refuse(fields.entry("except"), "misplaced-field", "`except` belongs beside `cidrs`", fix);
    }
}

fn host(text: &str, span: &Range<usize>, action: Action, findings: &mut Findings<'_>) -> Option<HostPattern> {
    let parsed = match action {
        Action::Allow => HostPattern::parse(text),
        Action::Deny => HostPattern::parse_for_deny(text),
    };
    match parsed {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let code = match &error {
                HostPatternError::Bare(_) => "bare-wildcard",
                HostPatternError::PublicSuffix { .. } => "public-suffix",
                HostPatternError::SharedHosting { .. } => "shared-hosting",
                HostPatternError::UnknownSuffix(_) => "unknown-suffix",
                HostPatternError::MidLabel | HostPatternError::MidName | HostPatternError::TooManyStars => {
                    "wildcard"
                }
                HostPatternError::NotAHost(_) | HostPatternError::Name { .. } => "host",
            };
            let message = match &error {
                HostPatternError::Name { text, error } => {
                    format!("`{}` is no host name: {error}", shown(text))
                }
                HostPatternError::NotAHost(_) | HostPatternError::MidLabel | HostPatternError::MidName => {
                    format!("host `{}`: {error}", shown(text))
                }
                _ => error.to_string(),
            };
            findings.add(code, span, message, error.fix());
            None
        }
    }
}

pub(super) fn spiffe(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<SpiffePattern> {
    match SpiffePattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            findings.add("spiffe-id", span, format!("bad SPIFFE ID `{}`: {error}", shown(text)), error.fix());
            None
        }
    }
}

fn grant(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<Grant> {
    let known = GRANTS.iter().find(|(word, _)| *word == text).map(|(_, grant)| *grant);
    if known.is_none() {
        let words = GRANTS.map(|(word, _)| word);
        let fix = match scalar::nearest(text, &words) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of: {}", words.join(", ")),
        };
        findings.add("grant", span, format!("`{}` is no grant", shown(text)), fix);
    }
    known
}

fn security_group(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<String> {
    group(text, "sg-", ("security-group", "security group"), span, findings)
}

fn prefix_list(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<String> {
    group(text, "pl-", ("prefix-list", "prefix list"), span, findings)
}

/// The id of an AWS resource: its prefix and 1 to 17 hexadecimal digits.
fn group(
    text: &str,
    prefix: &str,
    (code, what): (&'static str, &str),
    span: &Range<usize>,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    if (1..=17).contains(&digits.len())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Some(text.to_owned());
    }
    let fix = format!("write the id, such as `{prefix}0123456789abcdef0`; names are not resolved");
    findings.add(code, span, format!("`{}` is no {what} id", shown(text)), fix);
    None
}

/// `cidrs` and `except`, of which each must lie within one of `cidrs`.
fn cidrs(list: &Node<'_>, fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> (Vec<IpNet>, Vec<IpNet>) {
    let cidrs = texts(list, "cidrs", findings, cidr);
    // An unreadable prefix would make its exceptions look misplaced.
    let whole = matches!(&list.value, Value::Sequence(items) if items.len() == cidrs.len());
    let except = match fields.value("except") {
        Some(node) => texts(node, "except", findings, |text, span, findings| {
            let net = cidr(text, span, findings)?;
            if whole && !within(&net, &cidrs) {
                let fix = "remove it, or correct `cidrs`; an exception only takes away from its own entry";
                findings.add("except-outside", span, format!("`{net}` lies outside `cidrs`"), fix);
            }
            Some(net)
        }),
        None => Vec::new(),
    };
    (cidrs, except)
}

fn within(net: &IpNet, cidrs: &[IpNet]) -> bool {
    cidrs.iter().any(|cidr| cidr.contains(net))
}

fn cidr(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<IpNet> {
    let mut refuse = |code, message: String, fix: String| {
        findings.add(code, span, message, fix);
        None
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        let length = if address.is_ipv4() { 32 } else { 128 };
        return refuse(
            "cidr",
            format!("`{address}` has no prefix length"),
            format!("write `{address}/{length}`"),
        );
    }
    let Some(net) = strict_net(text) else {
        let fix = "write an address and a prefix length, such as 10.0.0.0/8 or fd00::/8";
        return refuse("cidr", format!("`{}` is no CIDR", shown(text)), fix.to_owned());
    };
    if net.trunc() != net {
        let message = format!("`{net}` has bits set beyond its prefix");
        return refuse("cidr-host-bits", message, format!("write `{}`", net.trunc()));
    }
    match net {
        IpNet::V6(v6) if is_mapped(v6.network()) && v6.prefix_len() >= 96 => {
            let v4 = v6.network().to_ipv4_mapped().map(|v4| format!("{v4}/{}", v6.prefix_len() - 96));
            let message = format!("`{net}` is IPv4 in an IPv6 form and would never match");
            refuse("cidr", message, format!("write `{}`", v4.unwrap_or_default()))
        }
        _ => Some(net),
    }
}

/// The lenient parser of `ipnet` reads `010.0.0.0/8` as 10.0.0.0/8, and other software as 8.0.0.0/8.
fn strict_net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let plain =
        length == "0" || (!length.starts_with('0') && length.bytes().all(|byte| byte.is_ascii_digit()));
    let length = length.parse().ok().filter(|_| plain)?;
    IpNet::new(address.parse().ok()?, length).ok()
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}
