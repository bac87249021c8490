//! Suffixes under which strangers hold names. A wildcard over one would let anyone in.

use super::{HostName, HostPatternError};

/// Top-level names that no registry sells: RFC 6761, RFC 6762, RFC 8375 (`home.arpa`), and ICANN's `internal`.
const RESERVED: &[&str] = &["internal", "local", "test", "example", "invalid", "localhost", "home.arpa"];

/// Shared hosting that the Public Suffix List does not carry. Any customer gets a name directly under these.
const SHARED: &[&str] = &[
    "blob.core.windows.net",
    "file.core.windows.net",
    "queue.core.windows.net",
    "table.core.windows.net",
    "web.core.windows.net",
    "r2.cloudflarestorage.com",
    "digitaloceanspaces.com",
    "storage.googleapis.com",
];

/// Domains of one owner with shared hosting somewhere below, and an example of it: `**` would reach that too.
const SHARED_BELOW: &[(&str, &str)] = &[
    ("amazonaws.com", "s3.amazonaws.com"),
    ("amazonaws.com.cn", "s3.cn-north-1.amazonaws.com.cn"),
    ("on.aws", "lambda-url.us-east-1.on.aws"),
    ("windows.net", "blob.core.windows.net"),
    ("core.windows.net", "blob.core.windows.net"),
    ("azure.com", "cloudapp.azure.com"),
    ("cloudflarestorage.com", "r2.cloudflarestorage.com"),
    ("fastly.net", "global.ssl.fastly.net"),
    ("ssl.fastly.net", "global.ssl.fastly.net"),
];

/// How many labels at a name's end are no owner's: names that share no more than these have nothing to do with each
/// other (`a.co.uk` and `b.co.uk`, `a.github.io` and `b.github.io`).
pub(crate) fn public_labels(name: &str) -> usize {
    let labels = |suffix: &str| suffix.split('.').count();
    let listed = psl::suffix(name.as_bytes()).map_or(1, |public| {
        let dots = public.as_bytes().iter().filter(|byte| **byte == b'.').count();
        dots + 1
    });
    let below = |shared: &&&str| name.strip_suffix(**shared).is_some_and(|rest| rest.ends_with('.'));
    SHARED.iter().find(|shared| below(shared)).map_or(listed, |shared| listed.max(labels(shared)))
}

/// Refuses a wildcard over `suffix` when strangers hold names that it matches. `deep`: the wildcard is `**`.
pub(super) fn refuse(pattern: &str, suffix: &HostName, deep: bool) -> Result<(), HostPatternError> {
    let name = suffix.as_str();
    if RESERVED.contains(&name) {
        return Ok(());
    }
    let shared_hosting = |suffix: &str| {
        Err(HostPatternError::SharedHosting { pattern: pattern.to_owned(), suffix: suffix.to_owned() })
    };
    if SHARED.contains(&name) {
        return shared_hosting(name);
    }
    if let Some(public) = psl::suffix(name.as_bytes()).filter(|public| public.as_bytes() == name.as_bytes()) {
        return match public.typ() {
            Some(psl::Type::Private) => shared_hosting(name),
            Some(psl::Type::Icann) => {
                Err(HostPatternError::PublicSuffix { pattern: pattern.to_owned(), suffix: name.to_owned() })
            }
            None => Err(HostPatternError::UnknownSuffix(name.to_owned())),
        };
    }
    match shared_below(name).filter(|_| deep) {
        Some(example) => shared_hosting(&example),
        None => Ok(()),
    }
}

fn shared_below(name: &str) -> Option<String> {
    let known = SHARED_BELOW.iter().find(|(parent, _)| *parent == name).map(|(_, below)| (*below).to_owned());
    // Every AWS region has its own S3 below it.
    let region = |provider: &str| {
        name.strip_suffix(provider)
            .and_then(|rest| rest.strip_suffix('.'))
            .filter(|region| !region.contains('.') && region.bytes().any(|byte| byte.is_ascii_digit()))
            .map(|_| format!("s3.{name}"))
    };
    known.or_else(|| region("amazonaws.com")).or_else(|| region("amazonaws.com.cn"))
}
