//! Expectations as code: what a policy must allow and deny, for `sidegate policy test`.

use std::{net::IpAddr, ops::Range};

use crate::{
    Arrival, CanonicalPath, Date, Demands, Diagnostic, Direction, HostEvidence, HostName, Observed,
    PolicySet, Reason, Request, Source, SpiffeId, Treatment, Upgrade, Verdict, request::HttpFacts,
};

use super::{
    Protocol, Spanned,
    fields::{Fields, list},
    findings::Findings,
    scalar,
    tree::{self, Node},
};

const FIELDS: &[&str] = &[
    "name",
    "direction",
    "host",
    "ip",
    "port",
    "protocol",
    "method",
    "path",
    "upgrade",
    "from",
    "to",
    "expect",
    "rule",
    "reason",
];

/// The facts of a connection as people write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Egress or ingress.
    pub direction: Direction,
    /// The host it names.
    pub host: Option<HostName>,
    /// Egress: the original destination. Ingress: the source.
    pub ip: Option<IpAddr>,
    /// Destination port.
    pub port: u16,
    /// `tls` offers 1.3; a `tcp` host is one whose synthetic address was dialled.
    pub protocol: Protocol,
    /// One HTTP request.
    pub http: Option<(String, CanonicalPath)>,
    /// What that request asks to go on with.
    pub upgrade: Option<Upgrade>,
    /// The identity of the far end.
    pub peer: Option<SpiffeId>,
    /// The identity of the workload itself, which selects policies.
    pub workload: Option<SpiffeId>,
}

impl Scenario {
    /// The request as it comes to a proxy under this set: where a `tcp` rule covers the host, DNS gives out a synthetic
    /// address for it, and that vouches for the name.
    pub fn request_under(&self, set: &PolicySet, today: Date) -> Request<'_> {
        let mut request = self.request(today);
        let named = self.ip.is_none() && self.direction == Direction::Egress;
        if let Some((evidence, host)) = request.host.as_mut().filter(|_| named)
            && set.judge_name(host, today).synthetic
        {
            *evidence = HostEvidence::Synthetic;
        }
        let hello = Request { observed: Observed::Tls { offers_tls13: true, ech: false }, ..request.clone() };
        if self.direction == Direction::Ingress && set.terminates(&hello) {
            request.arrival = Arrival::Terminated;
        }
        request
    }

    /// The request without regard to what DNS would answer.
    pub fn request(&self, today: Date) -> Request<'_> {
        let (evidence, observed) = match self.protocol {
            Protocol::Tls => (HostEvidence::Sni, Observed::Tls { offers_tls13: true, ech: false }),
            Protocol::Http => (HostEvidence::HttpAuthority, Observed::Http),
            Protocol::Tcp => (HostEvidence::Synthetic, Observed::Opaque),
            Protocol::Udp => (HostEvidence::Synthetic, Observed::Udp),
        };
        let meshed = self.direction == Direction::Ingress && self.peer.is_some();
        let arrival = if meshed { Arrival::Mesh } else { Arrival::Plain };
        Request {
            direction: self.direction,
            host: self.host.as_ref().map(|host| (evidence, host)),
            address: self.ip.map(|ip| ip.to_canonical()),
            port: self.port,
            observed,
            peer: self.peer.as_ref(),
            arrival,
            http: self.http.as_ref().map(|(method, path)| HttpFacts {
                method,
                path,
                upgrade: self.upgrade,
                // As the platform's own clients ask.
                session: true,
            }),
            today,
        }
    }
}

/// One expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// `name`, or the scenario in words where it has none.
    pub name: String,
    /// 1-based line of the case.
    pub line: usize,
    /// What is asked.
    pub scenario: Scenario,
    /// `expect`.
    pub expect: Spanned<Verdict>,
    /// `rule`: the rule that must decide, as `name` or `policy/name`.
    pub rule: Option<String>,
    /// `reason`: the word that must be given.
    pub reason: Option<Reason>,
}

impl Case {
    /// `None`: it is as expected. Otherwise what differs, in words, from [`PolicySet::decide_for`].
    pub fn judge(
        &self,
        set: &PolicySet,
        today: Date,
        carried_out: impl Fn(Treatment, &Demands) -> bool,
    ) -> Option<String> {
        let decision = set.decide_for(&self.scenario.request_under(set, today), carried_out);
        let mut wrong = Vec::new();
        if decision.verdict != self.expect.value {
            let (expected, found) = (self.expect.value.word(), decision.verdict.word());
            wrong.push(format!("expected {expected}, is {found} ({})", decision.reason));
        }
        if let Some(expected) = &self.rule {
            let found = decision.rule.map(|rule| set.view(rule));
            let same = |view: &crate::explain::RuleView| {
                view.name == *expected || format!("{}/{}", view.policy, view.name) == *expected
            };
            if !found.as_ref().is_some_and(same) {
                let found = found.map_or_else(|| "no rule".to_owned(), |view| view.to_string());
                wrong.push(format!("expected rule {expected}, decided by {found}"));
            }
        }
        if let Some(expected) = self.reason.filter(|expected| *expected != decision.reason) {
            wrong.push(format!("expected reason {expected}, is {}", decision.reason));
        }
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

/// Reads a list of cases (YAML or JSON).
///
/// # Errors
/// Every diagnostic of the source, in the order of their places.
pub fn parse_cases(source: &Source) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let mut findings = Findings::new(source);
    let roots = tree::read(&source.text, &mut findings).unwrap_or_default();
    let cases = match roots.as_slice() {
        [root] => {
            let items = list(root, "the cases", &mut findings);
            items.iter().filter_map(|item| case(item, source, &mut findings)).collect()
        }
        _ if findings.is_empty() => {
            findings.add(
                "documents",
                &(0..0),
                "the file holds no single list of cases",
                "write `- expect: allowed` ...",
            );
            Vec::new()
        }
        _ => Vec::new(),
    };
    if findings.is_empty() { Ok(cases) } else { Err(findings.finish()) }
}

fn case(node: &Node<'_>, source: &Source, findings: &mut Findings<'_>) -> Option<Case> {
    let fields = Fields::open(node, "a case", FIELDS, findings)?;
    let expects =
        [("allowed", Verdict::Allowed), ("denied", Verdict::Denied), ("would-deny", Verdict::WouldDeny)];
    let expect = fields
        .required("expect", "a case", "add `expect: allowed` or `expect: denied`", findings)
        .and_then(|node| {
            Some(Spanned {
                value: scalar::word(node, "expect", &expects, findings)?,
                span: node.span.clone(),
            })
        });
    let mut text =
        |name: &'static str| fields.value(name).and_then(|node| scalar::text(node, name, findings));
    let (name, rule) = (text("name").map(str::to_owned), text("rule").map(str::to_owned));
    let reason = parsed(&fields, "reason", findings, |text| {
        Reason::from_word(text).ok_or("it is no reason; see docs/reasons.md")
    });
    let scenario = scenario(&fields, findings)?;
    let shown = || crate::explain::request_words(&scenario.request(Date::from_days(0)));
    let (line, _) = source.place(node.span.start);
    let name = name.unwrap_or_else(shown);
    Some(Case { name, line, scenario, expect: expect?, rule, reason })
}

fn scenario(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<Scenario> {
    let directions = [("egress", Direction::Egress), ("ingress", Direction::Ingress)];
    let protocols =
        [("tls", Protocol::Tls), ("http", Protocol::Http), ("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let direction =
        fields.value("direction").map(|node| scalar::word(node, "direction", &directions, findings));
    let direction = direction.unwrap_or(Some(Direction::Egress));
    let host =
        parsed(fields, "host", findings, |text| HostName::parse(text).map_err(|error| error.to_string()));
    let ip = parsed(fields, "ip", findings, |text| text.parse::<IpAddr>().map_err(|error| error.to_string()));
    let port =
        fields.required("port", "a case", "add `port: 443`", findings).and_then(|node| port(node, findings));
    let protocol = fields.value("protocol").map(|node| scalar::word(node, "protocol", &protocols, findings));
    let path = parsed(fields, "path", findings, |text| {
        CanonicalPath::parse(text).map_err(|error| error.to_string())
    });
    let method = parsed(fields, "method", findings, |text| Ok::<_, String>(text.to_owned()));
    let identity = |text: &str| SpiffeId::parse(text).map_err(|error| error.to_string());
    let from = parsed(fields, "from", findings, identity);
    let to = parsed(fields, "to", findings, identity);
    if host.is_none() && ip.is_none() && from.is_none() && to.is_none() {
        let named = ["host", "ip", "from", "to"].iter().any(|name| fields.entry(name).is_some());
        if !named {
            findings.add(
                "missing-field",
                fields.place(),
                "a case lacks `host` or `ip`",
                "add `host: api.example.com`",
            );
        }
    }
    let upgrades = [(Upgrade::WebSocket.word(), Upgrade::WebSocket)];
    let upgrade = fields.value("upgrade").and_then(|node| scalar::word(node, "upgrade", &upgrades, findings));
    let http = request(fields, method, path, findings);
    let direction = direction?;
    let (peer, workload) = match direction {
        Direction::Egress => (to, from),
        Direction::Ingress => (from, to),
    };
    let protocol = protocol.unwrap_or(Some(if http.is_some() { Protocol::Http } else { Protocol::Tls }));
    let (port, protocol) = (port?, protocol?);
    Some(Scenario { direction, host, ip, port, protocol, http, upgrade, peer, workload })
}

/// Method and path, both or neither; an upgrade begins with GET.
fn request(
    fields: &Fields<'_, '_>,
    method: Option<String>,
    path: Option<CanonicalPath>,
    findings: &mut Findings<'_>,
) -> Option<(String, CanonicalPath)> {
    let upgrades = fields.entry("upgrade").is_some();
    let method = method.or_else(|| (upgrades && fields.entry("method").is_none()).then(|| "GET".to_owned()));
    let lacking = match (method, path) {
        (Some(method), Some(path)) => return Some((method, path)),
        (None, None) => return None,
        (Some(_), None) => "path",
        (None, Some(_)) => "method",
    };
    if fields.entry(lacking).is_none() {
        let fix = if upgrades { "write `path`" } else { "write both or neither" };
        findings.add("missing-field", fields.place(), format!("a case lacks `{lacking}`"), fix);
    }
    None
}

fn parsed<T, E: std::fmt::Display>(
    fields: &Fields<'_, '_>,
    name: &'static str,
    findings: &mut Findings<'_>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let node = fields.value(name)?;
    let text = scalar::text(node, name, findings)?;
    let span: Range<usize> = node.span.clone();
    match parse(text) {
        Ok(value) => Some(value),
        Err(error) => {
            findings.add(
                name,
                &span,
                format!("`{}` is no {name}: {error}", scalar::shown(text)),
                "correct it",
            );
            None
        }
    }
}

fn port(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<u16> {
    let parsed = match &node.value {
        tree::Value::Scalar(text, _) => text.parse::<u16>().ok().filter(|port| *port > 0),
        _ => None,
    };
    if parsed.is_none() {
        findings.add("port", &node.span, "`port` is no port", "write a number from 1 to 65535");
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CompileOptions, document::parse};

    const POLICY: &str = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  egress:\n    - { name: web, to: [ { hosts: [ api.example.com ] } ], ports: [ 443 ] }\n";

    fn judged(cases: &str) -> Vec<Option<String>> {
        let documents = parse(&Source::new("p.yaml", POLICY)).expect("a policy");
        let set = PolicySet::compile(&documents, &CompileOptions::default()).expect("a set");
        let cases =
            parse_cases(&Source::new("cases.yaml", cases)).unwrap_or_else(|errors| panic!("{errors:#?}"));
        cases.iter().map(|case| case.judge(&set, Date::from_days(20_000), |_, _| true)).collect()
    }

    #[test]
    fn cases_are_met_or_say_what_differs() {
        let results = judged(
            "- { host: api.example.com, port: 443, expect: allowed, rule: p/web, reason: rule-allows }\n\
             - { host: www.example.com, port: 443, expect: allowed }\n\
             - { ip: 169.254.169.254, port: 80, protocol: tcp, expect: denied, reason: no-rule }\n\
             - { host: api.example.com, port: 443, expect: allowed, rule: other }\n",
        );
        let shown: Vec<_> = results.iter().map(|result| result.as_deref().unwrap_or("met")).collect();
        assert_eq!(
            shown,
            [
                "met",
                "expected allowed, is denied (no-rule)",
                "expected reason no-rule, is address-metadata",
                "expected rule other, decided by p/web (p.yaml:6)",
            ]
        );
    }

    #[test]
    fn an_upgrade_is_asked_for_by_its_path_alone() {
        let text = "- { host: a.example.com, port: 80, path: /live, upgrade: websocket, expect: denied }\n";
        let cases = parse_cases(&Source::new("cases.yaml", text)).expect("cases");
        let request = cases[0].scenario.request(Date::from_days(20_000));
        assert_eq!(
            request.http.map(|http| (http.method, http.upgrade)),
            Some(("GET", Some(Upgrade::WebSocket)))
        );
        assert_eq!(cases[0].name, "http websocket a.example.com:80/live");
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let text = "- { host: api.example.com, port: 443 }\n- { host: \"*.x\", port: 70000, expect: maybe }\n- { port: 1, expect: denied, hots: x }\n";
        let errors = parse_cases(&Source::new("cases.yaml", text)).expect_err("faults");
        let places: Vec<_> = errors.iter().map(|error| (error.line, error.code)).collect();
        for expected in [
            (1, "missing-field"),
            (2, "host"),
            (2, "port"),
            (2, "expect"),
            (3, "unknown-field"),
            (3, "missing-field"),
        ] {
            assert!(places.contains(&expected), "{expected:?} in {places:?}");
        }
    }
}
