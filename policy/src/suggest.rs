//! The smallest rule that would allow a request, as a snippet to paste.

use std::{fmt::Write as _, net::IpAddr};

use crate::{
    Direction, Observed, Reason, Request,
    deny_table::{Grant, denied_answer, denied_destination},
};

/// One list item of `spec.egress` or `spec.ingress` that allows the request and as little else as can be, as YAML
/// with a final newline. Where no rule can open the destination, a comment that says so.
///
/// A deny rule that matches the request goes on to win.
pub fn suggest_rule(request: &Request<'_>) -> String {
    let Some(end) = End::of(request) else {
        return "# no rule can allow this: it names neither a host nor an address\n".to_owned();
    };
    match end {
        End::Closed(reason) => format!("# no rule opens this destination ({reason}): {}\n", reason.meaning()),
        End::Granted(grant) => {
            let word = grant.word();
            format!("- name: {word}\n  to: [ {{ grants: [ {word} ] }} ]\n")
        }
        End::Open { name, entry } => open_rule(request, &name, &entry),
    }
}

/// What the rule's `to` or `from` would name.
enum End {
    Closed(Reason),
    Granted(Grant),
    Open { name: String, entry: String },
}

impl End {
    fn of(request: &Request<'_>) -> Option<End> {
        if let (Direction::Egress, Some(address)) = (request.direction, request.address)
            && let Some(reason) = denied_destination(address)
        {
            return Some(granting(address, request).map_or(End::Closed(reason), End::Granted));
        }
        if let Some(peer) = request.peer {
            let name = peer.as_str().rsplit('/').next().unwrap_or_default().to_owned();
            return Some(End::Open { name, entry: format!("workloads: [ \"{}\" ]", peer.as_str()) });
        }
        if let Some((_, host)) = request.host.filter(|_| request.observed != Observed::Udp) {
            let refused = request.address.and_then(|address| denied_answer(address, false));
            let private = if refused == Some(Reason::AddressPrivate) { ", private: true" } else { "" };
            return Some(End::Open { name: host.to_string(), entry: format!("hosts: [ {host} ]{private}") });
        }
        let address = request.address?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        Some(End::Open { name: address.to_string(), entry: format!("cidrs: [ \"{address}/{length}\" ]") })
    }
}

fn granting(address: IpAddr, request: &Request<'_>) -> Option<Grant> {
    let udp = request.observed == Observed::Udp;
    let opens = |grant: &Grant| {
        grant
            .openings()
            .iter()
            .any(|opening| opening.address == address && opening.port == request.port && opening.udp == udp)
    };
    Grant::ALL.iter().copied().find(opens)
}

fn open_rule(request: &Request<'_>, name: &str, entry: &str) -> String {
    let list = if request.direction == Direction::Egress { "to" } else { "from" };
    let mut rule = format!("- name: {}\n", rule_name(name, request.port));
    // Writing to a String cannot fail.
    let mesh = request.peer.is_some();
    let exemption = "  tls: { mode: none }\n  reason: \"say why this needs no TLS 1.3\"\n";
    let (protocol, tls) = match request.observed {
        Observed::Tls { .. } if mesh => ("tls", "  tls: { mode: mesh }\n"),
        Observed::Tls { offers_tls13: false, .. } => ("tls", "  tls: { mode: passthrough, min: \"1.2\" }\n"),
        Observed::Tls { .. } => ("tls", ""),
        Observed::Http if mesh => ("http", "  tls: { mode: mesh }\n"),
        Observed::Opaque if mesh => ("tcp", "  tls: { mode: mesh }\n"),
        Observed::Http => ("http", exemption),
        Observed::Opaque => ("tcp", exemption),
        Observed::Udp => ("udp", exemption),
    };
    let _ = writeln!(rule, "  {list}: [ {{ {entry} }} ]\n  ports: [ {} ]", request.port);
    if protocol != "tls" {
        let _ = writeln!(rule, "  protocol: {protocol}");
    }
    rule.push_str(tls);
    if let Some(http) = request.http.filter(|_| protocol == "http") {
        let _ = writeln!(
            rule,
            "  http: [ {{ methods: [ {} ], paths: [ {:?} ] }} ]",
            http.method,
            http.path.as_str()
        );
    }
    if matches!(request.observed, Observed::Tls { ech: true, .. }) {
        rule.push_str("# and turn Encrypted Client Hello off in the client: a name rule denies it\n");
    }
    rule
}

/// A rule name of letters, digits and hyphens, at most 63 of them.
fn rule_name(text: &str, port: u16) -> String {
    let port = format!("-{port}");
    let simple =
        |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() as char } else { '-' };
    let name: String = text.bytes().map(simple).take(63 - port.len()).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { format!("allow{port}") } else { format!("{name}{port}") }
}
