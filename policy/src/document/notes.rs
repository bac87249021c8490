//! What a valid document does not do: on a given day, by the fixed deny table, and in a build that lacks a part.

use ipnet::IpNet;

use crate::{
    Date, Demands, Diagnostic, HostPattern, Reason, Treatment,
    decision::{Dial, TlsMode},
    demands::NONE,
    deny_table::{Grant, denied_whole},
};

use super::{Action, Destination, Document, Protocol, Rule, Spanned, judges_requests};

/// How the reasons begin that are offered with rules.
pub(crate) const PLACEHOLDER: &str = "say why this needs no TLS 1.3";

/// Said of every answer on inbound connections.
pub const INGRESS_UNENFORCED: &str = "ingress rules bind where a sidecar captures inbound connections, as it does unless \
     `inbound.capture` is turned off; `sidegate run` captures none, and nobody captures datagrams";

/// Notes on one document, in the order of its rules. `code`: `not-supported`, `ingress-unenforced`, `never-matches`,
/// `in-audit`, `audit-is-over`, `every-address` or `placeholder`.
pub fn notes(
    document: &Document,
    today: Date,
    carried_out: impl Fn(Treatment, &Demands) -> bool + Copy,
) -> Vec<Diagnostic> {
    let mut notes = Notes { document, today, found: Vec::new() };
    notes.audit(document.audit_until, &document.name, "policy");
    for rule in &document.egress {
        notes.audit(rule.audit_until, &rule.name, "rule");
        notes.groups(rule);
        if rule.action == Action::Allow {
            notes.treatment(rule, carried_out);
            notes.closed(rule);
            notes.own_names(rule);
            notes.open(rule);
            notes.placeholder(rule);
        }
    }
    for rule in &document.ingress {
        notes.audit(rule.audit_until, &rule.name, "rule");
    }
    let probes = (!document.probes.is_empty()).then_some(&document.name);
    if let Some(name) = document.ingress.first().map(|rule| &rule.name).or(probes) {
        let fix = "elsewhere guard the port by other means, such as a security group";
        notes.add("ingress-unenforced", name, INGRESS_UNENFORCED.to_owned(), fix);
    }
    notes.found
}

struct Notes<'d> {
    document: &'d Document,
    today: Date,
    found: Vec<Diagnostic>,
}

impl Notes<'_> {
    fn add(&mut self, code: &'static str, at: &Spanned<String>, message: String, fix: impl Into<String>) {
        let note = Diagnostic::new(&self.document.source, code, at.span.clone(), message, fix);
        self.found.push(note);
    }

    fn audit(&mut self, until: Option<Date>, name: &Spanned<String>, what: &str) {
        let Some(last) = until else { return };
        if last >= self.today {
            let message = format!(
                "{what} `{}` is in audit to the end of {last}: what it would deny passes and is recorded; datagrams \
                 alone are refused all the same",
                name.value
            );
            return self.add("in-audit", name, message, "remove the audit to enforce it");
        }
        let message = format!("the audit of {what} `{}` ended with {last}: it is enforced", name.value);
        self.add("audit-is-over", name, message, "remove `auditUntil`, or name a later day");
    }

    /// Of denials too: one that matches nothing is easily taken for protection.
    fn groups(&mut self, rule: &Rule<Destination>) {
        let group = rule.ends.iter().find_map(|end| match &end.value {
            Destination::SecurityGroups(ids) | Destination::PrefixLists(ids) => ids.first(),
            _ => None,
        });
        let Some(id) = group else { return };
        let message = format!(
            "`{id}` in rule `{}` matches nothing: a control plane resolves it, and this build has none yet",
            rule.name.value
        );
        self.add("never-matches", &rule.name, message, "name its addresses with `cidrs` until then");
    }

    /// One note a rule, however many ends it has.
    fn treatment(&mut self, rule: &Rule<Destination>, carried_out: impl Fn(Treatment, &Demands) -> bool) {
        let refused = rule.ends.iter().filter_map(|end| treatment(rule, &end.value));
        let Some(refused) = { refused }.find(|treatment| !carried_out(*treatment, &rule.demands)) else {
            return;
        };
        let message = format!(
            "this build does not carry out {} yet: what rule `{}` matches is denied (not-supported), never weakened",
            asked(rule, refused, carried_out(Treatment { demands: false, ..refused }, &NONE)),
            rule.name.value
        );
        self.add("not-supported", &rule.name, message, Reason::NotSupported.fix());
    }

    /// DNS answers them with loopback, which no rule opens.
    fn own_names(&mut self, rule: &Rule<Destination>) {
        let mut hosts = rule.ends.iter().flat_map(|end| match &end.value {
            Destination::Hosts { hosts, .. } => hosts.as_slice(),
            _ => &[],
        });
        let own = |host: &&HostPattern| host.to_string().rsplit('.').next() == Some("localhost");
        let Some(host) = hosts.find(own) else { return };
        let message = format!(
            "`{host}` in rule `{}` never matches: names under `localhost` are the workload itself, which needs no rule",
            rule.name.value
        );
        self.add("never-matches", &rule.name, message, "remove it");
    }

    fn open(&mut self, rule: &Rule<Destination>) {
        let every = |end: &Destination| match end {
            Destination::Cidrs { cidrs, .. } => cidrs.iter().copied().find(|net| net.prefix_len() == 0),
            _ => None,
        };
        let Some(net) = rule.ends.iter().find_map(|end| every(&end.value)) else { return };
        let message = format!(
            "`{net}` in rule `{}` allows every address that the fixed deny table leaves, whatever name it is reached by",
            rule.name.value
        );
        self.add("every-address", &rule.name, message, "name `hosts`, or narrower `cidrs`");
    }

    fn placeholder(&mut self, rule: &Rule<Destination>) {
        if rule.reason.as_deref().is_some_and(|reason| reason.starts_with(PLACEHOLDER)) {
            let message =
                format!("the reason of rule `{}` is still the one that was offered", rule.name.value);
            self.add("placeholder", &rule.name, message, "say why the exemption is needed, and until when");
        }
    }

    fn closed(&mut self, rule: &Rule<Destination>) {
        let closed: Vec<(IpNet, Reason)> = rule.ends.iter().flat_map(|end| closed_nets(&end.value)).collect();
        let Some((net, reason)) = closed.first() else { return };
        let more = match closed.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more of its `cidrs`"),
        };
        let message = format!(
            "`{net}`{more} in rule `{}` never matches: the fixed deny table closes it to every rule ({reason})",
            rule.name.value
        );
        let grant = Grant::ALL
            .iter()
            .find(|grant| grant.openings().iter().any(|opening| net.contains(&opening.address)));
        let fix = match grant {
            Some(grant) => format!(
                "remove it; the platform's own services are opened by a rule `to: [ {{ grants: [ {} ] }} ]`",
                grant.word()
            ),
            None => "remove it; no rule opens it".to_owned(),
        };
        self.add("never-matches", &rule.name, message, fix);
    }
}

/// How a rule carries what it matches by one end; `None` for grants, which pass as they are.
fn treatment(rule: &Rule<Destination>, end: &Destination) -> Option<Treatment> {
    let (dial, private) = match end {
        Destination::Grants(_) => return None,
        Destination::Hosts { private, .. } => (Dial::Name, *private),
        Destination::Workloads(_) if rule.tls == TlsMode::Mesh => (Dial::Workload, false),
        _ => (Dial::OriginalDestination, false),
    };
    let per_request = judges_requests(rule.protocol, rule.tls);
    Some(Treatment { dial, tls: rule.tls, private, per_request, demands: !rule.demands.is_empty() })
}

/// `plain`: without demands it would be carried out.
fn asked(rule: &Rule<Destination>, treatment: Treatment, plain: bool) -> &'static str {
    if plain {
        return if rule.demands.limit.is_some() {
            "`limits`"
        } else {
            "`roots`, `pins` and `clientIdentity`"
        };
    }
    match treatment.tls {
        TlsMode::Originate => "`tls: { mode: originate }`",
        TlsMode::Inspect => "`tls: { mode: inspect }`",
        TlsMode::Mesh => "`tls: { mode: mesh }`",
        TlsMode::Terminate => "`tls: { mode: terminate }`",
        _ if rule.protocol == Protocol::Http => "`protocol: http`",
        _ => "this treatment",
    }
}

/// Prefixes of which the fixed table leaves nothing.
fn closed_nets(end: &Destination) -> Vec<(IpNet, Reason)> {
    let Destination::Cidrs { cidrs, except } = end else { return Vec::new() };
    cidrs.iter().filter_map(|net| Some((*net, denied_whole(*net, except)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, document::parse};

    fn found(rule: &str) -> Vec<&'static str> {
        let text = format!(
            "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  egress:\n    - {{ name: r, ports: [ 80 ], {rule} }}\n"
        );
        let documents = parse(&Source::new("p.yaml", text)).unwrap_or_else(|errors| panic!("{errors:#?}"));
        let plain =
            |treatment: Treatment, _: &Demands| !treatment.per_request && treatment.tls != TlsMode::Inspect;
        notes(&documents[0], Date::from_days(20_000), plain).iter().map(|note| note.code).collect()
    }

    #[test]
    fn only_what_does_not_take_effect_is_noted() {
        let hosts = "to: [ { hosts: [ a.example.com, b.example.com ] } ]";
        for (rule, expected) in [
            (hosts.to_owned(), vec![]),
            (format!("{hosts}, tls: {{ mode: inspect }}"), vec!["not-supported"]),
            (format!("{hosts}, protocol: http, tls: {{ mode: none }}, reason: plain"), vec!["not-supported"]),
            (format!("{hosts}, action: deny, protocol: http"), vec![]),
            (format!("{hosts}, auditUntil: 2024-10-03"), vec!["audit-is-over"]),
            (format!("{hosts}, auditUntil: 2024-10-04"), vec!["in-audit"]),
            ("to: [ { hosts: [ a.example.com, api.localhost ] } ]".to_owned(), vec!["never-matches"]),
            ("to: [ { cidrs: [ 0.0.0.0/0 ] } ]".to_owned(), vec!["every-address"]),
            ("action: deny, to: [ { cidrs: [ 0.0.0.0/0 ] } ]".to_owned(), vec![]),
            (format!("{hosts}, reason: say why this needs no TLS 1.3"), vec!["placeholder"]),
            ("to: [ { cidrs: [ 169.254.0.0/16 ] } ]".to_owned(), vec!["never-matches"]),
            ("to: [ { cidrs: [ 10.0.0.0/8, \"::1/128\" ] } ]".to_owned(), vec!["never-matches"]),
            ("to: [ { cidrs: [ 126.0.0.0/7 ], except: [ 126.0.0.0/8 ] } ]".to_owned(), vec!["never-matches"]),
            ("to: [ { cidrs: [ 126.0.0.0/7 ] } ]".to_owned(), vec![]),
            ("to: [ { cidrs: [ 224.0.0.0/3 ] } ]".to_owned(), vec!["never-matches"]),
            ("action: deny, to: [ { cidrs: [ 127.0.0.0/8 ] } ]".to_owned(), vec![]),
            ("action: deny, to: [ { securityGroups: [ sg-0abc ] } ]".to_owned(), vec!["never-matches"]),
        ] {
            assert_eq!(found(&rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_demand_that_a_build_does_not_know_is_noted_by_name() {
        for (demand, expected) in [
            ("tls: { mode: originate }", None),
            ("tls: { mode: originate }, limits: { requestsPerSecond: 1 }", Some("`limits`")),
            ("tls: { mode: originate, roots: x }", Some("`roots`")),
        ] {
            let text = format!(
                "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  egress:\n    - {{ name: r, to: [ {{ hosts: [ a.example.com ] }} ], ports: [ 80 ], protocol: http, {demand} }}\n"
            );
            let documents =
                parse(&Source::new("p.yaml", text)).unwrap_or_else(|errors| panic!("{errors:#?}"));
            let found = notes(&documents[0], Date::from_days(20_000), |treatment, _| !treatment.demands);
            let told = found.first().map(|note| note.message.contains(expected.unwrap_or("nothing")));
            assert_eq!(told, expected.map(|_| true), "{demand}: {found:?}");
        }
    }
}
