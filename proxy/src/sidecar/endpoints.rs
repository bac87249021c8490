//! What `/ready`, `/metrics` and the admin socket answer. Nothing here changes anything, and secrets are never shown.

use std::{net::IpAddr, sync::Arc};

use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use serde_json::json;
use sidegate_certs::UnixTime;
use sidegate_policy::{
    Arrival, CanonicalPath, Direction, HostEvidence, HostName, Observed, Request, request::HttpFacts,
};

use super::{
    config::Config,
    status::Status,
    web::{Answer, Asked, Reply},
};
use crate::{
    clock::today,
    connection::explain::explain,
    identity::unconfigured,
    metrics::verdict_word,
    peers,
    server::{Connections, Gate},
};

/// What the answers are drawn from.
pub(super) struct Sources {
    pub(super) status: Arc<Status>,
    pub(super) gate: Arc<Gate>,
    pub(super) config: Config,
    pub(super) connections: Connections,
    pub(super) metrics: PrometheusHandle,
}

/// `/ready` alone.
pub(super) fn readiness(sources: Arc<Sources>) -> Answer {
    Arc::new(move |asked| match asked.path {
        "/ready" => ready(&sources),
        _ => Reply::text(404, "/ready is here\n"),
    })
}

/// `/metrics` alone.
pub(super) fn scrape(sources: Arc<Sources>) -> Answer {
    Arc::new(move |asked| match asked.path {
        "/metrics" => metrics(&sources),
        _ => Reply::text(404, "/metrics is here\n"),
    })
}

/// Everything.
pub(super) fn admin(sources: Arc<Sources>) -> Answer {
    Arc::new(move |asked| match asked.path {
        "/ready" => ready(&sources),
        "/metrics" => metrics(&sources),
        "/config" => Reply::json(200, &effective(&sources.config)),
        "/policy" => policy(&sources),
        "/certs" => certs(&sources),
        "/peers" => peers(&sources),
        "/connections" => connections(&sources),
        "/explain" => explanation(&sources, asked),
        _ => Reply::text(
            404,
            "here are /ready, /metrics, /config, /policy, /certs, /peers, /connections and /explain\n",
        ),
    })
}

fn ready(sources: &Sources) -> Reply {
    let readiness = sources.status.readiness();
    Reply::json(if readiness.ready { 200 } else { 503 }, &readiness)
}

fn metrics(sources: &Sources) -> Reply {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Reply { status: 200, kind, body: sources.metrics.render() }
}

fn policy(sources: &Sources) -> Reply {
    let (applied, last_reload) = sources.status.policy();
    Reply::json(200, &json!({ "applied": applied, "lastReload": last_reload }))
}

fn certs(sources: &Sources) -> Reply {
    let identities = sources.status.identities();
    Reply::json(200, &identities.map_or_else(unconfigured, |known| known.tell(UnixTime::now())))
}

fn peers(sources: &Sources) -> Reply {
    let known = sources.gate.policies.peers();
    let told = sources.status.peers().map_or_else(peers::unconfigured, |told| told.tell(&known));
    Reply::json(200, &told)
}

fn connections(sources: &Sources) -> Reply {
    let connections = sources.connections.tell();
    Reply::json(200, &json!({ "count": connections.len(), "connections": connections }))
}

/// The configuration with every default filled in.
pub(super) fn effective(config: &Config) -> serde_json::Value {
    let settings = &config.settings;
    json!({
        "config": config,
        "workers": settings.workers,
        "resolvers": settings.resolvers,
        "dns": {
            "denied": if settings.dns_denied_nxdomain { "nxdomain" } else { "refused" },
            "search": settings.dns_search.iter().map(HostName::as_str).collect::<Vec<_>>(),
            "namesPerMinute": settings.dns_names_per_minute,
        },
        "tls": { "allowEch": settings.allow_ech },
        "limits": {
            "connections": settings.connections,
            "connectionsPerSource": settings.connections_per_source,
            "descriptorReserve": settings.descriptor_reserve,
            "classifyBytes": settings.classify_bytes,
        },
        "timeoutsMs": {
            "classify": settings.classify_timeout.as_millis(),
            "connect": settings.connect_timeout.as_millis(),
            "idle": settings.idle_timeout.as_millis(),
            "drain": settings.drain_timeout.as_millis(),
        },
    })
}

const USAGE: &str = "/explain?host=HOST|ip=ADDRESS&port=N[&protocol=tls|http|tcp|udp][&method=M&path=P]\n";

/// A judgement of the policies that are loaded, without any traffic.
fn explanation(sources: &Sources, asked: &Asked<'_>) -> Reply {
    match Question::parse(asked.query) {
        Ok(question) => Reply::json(200, &question.put(sources)),
        Err(why) => Reply::text(400, format!("{why}\n{USAGE}")),
    }
}

#[derive(Debug)]
struct Question {
    host: Option<HostName>,
    ip: Option<IpAddr>,
    port: u16,
    protocol: String,
    http: Option<(String, CanonicalPath)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    verdict: &'static str,
    reason: &'static str,
    policy: Option<String>,
    rule: Option<String>,
    explanation: Option<String>,
    generation: u64,
}

impl Question {
    fn parse(query: &str) -> Result<Question, String> {
        let (mut host, mut ip, mut port, mut method, mut path) = (None, None, None, None, None);
        let mut protocol = "tls".to_owned();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "host" => host = Some(HostName::parse(value).map_err(|error| format!("`host`: {error}"))?),
                "ip" => {
                    ip = Some(
                        value.parse::<IpAddr>().map_err(|error| format!("`ip`: {error}"))?.to_canonical(),
                    )
                }
                "port" => port = value.parse().ok().filter(|port| *port != 0),
                "protocol" if ["tls", "http", "tcp", "udp"].contains(&value) => protocol = value.to_owned(),
                "method" => method = Some(value.to_owned()),
                "path" => {
                    path = Some(CanonicalPath::parse(value).map_err(|error| format!("`path`: {error}"))?)
                }
                _ => return Err(format!("`{}` is not understood", name.escape_default())),
            }
        }
        if host.is_none() && ip.is_none() {
            return Err("`host` or `ip` is missing".to_owned());
        }
        let port = port.ok_or("`port` is missing or no port")?;
        Ok(Question { host, ip, port, protocol, http: method.zip(path) })
    }

    fn put(&self, sources: &Sources) -> Explained {
        let (evidence, observed) = match self.protocol.as_str() {
            "tls" => (HostEvidence::Sni, Observed::Tls { offers_tls13: true, ech: false }),
            "http" => (HostEvidence::HttpAuthority, Observed::Http),
            "udp" => (HostEvidence::Synthetic, Observed::Udp),
            _ => (HostEvidence::Synthetic, Observed::Opaque),
        };
        let (set, peers) = (sources.gate.policies.current(), sources.gate.policies.peers());
        let decision = set.decide(&Request {
            direction: Direction::Egress,
            host: self.host.as_ref().map(|host| (evidence, host)),
            address: self.ip,
            port: self.port,
            observed,
            peer: self.ip.and_then(|ip| peers.at(ip)).map(|peer| &peer.id),
            arrival: Arrival::Plain,
            http: self.http.as_ref().map(|(method, path)| HttpFacts {
                method,
                path,
                upgrade: None,
                session: true,
            }),
            today: today(),
        });
        let rule = decision.rule.map(|rule| set.rule(rule));
        Explained {
            verdict: verdict_word(decision.verdict),
            reason: decision.reason.word(),
            policy: rule.map(|rule| rule.policy.to_string()),
            rule: rule.map(|rule| rule.name.to_string()),
            explanation: explain(&set, &decision),
            generation: decision.generation.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_understood_or_say_why_not() {
        let question = Question::parse("host=API.example.com&port=443").unwrap();
        assert_eq!(question.host.expect("a host").as_str(), "api.example.com");
        for (query, why) in [
            ("port=443", "`host` or `ip`"),
            ("host=a.example", "`port`"),
            ("host=a.example&port=0", "`port`"),
            ("ip=1.2.3&port=1", "`ip`"),
            ("host=a..b&port=1", "`host`"),
            ("host=a.example&port=1&colour=red", "`colour` is not understood"),
        ] {
            let error = Question::parse(query).expect_err(query);
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
