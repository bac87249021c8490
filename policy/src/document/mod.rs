//! Policy documents: `apiVersion: sidegate.dev/v1`, YAML or JSON; parsed whole or refused whole.

pub mod cases;
mod demands;
mod ends;
mod fields;
mod findings;
pub mod notes;
mod read;
mod rule;
mod scalar;
mod section;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
mod write;

pub use section::{Section, read_sections};
pub(crate) use write::text as quoted;

use std::ops::{Range, RangeInclusive};

use ipnet::IpNet;

use crate::{
    CanonicalPath, Date, Demands, Diagnostic, HostPattern, PathPattern, Source, SpiffePattern, Upgrade,
    decision::TlsMode, deny_table::Grant,
};

/// Largest source that is read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// A value and the byte range it was written at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Byte range in the document's source.
    pub span: Range<usize>,
}

/// One policy document, valid in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it came from, for diagnostics of later stages (overlaps between documents).
    pub source: Source,
    /// `metadata.name`, `[a-z0-9-]{1,63}`.
    pub name: Spanned<String>,
    /// `metadata.owner`.
    pub owner: Option<String>,
    /// `metadata.description`.
    pub description: Option<String>,
    /// `spec.appliesTo`; `None` when omitted: every workload that loads the file.
    pub applies_to: Option<Vec<SpiffePattern>>,
    /// `Some(last day)` when `spec.mode` is `audit`: audit holds through that day (UTC).
    pub audit_until: Option<Date>,
    /// `spec.probes`.
    pub probes: Vec<Probe>,
    /// `spec.egress`.
    pub egress: Vec<Rule<Destination>>,
    /// `spec.ingress`.
    pub ingress: Vec<Rule<Origin>>,
}

/// A health probe that the platform sends without TLS or identity: `GET` of one path at one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Destination port, 1-65535.
    pub port: u16,
    /// The exact canonical path, without a query.
    pub path: CanonicalPath,
}

/// `action` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Allow (the default).
    Allow,
    /// Deny; always wins.
    Deny,
}

/// `protocol` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS (the default).
    Tls,
    /// HTTP, judged per request.
    Http,
    /// Opaque TCP: server-first and other protocols; the bytes are not looked at.
    Tcp,
    /// Datagrams to addresses.
    Udp,
}

impl Protocol {
    /// The word that documents use.
    pub const fn word(self) -> &'static str {
        match self {
            Protocol::Tls => "tls",
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Whether each request is judged in the connections of an allow rule.
pub(crate) fn judges_requests(protocol: Protocol, tls: TlsMode) -> bool {
    protocol == Protocol::Http || tls == TlsMode::Inspect
}

/// One rule; `T` is [`Destination`] for egress and [`Origin`] for ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<T> {
    /// `name`, unique within its document and direction.
    pub name: Spanned<String>,
    /// `reason`, carried into records and reports.
    pub reason: Option<String>,
    /// `action`.
    pub action: Action,
    /// `to` or `from`: the rule matches when any entry does.
    pub ends: Vec<Spanned<T>>,
    /// `ports`; empty only for a rule of grants.
    pub ports: Vec<RangeInclusive<u16>>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `tls.mode` and `tls.min` after defaults; a deny rule's is irrelevant.
    pub tls: TlsMode,
    /// `limits`, the options of `tls`, `proxyProtocol` and `forwarded`.
    pub demands: Demands,
    /// `http`; empty: any method and path, and no upgrade.
    pub http: Vec<HttpMatch>,
    /// `auditUntil`: this rule's denials are recorded, not enforced, through that day.
    pub audit_until: Option<Date>,
    /// The whole rule in the source.
    pub span: Range<usize>,
}

/// One entry of `to`. Exactly one kind a list entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `hosts`, with `private`.
    Hosts {
        /// The patterns.
        hosts: Vec<HostPattern>,
        /// Answers may be private, ULA or CGNAT.
        private: bool,
    },
    /// `cidrs`, with `except`.
    Cidrs {
        /// Included.
        cidrs: Vec<IpNet>,
        /// Excluded from them.
        except: Vec<IpNet>,
    },
    /// `securityGroups`.
    SecurityGroups(Vec<String>),
    /// `prefixLists`.
    PrefixLists(Vec<String>),
    /// `workloads`.
    Workloads(Vec<SpiffePattern>),
    /// `grants`.
    Grants(Vec<Grant>),
}

/// One entry of `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `workloads`.
    Workloads(Vec<SpiffePattern>),
    /// `cidrs`, with `except`.
    Cidrs {
        /// Included.
        cidrs: Vec<IpNet>,
        /// Excluded from them.
        except: Vec<IpNet>,
    },
    /// `securityGroups`.
    SecurityGroups(Vec<String>),
    /// `prefixLists`.
    PrefixLists(Vec<String>),
}

/// One entry of `http`: both lists must match; an empty list matches everything but upgrades.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMatch {
    /// Exact method tokens; none beside `upgrade`.
    pub methods: Vec<String>,
    /// Path patterns.
    pub paths: Vec<PathPattern>,
    /// The entry is for requests that ask for this, and for no others.
    pub upgrade: Option<Upgrade>,
}

/// Parses every document of a source (YAML streams may hold several, divided by `---`).
///
/// # Errors
/// Every diagnostic of the source at once, in the order of their places; at most 200 and a count of the rest.
/// Any text may be given: time and memory grow with its length only, and texts over 1 MiB are refused unread.
pub fn parse(source: &Source) -> Result<Vec<Document>, Vec<Diagnostic>> {
    read::documents(source)
}

impl Document {
    /// The same policy with every span empty and its source unnamed: for comparing what two texts say.
    #[must_use]
    pub fn without_places(&self) -> Document {
        let mut plain = self.clone();
        plain.source = Source::new("", "");
        plain.name.span = 0..0;
        plain.egress.iter_mut().for_each(Rule::clear_places);
        plain.ingress.iter_mut().for_each(Rule::clear_places);
        plain
    }
}

impl<T> Rule<T> {
    fn clear_places(&mut self) {
        self.span = 0..0;
        self.name.span = 0..0;
        self.ends.iter_mut().for_each(|end| end.span = 0..0);
    }
}
