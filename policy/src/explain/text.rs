//! An explanation as text: the verdict first, then what a person asks next.

use std::fmt;

use crate::{Direction, Observed, Request};

use super::{Explanation, RuleView, TreatmentView, list_name};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.verdict.to_uppercase(), self.request)?;
        if let Some(rule) = &self.rule {
            writeln!(f, "  rule     {rule}")?;
        }
        writeln!(f, "  why      {} ({})", self.meaning, self.reason)?;
        if let Some(treatment) = &self.treatment {
            writeln!(f, "  carried  {treatment}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note     {note}")?;
        }
        for (index, near) in self.near.iter().enumerate() {
            let label = if index == 0 { "near" } else { "" };
            writeln!(f, "  {label:<8} {}: {}", near.rule, near.why)?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            let label = if index == 0 { "checked" } else { "" };
            writeln!(f, "  {label:<8} {}. {}: {}", index + 1, step.check, step.found)?;
        }
        if !self.fix.is_empty() {
            writeln!(f, "  fix      {}", self.fix)?;
        }
        if let Some(suggestion) = &self.suggestion {
            let open = !suggestion.starts_with('#');
            if open {
                writeln!(f, "  rule to add under `spec.{}`:", list_name(self.direction))?;
            }
            for line in suggestion.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for RuleView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({}:{})", self.policy, self.name, self.file, self.line)?;
        match &self.reason {
            Some(reason) => write!(f, " \"{reason}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TreatmentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tls, self.min_tls) {
            ("passthrough", Some(least)) => write!(f, "its own TLS passes through, {least} or newer")?,
            ("originate", _) => f.write_str("plaintext here, TLS 1.3 upstream")?,
            ("inspect", _) => f.write_str("TLS is opened, inspected and made anew")?,
            ("mesh", _) => f.write_str("mutual TLS between workloads")?,
            ("terminate", _) if self.certificate.is_some() => f.write_str("TLS ends here")?,
            ("terminate", _) => f.write_str("TLS ends here, with the workload's certificate")?,
            _ => f.write_str("bytes pass as they are (exempt from TLS 1.3)")?,
        }
        f.write_str(match (self.dial, self.private) {
            ("name", false) => "; dialled by name: resolved here, public addresses only",
            ("name", true) => "; dialled by name: resolved here, private addresses too",
            ("workload", _) => "; dialled as a workload",
            _ => "; dialled at its original destination",
        })?;
        if self.per_request {
            f.write_str("; each request is judged")?;
        }
        self.demands().iter().try_for_each(|demand| write!(f, "; {demand}"))
    }
}

impl TreatmentView {
    /// What the rule demands besides: of requests, of the server, towards it, towards the application.
    pub(crate) fn demands(&self) -> Vec<String> {
        let mut said = Vec::new();
        if let (Some(rate), Some(burst)) = (self.requests_per_second, self.burst) {
            let burst = if burst == rate { String::new() } else { format!(" ({burst} at once)") };
            said.push(format!("at most {rate} requests a second{burst}"));
        }
        said.extend(self.roots.as_ref().map(|label| format!("server verified by the roots `{label}`")));
        if !self.pins.is_empty() {
            said.push(format!("server pinned to {}", self.pins.join(" or ")));
        }
        if self.client_identity {
            said.push("shows the workload's certificate".to_owned());
        }
        said.extend(
            self.certificate.as_ref().map(|label| format!("clients are shown the certificate `{label}`")),
        );
        said.extend(self.client_address.map(|field| format!("client address by `{field}`")));
        said
    }
}

/// `tls api.example.com:443`, `tcp 10.0.0.1:22`, `http GET shop.example.com:80/cart`,
/// `http websocket shop.example.com:80/live`.
pub(super) fn request(request: &Request<'_>) -> String {
    let host = request.host.map(|(_, host)| host.to_string());
    let address = request.address.map(|address| match address {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    });
    let (end, at) = match (host, address) {
        (Some(host), Some(address)) => (host, format!(" at {address}")),
        (Some(one), None) | (None, Some(one)) => (one, String::new()),
        (None, None) => {
            (request.peer.map_or_else(|| "?".to_owned(), |peer| peer.as_str().to_owned()), String::new())
        }
    };
    let protocol = protocol(request.observed);
    let (method, path) = request.http.map_or(("", ""), |http| {
        (http.upgrade.map_or(http.method, |upgrade| upgrade.word()), http.path.as_str())
    });
    let space = if method.is_empty() { "" } else { " " };
    let port = request.port;
    match request.direction {
        Direction::Egress => format!("{protocol} {method}{space}{end}:{port}{path}{at}"),
        Direction::Ingress => format!("{protocol} {method}{space}{path}{space}from {end} to port {port}"),
    }
}

pub(super) fn protocol(observed: Observed) -> &'static str {
    match observed {
        Observed::Tls { .. } => "tls",
        Observed::Http => "http",
        Observed::Opaque => "tcp",
        Observed::Udp => "udp",
    }
}
