//! What rules demand beside their carriage: `limits`, the options of `tls`, and a visible client address.

use std::ops::Range;

use crate::demands::{ClientAddress, OriginTls, RequestLimit};

use super::{
    fields::{Fields, texts},
    findings::Findings,
    scalar::{self, shown},
    tree::Node,
};

/// Most requests in a second, and most at once.
const MOST: u32 = 1_000_000;

/// Fields of `tls` that are for servers which the proxy verifies.
pub(super) const ORIGIN: [&str; 3] = ["roots", "pins", "clientIdentity"];

/// The field of `tls` that is for clients whose TLS ends here.
pub(super) const CERTIFICATE: &str = "certificate";

/// Fields of ingress rules alone.
pub(super) const INGRESS: [&str; 2] = ["proxyProtocol", "forwarded"];

/// `limits`.
pub(super) fn limits(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<RequestLimit> {
    let known = ["requestsPerSecond", "burst"];
    let fields = Fields::open(fields.value("limits")?, "`limits`", &known, findings)?;
    let number = |field: &'static str, node: &Node<'_>, findings: &mut Findings<'_>| {
        scalar::number(node, field, ("limit", 1..=MOST), findings)
    };
    let fix = "add `requestsPerSecond`, such as `limits: { requestsPerSecond: 100 }`";
    let per_second = fields
        .required("requestsPerSecond", "`limits`", fix, findings)
        .and_then(|node| number("requestsPerSecond", node, findings));
    let burst = fields.value("burst").map(|node| number("burst", node, findings));
    let per_second = per_second?;
    Some(RequestLimit { per_second, burst: burst.unwrap_or(Some(per_second))? })
}

/// What `tls` says of the server; faults were reported.
pub(super) fn origin(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> OriginTls {
    let roots = fields.value("roots").and_then(|node| label(node, "roots", "corporate", findings));
    let pins = fields.value("pins").map(|node| texts(node, "pins", findings, pin));
    let shows = fields.value("clientIdentity");
    let shows = shows.and_then(|node| scalar::boolean(node, "clientIdentity", findings));
    OriginTls { roots, pins: pins.unwrap_or_default(), client_identity: shows.unwrap_or(false) }
}

/// What clients are shown; faults were reported.
pub(super) fn certificate(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<Box<str>> {
    label(fields.value(CERTIFICATE)?, CERTIFICATE, "shop", findings)
}

/// A label, never a file: where roots and certificates lie is for the operator of the proxy to say.
fn label(
    node: &Node<'_>,
    field: &'static str,
    example: &str,
    findings: &mut Findings<'_>,
) -> Option<Box<str>> {
    let text = scalar::text(node, field, findings)?;
    if scalar::is_name(text) {
        return Some(text.into());
    }
    let (of, files) = if field == CERTIFICATE { ("a certificate", "files") } else { (field, "file") };
    let message = format!("`{}` is no label for {of}: labels are 1 to 63 of a-z, 0-9 and `-`", shown(text));
    let fix = format!(
        "write a label, such as `{field}: {example}`; the proxy's configuration says which {files} it stands for"
    );
    findings.add(field, &node.span, message, fix);
    None
}

/// `sha256/` and the Base64 of 32 bytes: 43 characters, of which the last holds four bits, and one `=`.
fn pin(text: &str, span: &Range<usize>, findings: &mut Findings<'_>) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digest = text.strip_prefix("sha256/").and_then(|rest| rest.strip_suffix('='));
    let whole = digest.map(str::as_bytes).is_some_and(|digest| {
        digest.len() == 43
            && digest.iter().copied().all(letter)
            && digest.last().is_some_and(|last| b"AEIMQUYcgkosw048".contains(last))
    });
    if whole {
        return Some(text.to_owned());
    }
    let fix = "write `sha256/` and the 44 Base64 characters of the SHA-256 of a SubjectPublicKeyInfo";
    findings.add("pin", span, format!("`{}` is no pin", shown(text)), fix);
    None
}

/// `proxyProtocol` or `forwarded`; at most one of them.
pub(super) fn client_address(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<ClientAddress> {
    let mut wanted = |kind: ClientAddress| {
        let node = fields.value(kind.word())?;
        scalar::boolean(node, kind.word(), findings)?.then_some(kind)
    };
    let (proxy, forwarded) = (wanted(ClientAddress::ProxyProtocol), wanted(ClientAddress::Forwarded));
    if proxy.is_some() && forwarded.is_some() {
        let message = "`proxyProtocol` and `forwarded` tell the application the same";
        findings.refuse(fields.entry("forwarded"), "client-address", message, "remove one of them");
    }
    proxy.or(forwarded)
}
