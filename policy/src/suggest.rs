//! The smallest rules that would allow what was refused, as YAML to paste.

mod proposals;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    net::IpAddr,
};

use crate::{
    Direction, HostName, Observed, Reason, Request, SpiffeId, Treatment, Upgrade,
    decision::{Dial, TlsMode},
    deny_table::{Grant, denied_answer, denied_destination},
    document::quoted,
};

pub use proposals::Proposals;

/// One list item of `spec.egress` or `spec.ingress` that allows the request and as little else as can be, as YAML
/// with a final newline. Where no rule can open the destination, a comment that says so.
///
/// A deny rule that matches the request goes on to win.
pub fn suggest_rule(request: &Request<'_>) -> String {
    match Proposal::of(request) {
        Ok(proposal) => proposal.rule(),
        Err(hopeless) => format!("# {hopeless}\n"),
    }
}

/// Why no rule can allow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hopeless {
    /// It names neither a host nor an address.
    Nameless,
    /// A datagram by name alone.
    DatagramByName,
    /// The fixed table denies the destination, and no grant opens it.
    Closed(Reason),
    /// The build does not carry out what the rule would have to ask for.
    NotBuilt,
}

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hopeless::Nameless => {
                f.write_str("no rule can allow this: it names neither a host nor an address")
            }
            Hopeless::DatagramByName => f.write_str(
                "no rule by name can allow datagrams, which carry none: allow the address with `cidrs` and `protocol: udp`",
            ),
            Hopeless::NotBuilt => f.write_str(
                "no rule that this build carries out allows this: workloads are reached over the mesh",
            ),
            Hopeless::Closed(reason) => {
                write!(f, "no rule opens this destination ({reason}): {}", reason.meaning())
            }
        }
    }
}

/// A rule that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    key: Key,
    /// Empty only for grants.
    ports: BTreeSet<u16>,
    /// The name leads to addresses that `private: true` opens.
    private: bool,
    min_tls12: bool,
    ech: bool,
    /// What requests ask for, and their paths.
    http: BTreeSet<(Wanted, String)>,
}

/// What a request asks for beside its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Method(String),
    Upgrade(Upgrade),
}

/// What sets one proposal apart from the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    egress: bool,
    end: End,
    protocol: Carried,
    /// The name was not shown by the connection itself.
    guessed: bool,
}

/// What the rule's `to` or `from` would name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Grant(Grant),
    Workload(SpiffeId),
    Host(HostName),
    Address(IpAddr),
}

/// `protocol` of a rule, in the order in which rules are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Carried {
    Tls,
    Http,
    Tcp,
    Udp,
}

impl Proposal {
    /// The rule that would allow a request.
    ///
    /// # Errors
    /// No rule would.
    pub fn of(request: &Request<'_>) -> Result<Proposal, Hopeless> {
        let end = End::of(request)?;
        let granted = matches!(end, End::Grant(_));
        let refused = request.address.and_then(|address| denied_answer(address, false));
        Ok(Proposal {
            private: matches!(end, End::Host(_)) && refused == Some(Reason::AddressPrivate),
            ports: (!granted).then_some(request.port).into_iter().collect(),
            min_tls12: matches!(request.observed, Observed::Tls { offers_tls13: false, .. }),
            ech: matches!(request.observed, Observed::Tls { ech: true, .. }),
            http: request
                .http
                .map(|http| {
                    let asked =
                        http.upgrade.map_or_else(|| Wanted::Method(http.method.to_owned()), Wanted::Upgrade);
                    (asked, http.path.as_str().to_owned())
                })
                .into_iter()
                .collect(),
            key: Key {
                egress: request.direction == Direction::Egress,
                protocol: if granted { Carried::Tls } else { Carried::of(request.observed) },
                end,
                guessed: false,
            },
        })
    }

    /// As [`Proposal::of`], for a build that carries out some treatments only: HTTP whose requests it does not judge is
    /// proposed as what it carries, bytes that are not looked at.
    ///
    /// # Errors
    /// No rule would, or none that the build carries out.
    pub fn for_build(
        request: &Request<'_>,
        carried_out: impl Fn(Treatment) -> bool,
    ) -> Result<Proposal, Hopeless> {
        let mut proposal = Proposal::of(request)?;
        if proposal.key.protocol == Carried::Http && !carried_out(proposal.treatment()) {
            proposal.key.protocol = Carried::Tcp;
            proposal.http.clear();
        }
        if carried_out(proposal.treatment()) { Ok(proposal) } else { Err(Hopeless::NotBuilt) }
    }

    /// With `private: true` where that is so and it names a host.
    #[must_use]
    pub fn as_private_as(mut self, private: bool) -> Proposal {
        self.private |= private && matches!(self.key.end, End::Host(_));
        self
    }

    /// Of a name that the connection itself did not show: never one rule with what others showed.
    #[must_use]
    pub fn guessed(mut self) -> Proposal {
        self.key.guessed = true;
        self
    }

    /// One list item at the margin, as YAML with a final newline.
    pub fn rule(&self) -> String {
        self.yaml(&self.name())
    }

    fn treatment(&self) -> Treatment {
        let tls = match (&self.key.end, self.key.protocol) {
            (End::Grant(_), _) => TlsMode::None,
            (End::Workload(_), Carried::Tls | Carried::Http | Carried::Tcp) => TlsMode::Mesh,
            (_, Carried::Tls) => TlsMode::Passthrough { min_tls12: self.min_tls12 },
            _ => TlsMode::None,
        };
        let dial = match &self.key.end {
            End::Host(_) => Dial::Name,
            End::Workload(_) => Dial::Workload,
            End::Grant(_) | End::Address(_) => Dial::OriginalDestination,
        };
        let per_request = self.key.protocol == Carried::Http;
        Treatment { dial, tls, private: self.private, per_request, demands: false }
    }

    /// Letters, digits and hyphens, at most 63 of them.
    fn name(&self) -> String {
        let text = match &self.key.end {
            End::Grant(grant) => return grant.word().to_owned(),
            End::Workload(peer) => peer.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
            End::Host(host) => host.to_string(),
            End::Address(address) => address.to_string(),
        };
        let port = self.ports.first().map(|port| format!("-{port}")).unwrap_or_default();
        format!("{}{port}", simple(&text, LONGEST_NAME - port.len()).unwrap_or_else(|| "allow".to_owned()))
    }

    /// A list item at the margin.
    fn yaml(&self, name: &str) -> String {
        let list = if self.key.egress { "to" } else { "from" };
        let mut rule = format!("- name: {name}\n  {list}: [ {{ {} }} ]\n", self.entry());
        // Writing to a String cannot fail.
        if !self.ports.is_empty() {
            let _ = writeln!(rule, "  ports: [ {} ]", listed(&self.ports));
            self.carriage(&mut rule);
        }
        rule
    }

    fn entry(&self) -> String {
        match &self.key.end {
            End::Grant(grant) => format!("grants: [ {} ]", grant.word()),
            End::Workload(peer) => format!("workloads: [ \"{}\" ]", peer.as_str()),
            End::Host(host) => {
                format!(
                    "hosts: [ {} ]{}",
                    quoted(host.as_str()),
                    if self.private { ", private: true" } else { "" }
                )
            }
            End::Address(address) => {
                format!("cidrs: [ \"{address}/{}\" ]", if address.is_ipv4() { 32 } else { 128 })
            }
        }
    }

    fn carriage(&self, rule: &mut String) {
        let mesh = matches!(self.key.end, End::Workload(_));
        let word = match self.key.protocol {
            Carried::Tls => None,
            Carried::Http => Some("http"),
            Carried::Tcp => Some("tcp"),
            Carried::Udp => Some("udp"),
        };
        if let Some(word) = word {
            let _ = writeln!(rule, "  protocol: {word}");
        }
        rule.push_str(match self.key.protocol {
            Carried::Tls | Carried::Http | Carried::Tcp if mesh => "  tls: { mode: mesh }\n",
            Carried::Tls if self.min_tls12 => {
                "  tls: { mode: passthrough, min: \"1.2\" }\n  reason: \"say why this needs no TLS 1.3\"\n"
            }
            Carried::Tls => "",
            _ => "  tls: { mode: none }\n  reason: \"say why this needs no TLS 1.3\"\n",
        });
        if self.key.protocol == Carried::Http && !self.http.is_empty() {
            let one = |(asked, path): &(Wanted, String)| match asked {
                Wanted::Method(method) => format!("{{ methods: [ {method} ], paths: [ {path:?} ] }}"),
                Wanted::Upgrade(upgrade) => format!("{{ upgrade: {}, paths: [ {path:?} ] }}", upgrade.word()),
            };
            let _ = writeln!(rule, "  http: [ {} ]", listed(self.http.iter().map(one)));
        }
        if self.ech {
            rule.push_str("# and turn Encrypted Client Hello off in the client: a name rule denies it\n");
        }
    }
}

impl End {
    fn of(request: &Request<'_>) -> Result<End, Hopeless> {
        if let (Direction::Egress, Some(address)) = (request.direction, request.address)
            && let Some(reason) = denied_destination(address)
        {
            return granting(address, request).map(End::Grant).ok_or(Hopeless::Closed(reason));
        }
        if let Some(peer) = request.peer {
            return Ok(End::Workload(peer.clone()));
        }
        if let Some((_, host)) = request.host.filter(|_| request.observed != Observed::Udp) {
            let closed = request.address.and_then(|address| denied_answer(address, true));
            return closed.map_or(Ok(End::Host(host.clone())), |reason| Err(Hopeless::Closed(reason)));
        }
        let nothing = if request.host.is_some() { Hopeless::DatagramByName } else { Hopeless::Nameless };
        request.address.map(End::Address).ok_or(nothing)
    }
}

impl Carried {
    fn of(observed: Observed) -> Carried {
        match observed {
            Observed::Tls { .. } => Carried::Tls,
            Observed::Http => Carried::Http,
            Observed::Opaque => Carried::Tcp,
            Observed::Udp => Carried::Udp,
        }
    }
}

/// Longest name of a rule or policy.
const LONGEST_NAME: usize = 63;

/// The start of a text in letters, digits and inner hyphens; `None`: nothing is left of it.
fn simple(text: &str, longest: usize) -> Option<String> {
    let simple =
        |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() as char } else { '-' };
    let name: String = text
        .trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
        .bytes()
        .map(simple)
        .take(longest)
        .collect();
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

fn granting(address: IpAddr, request: &Request<'_>) -> Option<Grant> {
    let udp = request.observed == Observed::Udp;
    let opens = |grant: &Grant| {
        grant
            .openings()
            .iter()
            .any(|opening| opening.address == address && opening.port == request.port && opening.udp == udp)
    };
    let admits = |grant: &&Grant| grant.admits(request.observed, request.http).is_ok();
    let opening = || Grant::ALL.iter().filter(|grant| opens(grant));
    opening().find(admits).or_else(|| opening().next()).copied()
}

fn listed(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
