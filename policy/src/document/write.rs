//! Documents written back as canonical YAML: what [`super::parse`] reads from it is the same document.

use std::{fmt::Write, ops::RangeInclusive};

use crate::{
    decision::TlsMode,
    demands::{Demands, OriginTls, RequestLimit},
};

use super::{Action, Destination, Document, HttpMatch, Origin, Probe, Protocol, Rule, scalar::Guess};

impl Document {
    /// Canonical YAML: fields in the order of the reference, defaults left out except TLS modes.
    pub fn to_yaml(&self) -> String {
        let mut out = String::from("apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata:\n");
        field(&mut out, 2, "name", &text(&self.name.value));
        optional(&mut out, 2, "owner", self.owner.as_deref());
        optional(&mut out, 2, "description", self.description.as_deref());
        let specified = self.applies_to.is_some() || self.audit_until.is_some();
        if !specified && self.probes.is_empty() && self.egress.is_empty() && self.ingress.is_empty() {
            out.push_str("spec: {}\n");
            return out;
        }
        out.push_str("spec:\n");
        if let Some(patterns) = &self.applies_to {
            field(&mut out, 2, "appliesTo", &list(patterns));
        }
        if let Some(date) = self.audit_until {
            field(&mut out, 2, "mode", "audit");
            field(&mut out, 2, "auditUntil", &date.to_string());
        }
        if !self.probes.is_empty() {
            out.push_str("  probes:\n");
        }
        for Probe { port, path } in &self.probes {
            let _ = writeln!(out, "    - {{ port: {port}, path: {} }}", text(path.as_str()));
        }
        rules(&mut out, "egress", "to", &self.egress, destination);
        rules(&mut out, "ingress", "from", &self.ingress, origin);
        out
    }
}

fn rules<T>(
    out: &mut String,
    direction: &str,
    end_field: &str,
    rules: &[Rule<T>],
    end: impl Fn(&T) -> String,
) {
    if rules.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {direction}:");
    for rule in rules {
        let _ = writeln!(out, "    - name: {}", text(&rule.name.value));
        optional(out, 6, "reason", rule.reason.as_deref());
        if rule.action == Action::Deny {
            field(out, 6, "action", "deny");
        }
        let _ = writeln!(out, "      {end_field}:");
        for entry in &rule.ends {
            let _ = writeln!(out, "        - {}", end(&entry.value));
        }
        // A rule of grants has neither ports nor a carriage of its own.
        if !rule.ports.is_empty() {
            field(out, 6, "ports", &flow(rule.ports.iter().map(port)));
            carriage(out, rule);
        }
        if !rule.http.is_empty() {
            out.push_str("      http:\n");
            for entry in &rule.http {
                let _ = writeln!(out, "        - {}", http(entry));
            }
        }
        demands(out, &rule.demands);
        if let Some(date) = rule.audit_until {
            field(out, 6, "auditUntil", &date.to_string());
        }
    }
}

fn carriage<T>(out: &mut String, rule: &Rule<T>) {
    let protocol = match rule.protocol {
        Protocol::Tls => None,
        Protocol::Http => Some("http"),
        Protocol::Tcp => Some("tcp"),
        Protocol::Udp => Some("udp"),
    };
    if let Some(protocol) = protocol {
        field(out, 6, "protocol", protocol);
    }
    if rule.action == Action::Deny {
        return;
    }
    let mode = match rule.tls {
        TlsMode::Passthrough { min_tls12: false } => return,
        TlsMode::Passthrough { min_tls12: true } => "passthrough, min: \"1.2\"",
        TlsMode::Originate => "originate",
        TlsMode::Inspect => "inspect",
        TlsMode::Mesh => "mesh",
        TlsMode::Terminate => "terminate",
        TlsMode::None => "none",
    };
    let OriginTls { roots, pins, client_identity } = &rule.demands.origin;
    let roots = roots.as_deref().map(|roots| format!(", roots: {}", text(roots))).unwrap_or_default();
    let pins = if pins.is_empty() { String::new() } else { format!(", pins: {}", list(pins)) };
    let certificate = rule.demands.certificate.as_deref();
    let certificate = certificate.map(|label| format!(", certificate: {}", text(label))).unwrap_or_default();
    let shows = if *client_identity { ", clientIdentity: true" } else { "" };
    field(out, 6, "tls", &format!("{{ mode: {mode}{roots}{pins}{shows}{certificate} }}"));
}

fn demands(out: &mut String, demands: &Demands) {
    if let Some(RequestLimit { per_second, burst }) = demands.limit {
        let burst = if burst == per_second { String::new() } else { format!(", burst: {burst}") };
        field(out, 6, "limits", &format!("{{ requestsPerSecond: {per_second}{burst} }}"));
    }
    if let Some(kind) = demands.client_address {
        field(out, 6, kind.word(), "true");
    }
}

fn destination(end: &Destination) -> String {
    match end {
        Destination::Hosts { hosts, private } => {
            format!("hosts: {}{}", list(hosts), if *private { "\n          private: true" } else { "" })
        }
        Destination::Cidrs { cidrs, except } => addresses(cidrs, except),
        Destination::SecurityGroups(ids) => format!("securityGroups: {}", list(ids)),
        Destination::PrefixLists(ids) => format!("prefixLists: {}", list(ids)),
        Destination::Workloads(patterns) => format!("workloads: {}", list(patterns)),
        Destination::Grants(grants) => {
            format!("grants: {}", flow(grants.iter().map(|grant| grant_word(*grant))))
        }
    }
}

fn origin(end: &Origin) -> String {
    match end {
        Origin::Workloads(patterns) => format!("workloads: {}", list(patterns)),
        Origin::Cidrs { cidrs, except } => addresses(cidrs, except),
        Origin::SecurityGroups(ids) => format!("securityGroups: {}", list(ids)),
        Origin::PrefixLists(ids) => format!("prefixLists: {}", list(ids)),
    }
}

fn addresses(cidrs: &[ipnet::IpNet], except: &[ipnet::IpNet]) -> String {
    let mut out = format!("cidrs: {}", list(cidrs));
    if !except.is_empty() {
        let _ = write!(out, "\n          except: {}", list(except));
    }
    out
}

fn http(entry: &HttpMatch) -> String {
    let methods = (!entry.methods.is_empty()).then(|| format!("methods: {}", list(&entry.methods)));
    let paths = (!entry.paths.is_empty()).then(|| format!("paths: {}", list(&entry.paths)));
    let upgrade = entry.upgrade.map(|upgrade| format!("upgrade: {}", upgrade.word()));
    upgrade.into_iter().chain(methods).chain(paths).collect::<Vec<_>>().join("\n          ")
}

fn grant_word(grant: crate::deny_table::Grant) -> String {
    let word = super::ends::GRANTS.iter().find(|(_, known)| *known == grant).map(|(word, _)| *word);
    word.unwrap_or_default().to_owned()
}

fn port(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("\"{}-{}\"", range.start(), range.end())
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    flow(items.iter().map(|item| text(&item.to_string())))
}

fn flow(items: impl Iterator<Item = String>) -> String {
    format!("[ {} ]", items.collect::<Vec<_>>().join(", "))
}

fn field(out: &mut String, indent: usize, name: &str, value: &str) {
    let _ = writeln!(out, "{:indent$}{name}: {value}", "");
}

fn optional(out: &mut String, indent: usize, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        field(out, indent, name, &text(value));
    }
}

/// Plain where no YAML reader could take it for anything else, else in double quotes.
pub(crate) fn text(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/');
    let letter_first = value.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    if letter_first && value.bytes().all(plain) && Guess::of(value) == Guess::Text {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}
