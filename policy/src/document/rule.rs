//! One rule. What its parts mean together (protocol, TLS mode, kind of destination) is judged in `tls`.

use std::ops::{Range, RangeInclusive};

use crate::{Date, Demands, PathPattern, Upgrade};

use super::{
    Action, HttpMatch, Rule, Spanned, demands,
    fields::{Fields, list, texts},
    findings::Findings,
    scalar::{self, Guess, shown},
    tls::{self, Carried, Kinds},
    tree::{Node, Value},
};

/// Where a rule's connections go to or come from.
pub(super) trait RuleEnd: Sized {
    /// `to` or `from`.
    const FIELD: &'static str;
    const EXAMPLE: &'static str;
    /// Fields of rules of this direction alone.
    const FIELDS: &'static [&'static str];

    /// One entry of the list. `action`: a deny may be wider than an allow.
    fn read(node: &Node<'_>, action: Action, findings: &mut Findings<'_>) -> Option<Self>;

    /// The entry that a bare text was probably meant to be.
    fn guess(text: &str) -> Option<String>;

    fn count(&self, kinds: &mut Kinds);
}

/// What was read of a rule: its name, even where the rest is refused.
pub(super) struct Readout<T> {
    pub(super) name: Option<Spanned<String>>,
    pub(super) rule: Option<Rule<T>>,
}

pub(super) fn read<T: RuleEnd>(node: &Node<'_>, direction: &str, findings: &mut Findings<'_>) -> Readout<T> {
    let mut known = vec!["name", "reason", "action", T::FIELD, "ports", "protocol", "tls", "http", "limits"];
    known.push("auditUntil");
    known.extend(T::FIELDS);
    let what = format!("an {direction} rule");
    let Some(fields) = Fields::open(node, &what, &known, findings) else {
        return Readout { name: None, rule: None };
    };
    let name = fields
        .required("name", &what, "add a name of a-z, 0-9 and `-`; records and reports carry it", findings)
        .and_then(|node| scalar::name(node, findings))
        .map(|(value, span)| Spanned { value, span });
    let rule = rest(&fields, &what, node, findings);
    Readout { rule: name.clone().zip(rule).map(|(name, rule)| Rule { name, ..rule }), name }
}

/// All but the name, which is left empty.
fn rest<T: RuleEnd>(
    fields: &Fields<'_, '_>,
    what: &str,
    node: &Node<'_>,
    findings: &mut Findings<'_>,
) -> Option<Rule<T>> {
    let reason = fields.value("reason").and_then(|node| scalar::prose(node, "reason", 1024, findings));
    let actions = [("allow", Action::Allow), ("deny", Action::Deny)];
    let action = match fields.value("action") {
        Some(node) => scalar::word(node, "action", &actions, findings),
        None => Some(Action::Allow),
    };
    // After an unreadable action the stricter reading would only add noise.
    let reading = action.unwrap_or(Action::Deny);
    let ends: Vec<Spanned<T>> = fields
        .required(T::FIELD, what, T::EXAMPLE, findings)
        .map(|node| ends(node, reading, findings))
        .unwrap_or_default();
    let mut kinds = Kinds::default();
    ends.iter().for_each(|end| end.value.count(&mut kinds));
    let ports = ports(fields, what, &kinds, findings);
    let carriage = tls::carriage(fields, action, &kinds, T::FIELD, findings);
    let http = fields.value("http").map(|node| http(node, findings)).unwrap_or_default();
    let limit = demands::limits(fields, findings);
    let client_address = demands::client_address(fields, findings);
    let audit_until = audit_until(fields, findings);
    let (action, Carried { protocol, tls, origin, certificate }) = (action?, carriage?);
    Some(Rule {
        name: Spanned { value: String::new(), span: 0..0 },
        reason,
        action,
        ends,
        ports,
        protocol,
        tls,
        demands: Demands { limit, origin, certificate, client_address },
        http,
        audit_until,
        span: node.span.clone(),
    })
}

fn ends<T: RuleEnd>(node: &Node<'_>, action: Action, findings: &mut Findings<'_>) -> Vec<Spanned<T>> {
    let read = |item: &Node<'_>, findings: &mut Findings<'_>| {
        T::read(item, action, findings).map(|value| Spanned { value, span: item.span.clone() })
    };
    match &node.value {
        Value::Scalar(text, _) if T::guess(text).is_some() => {
            let guess = T::guess(text).unwrap_or_default();
            wrong_list(node, T::FIELD, &format!("write `{}: [ {guess} ]`", T::FIELD), findings);
            Vec::new()
        }
        // One entry without its list: what is wrong inside is told too.
        Value::Mapping(entries) if !entries.is_empty() => {
            let read = read(node, findings).into_iter().collect();
            let fix = format!("put `- ` before its first field, or write `{}: [ {{ ... }} ]`", T::FIELD);
            wrong_list(node, T::FIELD, &fix, findings);
            read
        }
        _ => list(node, T::FIELD, findings).iter().filter_map(|item| read(item, findings)).collect(),
    }
}

fn wrong_list(node: &Node<'_>, field: &str, fix: &str, findings: &mut Findings<'_>) {
    let message = format!("`{field}` must be a list, found {}", scalar::kind(node));
    let at = node.span.start..node.span.start;
    let span = if matches!(node.value, Value::Mapping(_)) { at } else { node.span.clone() };
    findings.add("wrong-type", &span, message, fix);
}

fn audit_until(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<Date> {
    fields.value("auditUntil").and_then(|node| scalar::date(node, "auditUntil", findings))
}

fn ports(
    fields: &Fields<'_, '_>,
    what: &str,
    kinds: &Kinds,
    findings: &mut Findings<'_>,
) -> Vec<RangeInclusive<u16>> {
    if kinds.grants {
        let fix = "remove `ports`; a grant opens exactly the ports that the platform uses";
        findings.refuse(fields.entry("ports"), "grant-field", "a rule of grants takes no `ports`", fix);
        return Vec::new();
    }
    let fix = "add `ports`, such as `ports: [ 443 ]`; all of them are `[ \"1-65535\" ]`";
    let Some(node) = fields.required("ports", what, fix, findings) else { return Vec::new() };
    list(node, "ports", findings).iter().filter_map(|item| port(item, findings)).collect()
}

const PORT: &str = "a port or a range, such as 443 or \"8000-8100\"";

/// `443`, `"443"` or `"8000-8100"`.
fn port(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<RangeInclusive<u16>> {
    let Value::Scalar(text, plain) = &node.value else {
        scalar::wrong_type(node, "an entry of `ports`", PORT, findings);
        return None;
    };
    if *plain && matches!(Guess::of(text), Guess::Nothing | Guess::Boolean | Guess::Switch) {
        scalar::wrong_type(node, "an entry of `ports`", PORT, findings);
        return None;
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first.trim_end()), number(last.trim_start())),
        None => (number(text), number(text)),
    };
    let (code, fault, fix) = match (first, last) {
        (Ok(first), Ok(last)) if first <= last => return Some(first..=last),
        (Ok(first), Ok(last)) => ("port-range", "is a reversed range", format!("write \"{last}-{first}\"")),
        (Err(fault), _) | (_, Err(fault)) => ("port", fault.words(), fault.fix(text)),
    };
    findings.add(code, &node.span, format!("port `{}` {fault}", shown(text)), fix);
    None
}

#[derive(Clone, Copy)]
enum PortFault {
    OutOfRange,
    LeadingZero,
    NotDecimal,
}

impl PortFault {
    fn words(self) -> &'static str {
        match self {
            PortFault::OutOfRange => "is out of range",
            PortFault::LeadingZero => "has a leading zero, which YAML 1.1 reads as octal",
            PortFault::NotDecimal => "is no port: ports are plain decimal numbers",
        }
    }

    fn fix(self, text: &str) -> String {
        match self {
            PortFault::OutOfRange => "ports are 1 to 65535; all of them are \"1-65535\"".to_owned(),
            PortFault::LeadingZero => "remove the zero".to_owned(),
            PortFault::NotDecimal => match text.replace("..", "-").replace([':', '/'], "-") {
                range if range != text && range.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                    format!("write a range as \"{range}\"")
                }
                _ if text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') => {
                    "names are not resolved; write the number, such as 443 for https".to_owned()
                }
                _ => "write a number such as 443, or a range such as \"8000-8100\"".to_owned(),
            },
        }
    }
}

fn number(text: &str) -> Result<u16, PortFault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortFault::NotDecimal);
    }
    match text.parse::<u16>() {
        Ok(0) | Err(_) => Err(PortFault::OutOfRange),
        Ok(_) if text.starts_with('0') => Err(PortFault::LeadingZero),
        Ok(port) => Ok(port),
    }
}

fn http(node: &Node<'_>, findings: &mut Findings<'_>) -> Vec<HttpMatch> {
    list(node, "http", findings).iter().filter_map(|item| http_entry(item, findings)).collect()
}

fn http_entry(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<HttpMatch> {
    let known = ["methods", "paths", "upgrade"];
    let fields = Fields::open(node, "an entry of `http`", &known, findings)?;
    if known.iter().all(|field| fields.entry(field).is_none()) {
        let fix = "add `methods`, `paths` or both; to allow every request, leave `http` out";
        findings.add("missing-field", fields.place(), "an `http` entry names `methods` or `paths`", fix);
    }
    let mut methods = Vec::new();
    if let Some(node) = fields.value("methods") {
        methods = texts(node, "methods", findings, method);
    }
    let mut paths = Vec::new();
    if let Some(node) = fields.value("paths") {
        paths = texts(node, "paths", findings, path);
    }
    let upgrades = [(Upgrade::WebSocket.word(), Upgrade::WebSocket)];
    let upgrade = fields.value("upgrade").map(|node| scalar::word(node, "upgrade", &upgrades, findings));
    if upgrade.is_some() {
        let fix = "remove `methods`: a WebSocket begins with GET; write another entry for other requests";
        let message = "an entry for an upgrade takes no `methods`";
        findings.refuse(fields.entry("methods"), "upgrade", message, fix);
    }
    // An unreadable upgrade was reported, and an entry without it would say something else.
    match upgrade {
        Some(None) => None,
        upgrade => Some(HttpMatch { methods, paths, upgrade: upgrade.flatten() }),
    }
}

/// A token (RFC 9110 section 5.6.2), compared exactly: `get` is another method than `GET`.
fn method(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<String> {
    const STANDARD: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
    let upper = text.to_ascii_uppercase();
    let fix = if text == "*" {
        "leave `methods` out to allow every method"
    } else if text.is_empty() || text.len() > 64 || !text.bytes().all(token) {
        "write a method such as GET"
    } else if upper != text && STANDARD.contains(&&*upper) {
        "methods are compared exactly; write it in capitals"
    } else {
        return Some(text.to_owned());
    };
    findings.add("method", span, format!("`{}` is no HTTP method", shown(text)), fix);
    None
}

fn path(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<PathPattern> {
    match PathPattern::parse(text) {
        Ok(path) => Some(path),
        Err(error) => {
            findings.add("path", span, format!("bad path `{}`: {error}", shown(text)), error.fix());
            None
        }
    }
}
