//! Hosts in rules: exact names, and wildcards of whole labels that no stranger can register under.

use super::{HostName, HostNameError, shared};

/// A host in a rule: exact, `*.x` (exactly one label) or `**.x` (one or more labels).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.suffix`: one label before the suffix.
    OneLabel(HostName),
    /// `**.suffix`: one or more labels before the suffix.
    AnyDepth(HostName),
}

/// Why a text is no host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// `*` or `**` alone.
    #[error("a bare `{0}` would match every host")]
    Bare(&'static str),
    /// A wildcard over a suffix under which anyone may register a name.
    #[error("`{pattern}` would match names that strangers own: anyone may register under `{suffix}`")]
    PublicSuffix {
        /// The pattern.
        pattern: String,
        /// Its suffix.
        suffix: String,
    },
    /// A wildcard over a suffix that a provider hands out to all its customers.
    #[error("`{pattern}` would match names of other customers: `{suffix}` is shared hosting")]
    SharedHosting {
        /// The pattern.
        pattern: String,
        /// The shared suffix, which may lie below the pattern's.
        suffix: String,
    },
    /// A wildcard over a top-level domain that is neither known nor reserved.
    #[error("`{0}` is not a known registry suffix, so who may register under it is unknown")]
    UnknownSuffix(String),
    /// `api*.x`: a wildcard must be a whole label.
    #[error("`*` stands within a label; a wildcard is a whole label")]
    MidLabel,
    /// `a.*.x`: a wildcard must be the first label.
    #[error("`*` stands in the middle of the name; a wildcard is the first label only")]
    MidName,
    /// `***.x`.
    #[error("`***` is no wildcard")]
    TooManyStars,
    /// A URL, `host:port` or path instead of a host.
    #[error("{0}, not a host name")]
    NotAHost(&'static str),
    /// The name, or the part after the wildcard, is invalid.
    #[error("`{text}` is no host name: {error}")]
    Name {
        /// The faulty name.
        text: String,
        /// Why.
        error: HostNameError,
    },
}

/// How specific a host pattern is; greater is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostSpecificity {
    /// A wildcard: labels in the suffix, then whether it matches exactly one label.
    Wildcard(u8, bool),
    /// An exact name.
    Exact,
}

impl HostPattern {
    /// Parses a pattern of an allow rule.
    ///
    /// # Errors
    /// As [`HostPattern::parse_for_deny`], and wildcards that would let strangers in (public suffixes, shared hosting).
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let pattern = Self::parse_for_deny(text)?;
        match &pattern {
            HostPattern::Exact(_) => {}
            HostPattern::OneLabel(suffix) => shared::refuse(text, suffix, false)?,
            HostPattern::AnyDepth(suffix) => shared::refuse(text, suffix, true)?,
        }
        Ok(pattern)
    }

    /// Parses a pattern of a deny rule, which may cover a whole public suffix: `**.zip`.
    ///
    /// # Errors
    /// Bare wildcards, wildcards in the middle of a label or name, and invalid names.
    pub fn parse_for_deny(text: &str) -> Result<Self, HostPatternError> {
        if let Some(what) = not_a_host(text) {
            return Err(HostPatternError::NotAHost(what));
        }
        match text {
            "*" | "*." => return Err(HostPatternError::Bare("*")),
            "**" | "**." => return Err(HostPatternError::Bare("**")),
            _ => {}
        }
        let (wildcard, name) = match text.split_once('.') {
            Some((stars @ ("*" | "**"), rest)) => (stars, rest),
            _ => ("", text),
        };
        check_stars(name)?;
        let name =
            HostName::parse(name).map_err(|error| HostPatternError::Name { text: name.to_owned(), error })?;
        Ok(match wildcard {
            "*" => HostPattern::OneLabel(name),
            "**" => HostPattern::AnyDepth(name),
            _ => HostPattern::Exact(name),
        })
    }

    /// Whether the host matches. Labels are compared whole: `*.ok.test` does not match `evilok.test` or `ok.test`.
    pub fn matches(&self, host: &HostName) -> bool {
        let before = |suffix: &HostName| {
            host.as_str().strip_suffix(suffix.as_str()).and_then(|rest| rest.strip_suffix('.'))
        };
        match self {
            HostPattern::Exact(name) => name == host,
            HostPattern::OneLabel(suffix) => before(suffix).is_some_and(|label| !label.contains('.')),
            HostPattern::AnyDepth(suffix) => before(suffix).is_some(),
        }
    }

    /// How specific it is: exact, else the longer suffix, else `*` before `**`.
    pub fn specificity(&self) -> HostSpecificity {
        let labels = |suffix: &HostName| u8::try_from(suffix.labels().count()).unwrap_or(u8::MAX);
        match self {
            HostPattern::Exact(_) => HostSpecificity::Exact,
            HostPattern::OneLabel(suffix) => HostSpecificity::Wildcard(labels(suffix), true),
            HostPattern::AnyDepth(suffix) => HostSpecificity::Wildcard(labels(suffix), false),
        }
    }

    /// The exact name, or the part after the wildcard.
    pub fn name(&self) -> &HostName {
        match self {
            HostPattern::Exact(name) | HostPattern::OneLabel(name) | HostPattern::AnyDepth(name) => name,
        }
    }
}

impl HostPatternError {
    /// How to mend it.
    pub fn fix(&self) -> String {
        match self {
            HostPatternError::Bare(_) => {
                "name the hosts, or a domain you trust whole, such as `*.example.com`".to_owned()
            }
            HostPatternError::PublicSuffix { suffix, .. } => {
                format!("name the registered domain, such as `*.example.{suffix}`")
            }
            HostPatternError::SharedHosting { suffix, .. } => {
                format!("name each host in full, such as `my-own.{suffix}`")
            }
            HostPatternError::UnknownSuffix(suffix) => {
                format!("add a label, such as `*.example.{suffix}`, or name each host in full")
            }
            HostPatternError::MidLabel => {
                "name the hosts in full, or let `*` stand for the whole first label".to_owned()
            }
            HostPatternError::MidName => {
                "write `*.` (one label) or `**.` (any depth) at the start only".to_owned()
            }
            HostPatternError::TooManyStars => "write `*.` for one label or `**.` for any depth".to_owned(),
            HostPatternError::NotAHost(_) => {
                "write only the host; ports stand in `ports`, paths in `http`".to_owned()
            }
            HostPatternError::Name { text, error } => name_fix(text, *error),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Exact(name) => write!(f, "{name}"),
            HostPattern::OneLabel(suffix) => write!(f, "*.{suffix}"),
            HostPattern::AnyDepth(suffix) => write!(f, "**.{suffix}"),
        }
    }
}

fn not_a_host(text: &str) -> Option<&'static str> {
    let port = |text: &str| {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.contains([':', '[']) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    if text.contains("://") {
        Some("this is a URL")
    } else if text.contains('/') && text.parse::<ipnet::IpNet>().is_err() {
        Some("this has a path")
    } else if port(text) {
        Some("this is a host with a port")
    } else {
        None
    }
}

/// Stars that remain once a leading wildcard label is taken off.
fn check_stars(name: &str) -> Result<(), HostPatternError> {
    match name.split('.').find(|label| label.contains('*')) {
        None => Ok(()),
        Some("*" | "**") => Err(HostPatternError::MidName),
        Some(label) if label.bytes().all(|byte| byte == b'*') => Err(HostPatternError::TooManyStars),
        Some(_) => Err(HostPatternError::MidLabel),
    }
}

fn name_fix(text: &str, error: HostNameError) -> String {
    match error {
        HostNameError::Address if text.contains('/') || text.parse::<std::net::IpAddr>().is_ok() => {
            let prefix = match text.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(_)) => "/32",
                Ok(std::net::IpAddr::V6(_)) => "/128",
                Err(_) => "",
            };
            format!("write it as `cidrs: [ \"{text}{prefix}\" ]`")
        }
        HostNameError::Address => "use `cidrs` for addresses".to_owned(),
        HostNameError::Character => match HostName::suggest_a_labels(text) {
            Some(name) if !text.is_ascii() => format!("write its A-label form: `{name}`"),
            _ if text.contains('_') => "host names have no underscore; check the name".to_owned(),
            _ => "write letters, digits, hyphens and dots only".to_owned(),
        },
        HostNameError::ALabel => "check the `xn--` label: it must be what an IDNA encoder gives".to_owned(),
        HostNameError::Empty => "write a host name, such as `api.example.com`".to_owned(),
        HostNameError::EmptyLabel => "remove the extra dot".to_owned(),
        HostNameError::TooLong | HostNameError::LabelTooLong => {
            "DNS allows 63 bytes a label and 253 in all; check the name".to_owned()
        }
        HostNameError::Hyphen => "remove the hyphen at the label's edge".to_owned(),
    }
}
