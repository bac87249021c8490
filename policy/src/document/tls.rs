//! How a rule's connections are carried: which protocols, TLS modes and kinds of ends make sense together.
//!
//! Every exemption from TLS 1.3 is written out and has a reason; nothing is weakened by a default.

use crate::{decision::TlsMode, demands::OriginTls};

use super::{
    Action, Protocol, demands,
    fields::Fields,
    findings::Findings,
    scalar::{self, shown},
    tree::Node,
};

/// Which kinds of ends a rule has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds {
    pub(super) hosts: bool,
    /// CIDRs, security groups, prefix lists.
    pub(super) addresses: bool,
    pub(super) workloads: bool,
    pub(super) grants: bool,
}

impl Kinds {
    pub(super) fn any(&self) -> bool {
        self.hosts || self.addresses || self.workloads || self.grants
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Passthrough,
    Originate,
    Inspect,
    Mesh,
    Terminate,
    None,
}

const EGRESS_MODES: &[(&str, Mode)] = &[
    ("passthrough", Mode::Passthrough),
    ("originate", Mode::Originate),
    ("inspect", Mode::Inspect),
    ("mesh", Mode::Mesh),
    ("none", Mode::None),
];

const INGRESS_MODES: &[(&str, Mode)] = &[
    ("mesh", Mode::Mesh),
    ("terminate", Mode::Terminate),
    ("passthrough", Mode::Passthrough),
    ("none", Mode::None),
];

const PROTOCOLS: &[(&str, Protocol)] =
    &[("tls", Protocol::Tls), ("http", Protocol::Http), ("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

/// How a rule's connections are carried.
pub(super) struct Carried {
    pub(super) protocol: Protocol,
    pub(super) tls: TlsMode,
    pub(super) origin: OriginTls,
    pub(super) certificate: Option<Box<str>>,
}

impl Carried {
    /// Of rules whose `tls` has no meaning.
    fn irrelevant(protocol: Protocol) -> Carried {
        let tls = TlsMode::Passthrough { min_tls12: false };
        Carried { protocol, tls, origin: OriginTls::default(), certificate: None }
    }
}

/// What `tls` says, before it is judged.
#[derive(Default)]
struct Written {
    mode: Option<Mode>,
    /// `Some(true)`: "1.2".
    min_tls12: Option<bool>,
    origin: OriginTls,
    /// The first field that is written of those that make up `origin`.
    option: Option<&'static str>,
    certificate: Option<Box<str>>,
    /// It is written, be it right or wrong.
    names_certificate: bool,
    /// Something in it was reported; defaults would only add noise.
    broken: bool,
}

/// Protocol and TLS mode of a rule. `end`: `to` or `from`. `None`: reported, here or before; then what can be judged by
/// itself still is.
pub(super) fn carriage(
    fields: &Fields<'_, '_>,
    action: Option<Action>,
    kinds: &Kinds,
    end: &str,
    findings: &mut Findings<'_>,
) -> Option<Carried> {
    if let (true, Some(action)) = (kinds.grants, action) {
        return grants(fields, action, kinds, findings).then(|| Carried::irrelevant(Protocol::Tls));
    }
    let protocol = match fields.value("protocol") {
        Some(node) => scalar::word(node, "protocol", PROTOCOLS, findings),
        None => Some(Protocol::Tls),
    };
    let udp_by_name = protocol == Some(Protocol::Udp) && (kinds.hosts || kinds.workloads);
    if udp_by_name {
        let fix = "name addresses with `cidrs`; for the Amazon time service use the grant `time`";
        findings.refuse(
            fields.entry("protocol"),
            "udp-by-name",
            "datagrams carry no name or identity to judge",
            fix,
        );
    }
    if action == Some(Action::Deny) {
        deny(fields, protocol, findings);
        return protocol.map(Carried::irrelevant);
    }
    let written = fields.value("tls").map(|node| written(node, end, findings)).unwrap_or_default();
    action?;
    let whole = kinds.any() && !udp_by_name && !written.broken;
    let Some(protocol) = protocol.filter(|_| whole) else {
        judge_alone(fields, protocol, &written, findings);
        return None;
    };
    let carriage = Carriage { fields, kinds, protocol, egress: end == "to" };
    match carriage.mode(&written, findings) {
        Some(mode) => {
            carriage.judge_http(mode, findings);
            carriage.judge_client_address(findings);
            judge_written(fields, mode, &written, findings);
            let tls = finished(mode, &written);
            Some(Carried { protocol, tls, origin: written.origin, certificate: written.certificate })
        }
        None => {
            judge_alone(fields, Some(protocol), &written, findings);
            None
        }
    }
}

/// What is wrong whatever the rest may be.
fn judge_alone(
    fields: &Fields<'_, '_>,
    protocol: Option<Protocol>,
    written: &Written,
    findings: &mut Findings<'_>,
) {
    if matches!(protocol, Some(Protocol::Tcp | Protocol::Udp)) {
        refuse_unseen(fields, findings);
    }
    if let Some(mode) = written.mode {
        judge_written(fields, mode, written, findings);
    }
}

/// What a mode demands of the rule beside it.
fn judge_written(fields: &Fields<'_, '_>, mode: Mode, written: &Written, findings: &mut Findings<'_>) {
    if mode != Mode::Passthrough && written.min_tls12.is_some() {
        let message = "`tls.min` belongs to `passthrough`; every other mode speaks TLS 1.3";
        findings.refuse(fields.entry("tls"), "tls-min", message, "remove `min`");
    }
    if let (false, Some(option)) = (matches!(mode, Mode::Originate | Mode::Inspect), written.option) {
        let message = format!("`tls.{option}` is for servers that Sidegate itself verifies");
        let fix = format!("write `mode: originate` or `inspect`, or remove `{option}`");
        findings.refuse(fields.entry("tls"), "tls-option", &message, &fix);
    }
    if mode != Mode::Terminate && written.names_certificate {
        let message = "`tls.certificate` is for clients whose TLS ends at the proxy";
        let fix = "write `mode: terminate`, or remove `certificate`";
        findings.refuse(fields.entry("tls"), "tls-option", message, fix);
    }
    let exemption = match (mode, written.min_tls12) {
        (Mode::None, _) => Some("mode: none"),
        (Mode::Passthrough, Some(true)) => Some("min: \"1.2\""),
        _ => None,
    };
    if let Some(exemption) = exemption.filter(|_| fields.entry("reason").is_none()) {
        let fix = "add `reason: \"...\"`; records and reports carry it";
        let message = format!("`tls: {{ {exemption} }}` is an exemption from TLS 1.3 and needs a `reason`");
        findings.refuse(fields.entry("tls"), "reason-missing", &message, fix);
    }
}

fn finished(mode: Mode, written: &Written) -> TlsMode {
    match mode {
        Mode::Passthrough => TlsMode::Passthrough { min_tls12: written.min_tls12.unwrap_or(false) },
        Mode::Originate => TlsMode::Originate,
        Mode::Inspect => TlsMode::Inspect,
        Mode::Mesh => TlsMode::Mesh,
        Mode::Terminate => TlsMode::Terminate,
        Mode::None => TlsMode::None,
    }
}

/// Grants stand alone: they open fixed addresses, ports and protocols.
fn grants(fields: &Fields<'_, '_>, action: Action, kinds: &Kinds, findings: &mut Findings<'_>) -> bool {
    if kinds.hosts || kinds.addresses || kinds.workloads {
        let fix = "put the grants into a rule of their own";
        findings.refuse(
            fields.entry("to"),
            "grant-field",
            "grants and other destinations can't share a rule",
            fix,
        );
    }
    if action == Action::Deny {
        let fix = "remove the rule: without a grant it is denied; to overrule another policy's grant, deny its `cidrs`";
        findings.refuse(fields.entry("action"), "grant-field", "a grant can't be denied", fix);
    }
    for field in ["protocol", "tls", "http", "limits"] {
        let message = format!("a rule of grants takes no `{field}`");
        let fix = format!("remove `{field}`; a grant opens exactly what the platform uses");
        findings.refuse(fields.entry(field), "grant-field", &message, &fix);
    }
    true
}

fn deny(fields: &Fields<'_, '_>, protocol: Option<Protocol>, findings: &mut Findings<'_>) {
    findings.refuse(
        fields.entry("tls"),
        "deny-field",
        "a deny rule carries nothing, so it takes no `tls`",
        "remove it",
    );
    for field in ["limits"].into_iter().chain(demands::INGRESS) {
        let message = format!("a deny rule carries nothing, so it takes no `{field}`");
        findings.refuse(fields.entry(field), "deny-field", &message, "remove it");
    }
    if protocol == Some(Protocol::Tls) {
        let fix = "remove `protocol`: without it a deny rule covers every protocol";
        findings.refuse(fields.entry("protocol"), "deny-field", "a deny rule can't single out TLS", fix);
    }
    if matches!(protocol, Some(Protocol::Tcp | Protocol::Udp)) {
        refuse_http(
            fields,
            "requests can't be seen with this `protocol`",
            "write `protocol: http`",
            findings,
        );
    }
}

fn refuse_unseen(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) {
    let message = "requests can't be seen in this rule's connections";
    refuse_http(fields, message, "write `protocol: http`, or remove `http`", findings);
    refuse_counted(fields, "write `protocol: http`, or remove it", findings);
}

/// What needs requests that can be seen, beside `http`.
fn refuse_counted(fields: &Fields<'_, '_>, fix: &str, findings: &mut Findings<'_>) {
    for field in ["limits", "forwarded"] {
        let message = format!("`{field}` needs requests, which can't be seen in this rule's connections");
        findings.refuse(fields.entry(field), "http-unseen", &message, fix);
    }
}

fn refuse_http(fields: &Fields<'_, '_>, message: &str, fix: &str, findings: &mut Findings<'_>) {
    findings.refuse(fields.entry("http"), "http-unseen", message, fix);
}

fn written(node: &Node<'_>, end: &str, findings: &mut Findings<'_>) -> Written {
    let broken = Written { broken: true, ..Written::default() };
    let mut known = vec!["mode", "min"];
    match end {
        "to" => known.extend(demands::ORIGIN),
        _ => known.push(demands::CERTIFICATE),
    }
    let Some(fields) = Fields::open(node, "`tls`", &known, findings) else { return broken };
    if known.iter().all(|field| fields.entry(field).is_none()) {
        findings.add("missing-field", &node.span, "`tls` says nothing", "add `mode`, or remove `tls`");
        return broken;
    }
    let modes = if end == "to" { EGRESS_MODES } else { INGRESS_MODES };
    let mode = fields.value("mode").map(|node| scalar::word(node, "tls.mode", modes, findings));
    let min = fields.value("min").map(|node| min_tls12(node, findings));
    let unreadable = mode == Some(None) || min == Some(None);
    Written {
        mode: mode.flatten(),
        min_tls12: min.flatten(),
        origin: demands::origin(&fields, findings),
        option: demands::ORIGIN
            .into_iter()
            .find(|field| known.contains(field) && fields.entry(field).is_some()),
        certificate: demands::certificate(&fields, findings),
        names_certificate: known.contains(&demands::CERTIFICATE)
            && fields.entry(demands::CERTIFICATE).is_some(),
        broken: unreadable,
    }
}

fn min_tls12(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<bool> {
    let text = scalar::text(node, "tls.min", findings)?;
    match text {
        "1.3" => Some(false),
        "1.2" => Some(true),
        _ => {
            let message = format!("`{}` is no TLS version that can be demanded", shown(text));
            findings.add("tls-min", &node.span, message, "write \"1.3\", or \"1.2\" as an exemption");
            None
        }
    }
}

struct Carriage<'f, 'n, 's> {
    fields: &'f Fields<'n, 's>,
    kinds: &'f Kinds,
    protocol: Protocol,
    egress: bool,
}

impl Carriage<'_, '_, '_> {
    /// The written mode, or the default, if it makes sense.
    fn mode(&self, written: &Written, findings: &mut Findings<'_>) -> Option<Mode> {
        if self.egress && self.kinds.workloads && (self.kinds.hosts || self.kinds.addresses) {
            let fix = "put the workloads into a rule of their own";
            let message = "workloads are reached over the mesh, hosts and addresses are not";
            findings.refuse(self.fields.entry("to"), "mixed-ends", message, fix);
            return None;
        }
        let Some(mode) = written.mode else { return self.default_mode(findings) };
        match self.objection(mode) {
            None => Some(mode),
            Some((message, fix)) => {
                findings.refuse(self.fields.entry("tls"), "tls-mode-misfit", message, fix);
                None
            }
        }
    }

    fn default_mode(&self, findings: &mut Findings<'_>) -> Option<Mode> {
        match self.protocol {
            _ if self.kinds.workloads => Some(Mode::Mesh),
            Protocol::Tls => Some(Mode::Passthrough),
            Protocol::Http | Protocol::Tcp | Protocol::Udp => {
                let (word, fix) = match self.protocol {
                    Protocol::Http if self.egress => {
                        ("http", "write `tls: { mode: originate }`, or `tls: { mode: none }` and a `reason`")
                    }
                    Protocol::Udp => ("udp", "write `tls: { mode: none }` and a `reason`"),
                    Protocol::Http => {
                        ("http", "write `tls: { mode: mesh }`, or `tls: { mode: none }` and a `reason`")
                    }
                    _ => (
                        "tcp",
                        "write `tls: { mode: none }` and a `reason`; if it is TLS, use `protocol: tls`",
                    ),
                };
                let message =
                    format!("`protocol: {word}` needs an explicit `tls.mode`: it may leave unencrypted");
                findings.refuse(self.fields.entry("protocol"), "tls-mode-missing", &message, fix);
                None
            }
        }
    }

    /// Why a mode can't serve this rule, and what can.
    fn objection(&self, mode: Mode) -> Option<(&'static str, &'static str)> {
        let (kinds, protocol) = (self.kinds, self.protocol);
        let unverifiable = kinds.addresses || kinds.workloads;
        match mode {
            Mode::None if protocol == Protocol::Udp => None,
            _ if protocol == Protocol::Udp => {
                Some(("datagrams are never put into TLS", "write `tls: { mode: none }` and a `reason`"))
            }
            Mode::Mesh if self.egress && !kinds.workloads => {
                Some(("`mesh` needs a destination with an identity", "name `workloads`, or use another mode"))
            }
            Mode::Mesh => None,
            _ if kinds.workloads => Some((
                "only `mesh` proves the identity of a workload",
                "write `tls: { mode: mesh }`, or name addresses instead of workloads",
            )),
            Mode::Passthrough if protocol != Protocol::Tls => Some((
                "`passthrough` passes the application's own TLS",
                "write `protocol: tls`, or another mode",
            )),
            Mode::Inspect if protocol != Protocol::Tls => Some((
                "`inspect` opens the application's own TLS",
                "write `protocol: tls`, or `mode: originate`",
            )),
            Mode::Originate if protocol == Protocol::Tls => Some((
                "`originate` puts plaintext into TLS, and `protocol: tls` is TLS already",
                "write `mode: passthrough`, or `protocol: http` or `tcp`",
            )),
            Mode::Originate | Mode::Inspect if unverifiable => Some((
                "the server's certificate can be checked against a name only",
                "name `hosts`, or use `passthrough` or `none`",
            )),
            Mode::Passthrough | Mode::Inspect | Mode::Originate | Mode::Terminate | Mode::None => None,
        }
    }

    /// `http` entries need requests that can be seen.
    fn judge_http(&self, mode: Mode, findings: &mut Findings<'_>) {
        let seen = self.protocol == Protocol::Http || mode == Mode::Inspect;
        if !seen {
            let fix = if self.protocol == Protocol::Tls && self.egress {
                "write `tls: { mode: inspect }`, or `protocol: http`, or remove `http`"
            } else {
                "write `protocol: http`, or remove `http`"
            };
            refuse_http(self.fields, "requests can't be seen in this rule's connections", fix, findings);
            refuse_counted(self.fields, &fix.replace("remove `http`", "remove it"), findings);
        }
    }

    fn judge_client_address(&self, findings: &mut Findings<'_>) {
        if self.protocol == Protocol::Udp {
            let message = "no PROXY header goes before datagrams, which keep their own source";
            let entry = self.fields.entry("proxyProtocol");
            findings.refuse(entry, "client-address", message, "remove `proxyProtocol`");
        }
    }
}
