//! The sidecar's configuration file: parsed whole or refused whole, every error with its place and fix.

mod identity;
mod inbound;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, Serializer};
use sidegate_policy::{
    Diagnostic, HostName, Source, SpiffeId,
    document::{Section, read_sections},
};

pub use self::inbound::Inbound;
use crate::{
    dns::ResolvConf,
    identity::IdentitySource,
    mesh::MESH_PORT,
    reception::CertificateFiles,
    redirect::{DNS_PORT, INBOUND_PORT, OUTBOUND_PORT, PROXY_UID},
    settings::Settings,
};

/// Everything that `sidegate-proxy serve` can be told, with the defaults filled in.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Policy files and folders. Relative paths start at the configuration file's folder.
    pub policies: Vec<PathBuf>,
    /// The workload's SPIFFE ID: chooses the policies that apply, and is written into records.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_option")]
    pub workload: Option<SpiffeId>,
    /// Where its X.509-SVID comes from, and whom it believes; `None`: it has no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentitySource>,
    /// Files of root certificates, by the label that rules name them by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub roots: BTreeMap<String, PathBuf>,
    /// Files of certificates for clients, by the label that rules name them by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, CertificateFiles>,
    /// What inspection writes for the workload; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspection: Option<InspectionFiles>,
    /// Which workloads are where; `None`: none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<PathBuf>,
    /// Ports and addresses.
    pub listen: Listen,
    /// What is done with connections towards the workload.
    pub inbound: Inbound,
    /// The admin socket; `None`: there is none.
    pub admin_socket: Option<PathBuf>,
    /// Where synthetic addresses are kept; `None`: only in memory.
    pub state: Option<PathBuf>,
    /// Where access records go.
    #[serde(serialize_with = "shown")]
    pub access_log: Target,
    /// The program's own log, on standard error.
    pub log: Log,
    /// What the proxy has to do with the redirect rules.
    pub redirect: Redirect,
    /// Everything the pipeline is told.
    #[serde(skip)]
    pub settings: Settings,
}

/// What inspection writes for the workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectionFiles {
    /// The public roots and the inspection's own authority, PEM, readable by everybody.
    pub bundle: PathBuf,
}

/// Ports and addresses. Port 0 takes a free one, which the start line names.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Listen {
    /// Redirected TCP, on 127.0.0.1 and ::1.
    pub outbound: u16,
    /// Redirected TCP towards the workload, on every address.
    pub inbound: u16,
    /// Connections of the mesh, on every address.
    pub mesh: u16,
    /// DNS over UDP and TCP, on 127.0.0.1 and ::1.
    pub dns: u16,
    /// `/ready`.
    pub ready: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `-`.
    Stdout,
    /// A file that is appended to.
    File(PathBuf),
}

/// The program's own log.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Log {
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what should worry somebody.
    Warn,
    /// And what the proxy does.
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

/// What the proxy has to do with the redirect rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    /// Who puts them in place.
    pub rules: Rules,
    /// The user whose own traffic they let out.
    pub uid: u32,
}

/// Who puts the redirect rules in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// `sidegate-proxy init` did before; the proxy keeps them from then on, where it has CAP_NET_ADMIN.
    Expect,
    /// The proxy does, and restores them when somebody changes them. Needs CAP_NET_ADMIN.
    Keep,
    /// Nobody: applications are led to the proxy by other means.
    None,
}

const FIELDS: &[&str] = &[
    "apiVersion",
    "kind",
    "policies",
    "workload",
    "identity",
    "roots",
    "certificates",
    "inspection",
    "peers",
    "listen",
    "inbound",
    "admin",
    "state",
    "accessLog",
    "log",
    "redirect",
    "workers",
    "resolvers",
    "dns",
    "tls",
    "limits",
    "timeouts",
];
const KIND: &str = "ProxyConfig";
const DAY: u64 = 86_400;

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file can't be read, or every diagnostic at once.
    pub fn load(path: &Path) -> Result<Config, Vec<Diagnostic>> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&Source::new(name, text), path.parent().unwrap_or(Path::new(""))),
            Err(error) => {
                let fix = "check that it exists and that the proxy's user may read it";
                let message = format!("can't be read: {error}");
                Err(vec![Diagnostic::new(&Source::new(name, ""), "unreadable", 0..0, message, fix)])
            }
        }
    }

    /// Parses a source whose relative paths start at `folder`.
    ///
    /// # Errors
    /// Every diagnostic at once.
    pub fn parse(source: &Source, folder: &Path) -> Result<Config, Vec<Diagnostic>> {
        read_sections(source, KIND, FIELDS, |root| build(root, folder))
    }

    /// Takes the Workload API that the environment names where the configuration names no source of an identity.
    pub(super) fn fill_identity(&mut self, address: Option<String>) {
        let Some(address) = address.filter(|_| self.identity.is_none()) else { return };
        match identity::of_environment(self.workload.as_ref(), &address) {
            Ok(endpoint) => self.identity = Some(IdentitySource::WorkloadApi(endpoint)),
            Err(why) => tracing::warn!("{why}"),
        }
    }

    /// Takes resolvers and search domains from the system's file where the configuration names none.
    pub(super) fn fill_from(&mut self, found: ResolvConf) {
        let Settings { resolvers, dns_search, .. } = &mut self.settings;
        if resolvers.is_empty() {
            *resolvers = found.servers;
        }
        if dns_search.is_empty() {
            *dns_search = found.search;
        }
    }
}

fn build(root: &Section<'_, '_, '_>, folder: &Path) -> Option<Config> {
    let path = |text: &str| (!text.is_empty()).then(|| folder.join(text));
    root.require("apiVersion", KIND, "add `apiVersion: sidegate.dev/v1`");
    root.require("kind", KIND, "add `kind: ProxyConfig`");
    root.require(
        "policies",
        KIND,
        "name the policy files or folders: `policies: [ /etc/sidegate/policies ]`",
    );
    root.parsed("apiVersion", "write `sidegate.dev/v1`", |text| (text == "sidegate.dev/v1").then_some(()));
    root.parsed("kind", "write `ProxyConfig`", |text| (text == KIND).then_some(()));
    let target = |text: &str| if text == "-" { Some(Target::Stdout) } else { path(text).map(Target::File) };
    let spiffe_id = "write a SPIFFE ID, such as spiffe://example.org/ns/pay/sa/api";
    let admin = root.section("admin", &["socket"]);
    let workload = root.parsed("workload", spiffe_id, |text| SpiffeId::parse(text).ok());
    let identity = identity::read(root, folder, workload.as_ref());
    Some(Config {
        peers: peers(root, folder),
        identity,
        roots: root.map("roots", "write a path", path).unwrap_or_default(),
        certificates: certificates(root, folder),
        inspection: root.section("inspection", &["bundle"]).and_then(|section| {
            section.require(
                "bundle",
                "inspection",
                "name the file that the workload reads: `bundle: /roots/ca.pem`",
            );
            section.parsed("bundle", "write a path", path).map(|bundle| InspectionFiles { bundle })
        }),
        policies: root.list("policies", "write a path", path).unwrap_or_default(),
        workload,
        listen: listen(root),
        inbound: inbound::read(root),
        admin_socket: admin.and_then(|admin| admin.parsed("socket", "write a path", path)),
        state: root.parsed("state", "write a folder's path", path),
        access_log: root.parsed("accessLog", "write `-` or a path", target).unwrap_or(Target::Stdout),
        log: log(root),
        redirect: redirect(root),
        settings: settings(root),
    })
}

/// Certificates for clients, with their keys.
fn certificates(root: &Section<'_, '_, '_>, folder: &Path) -> BTreeMap<String, CertificateFiles> {
    let path = |text: &str| (!text.is_empty()).then(|| folder.join(text));
    let files = |section: &Section<'_, '_, '_>| {
        section.require(
            "certificate",
            "a certificate",
            "name the chain's file (PEM): `certificate: shop.crt`",
        );
        section.require("key", "a certificate", "name the private key's file (PEM): `key: shop.key`");
        let file = |name| section.parsed(name, "write a path", path);
        let (certificate, key) = (file("certificate"), file("key"));
        Some(CertificateFiles { certificate: certificate?, key: key? })
    };
    let sections = root.section_map("certificates", "a certificate", &["certificate", "key"]);
    let read = |(label, section): (String, Section<'_, '_, '_>)| Some((label, files(&section)?));
    sections.unwrap_or_default().into_iter().filter_map(read).collect()
}

/// The peers file. Without an identity nobody could be reached by it.
fn peers(root: &Section<'_, '_, '_>, folder: &Path) -> Option<PathBuf> {
    let peers = root.parsed("peers", "write a path", |text| (!text.is_empty()).then(|| folder.join(text)));
    if peers.is_some() {
        let fix = "name this workload's certificate, key and bundle: peers are reached over mutual TLS";
        root.require("identity", "a configuration with `peers`", fix);
    }
    peers
}

fn listen(root: &Section<'_, '_, '_>) -> Listen {
    let section = root.section("listen", &["outbound", "inbound", "mesh", "dns", "ready", "metrics"]);
    let port = |name| section.as_ref()?.number(name, 0..=65_535).and_then(|port| u16::try_from(port).ok());
    let fix = "write an address with a port, such as \"[::]:15021\" or \"127.0.0.1:15021\"";
    let address = |name| section.as_ref()?.parsed(name, fix, |text| text.parse().ok());
    let any = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    Listen {
        outbound: port("outbound").unwrap_or(OUTBOUND_PORT),
        inbound: port("inbound").unwrap_or(INBOUND_PORT),
        mesh: port("mesh").unwrap_or(MESH_PORT),
        dns: port("dns").unwrap_or(DNS_PORT),
        ready: address("ready").unwrap_or(any(15021)),
        metrics: address("metrics").unwrap_or(any(15020)),
    }
}

fn log(root: &Section<'_, '_, '_>) -> Log {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    let section = root.section("log", &["format", "level"]);
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let levels = [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace)];
    Log {
        format: section.as_ref().and_then(|log| log.word("format", &formats)).unwrap_or(LogFormat::Json),
        level: section.as_ref().and_then(|log| log.word("level", &levels)).unwrap_or(Info),
    }
}

fn redirect(root: &Section<'_, '_, '_>) -> Redirect {
    let section = root.section("redirect", &["rules", "uid"]);
    let words = [("expect", Rules::Expect), ("keep", Rules::Keep), ("none", Rules::None)];
    let uid = section.as_ref().and_then(|redirect| redirect.number("uid", 1..=u64::from(u32::MAX)));
    Redirect {
        rules: section.as_ref().and_then(|redirect| redirect.word("rules", &words)).unwrap_or(Rules::Expect),
        uid: uid.and_then(|uid| u32::try_from(uid).ok()).unwrap_or(PROXY_UID),
    }
}

fn settings(root: &Section<'_, '_, '_>) -> Settings {
    let limits = root
        .section("limits", &["connections", "connectionsPerSource", "descriptorReserve", "classifyBytes"]);
    let limit = |name, range, default: usize| {
        let found = limits.as_ref().and_then(|limits| limits.number(name, range));
        found.and_then(|found| usize::try_from(found).ok()).unwrap_or(default)
    };
    let timeouts = root.section("timeouts", &["classify", "connect", "idle", "drain"]);
    let fix = "write a number with `ms`, `s`, `m` or `h`, from 1ms to 24h, such as 10s";
    let timeout = |name, default| {
        timeouts.as_ref().and_then(|timeouts| timeouts.parsed(name, fix, duration)).unwrap_or(default)
    };
    let dns = root.section("dns", &["denied", "search", "namesPerMinute"]);
    let dns = dns.as_ref();
    let tls = root.section("tls", &["allowEch"]);
    let by_default = Settings::default();
    let workers = root.number("workers", 1..=256).and_then(|found| usize::try_from(found).ok());
    let names = dns.and_then(|dns| dns.number("namesPerMinute", 1..=1_000_000));
    let resolver = "write an IP address, with a port where it is not 53: \"10.0.0.2\", \"10.0.0.2:5353\"";
    let host = "write a domain name, such as svc.cluster.local";
    Settings {
        workers: workers.unwrap_or(by_default.workers),
        classify_timeout: timeout("classify", by_default.classify_timeout),
        classify_bytes: limit("classifyBytes", 1024..=1 << 20, by_default.classify_bytes),
        connect_timeout: timeout("connect", by_default.connect_timeout),
        idle_timeout: timeout("idle", by_default.idle_timeout),
        drain_timeout: timeout("drain", by_default.drain_timeout),
        connections: limit("connections", 1..=1 << 20, by_default.connections),
        connections_per_source: limit("connectionsPerSource", 1..=1 << 20, by_default.connections_per_source),
        descriptor_reserve: limit("descriptorReserve", 16..=1 << 16, by_default.descriptor_reserve),
        resolvers: root.list("resolvers", resolver, address_of_resolver).unwrap_or_default(),
        dns_denied_nxdomain: dns
            .and_then(|dns| dns.word("denied", &[("refused", false), ("nxdomain", true)]))
            .unwrap_or(by_default.dns_denied_nxdomain),
        dns_search: dns
            .and_then(|dns| dns.list("search", host, |text| HostName::parse(text).ok()))
            .unwrap_or_default(),
        dns_names_per_minute: names
            .and_then(|found| usize::try_from(found).ok())
            .unwrap_or(by_default.dns_names_per_minute),
        allow_ech: tls.and_then(|tls| tls.boolean("allowEch")).unwrap_or(by_default.allow_ech),
    }
}

fn address_of_resolver(text: &str) -> Option<SocketAddr> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).ok();
    bare.or_else(|| text.parse().ok()).filter(|address| address.port() != 0 && !address.ip().is_unspecified())
}

/// `250ms`, `5s`, `2m`, `1h`; more than nothing and at most a day.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let millis = match text.get(digits..)? {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).filter(|millis| (1..=DAY * 1000).contains(millis)).map(Duration::from_millis)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("-"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

fn shown<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn shown_option<S: Serializer>(value: &Option<SpiffeId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&value.as_ref().map_or("", |id| id.as_str()))
}

#[cfg(test)]
mod tests;
