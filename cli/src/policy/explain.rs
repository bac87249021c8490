//! `sidegate policy explain`: the verdict on one connection, and every reason for it.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use sidegate_policy::{
    CanonicalPath, Demands, Direction, HostName, PolicySet, SpiffeId, Treatment, Upgrade, Verdict,
    decision::TlsMode,
    document::{Protocol, cases::Scenario, notes::INGRESS_UNENFORCED},
};

use super::{compiled, report, suggestion};

/// Ask what a policy says of one connection, and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 allowed, 1 denied (or only recorded, in audit) or a file is invalid, 2 wrong usage or a file that can't
be read. With --json an invalid file gives `\"valid\": false` and its errors, as `check --json` does.
A treatment that this build does not carry out yet is denied, with the reason `not-supported`.

Examples:
  sidegate policy explain p.yaml --host api.example.com --port 443
  sidegate policy explain p.yaml --ip 10.0.0.7 --port 5432 --protocol tcp
  sidegate policy explain p.yaml --direction ingress --from spiffe://example.org/ns/web/sa/front --port 8080 --protocol http")]
pub(crate) struct ExplainArgs {
    /// Policy files, YAML or JSON; `-` reads standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The host it names: SNI, `Host`, or for `tcp` the name whose address our DNS gave out.
    #[arg(long, value_parser = host)]
    host: Option<HostName>,
    /// The address: where it goes, or in ingress where it comes from.
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Destination port.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// What the first bytes show; without it, the first of tls, tcp, http and udp that is allowed.
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// Method of one HTTP request.
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// Path of one HTTP request.
    #[arg(long, requires = "method", value_parser = path)]
    path: Option<CanonicalPath>,
    /// That request asks to become a WebSocket.
    #[arg(long, requires = "path")]
    websocket: bool,
    /// Who connects; in egress the workload itself, which selects the policies.
    #[arg(long, value_name = "SPIFFE-ID", value_parser = identity)]
    from: Option<SpiffeId>,
    /// Who is connected to; in ingress the workload itself, which selects the policies.
    #[arg(long, value_name = "SPIFFE-ID", value_parser = identity)]
    to: Option<SpiffeId>,
    /// Seen from the workload.
    #[arg(long, value_enum, default_value_t = DirectionArg::Egress)]
    direction: DirectionArg,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    Tls,
    Http,
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DirectionArg {
    Egress,
    Ingress,
}

fn host(text: &str) -> Result<HostName, String> {
    HostName::parse(text).map_err(|error| match instead_of_host(text) {
        Some(flags) => format!("it is no host name; write `{flags}`"),
        None => error.to_string(),
    })
}

/// The flags that say what was put into `--host` alone: an address, a URL, a port or a path.
fn instead_of_host(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if authority.parse::<IpAddr>().is_err() && !authority.ends_with(']') => {
            (name, port.parse::<u16>().ok()?)
        }
        _ => (authority, if scheme == "http" { 80 } else { 443 }),
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let end = match (bare.parse::<IpAddr>(), HostName::parse(name)) {
        (Ok(address), _) => format!("--ip {address}"),
        (_, Ok(name)) => format!("--host {name}"),
        _ => return None,
    };
    let port = if text.parse::<IpAddr>().is_ok() { String::new() } else { format!(" --port {port}") };
    let path = CanonicalPath::parse(path).ok().filter(|path| scheme == "http" && path.as_str() != "/");
    let request = path.map_or_else(String::new, |path| format!(" --method GET --path {}", path.as_str()));
    Some(format!("{end}{port}{request}"))
}

fn path(text: &str) -> Result<CanonicalPath, String> {
    CanonicalPath::parse(text).map_err(|error| error.to_string())
}

fn identity(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    if args.host.is_none() && args.ip.is_none() && args.peer_and_workload().0.is_none() {
        eprintln!("sidegate: say what to judge: --host, --ip, or the far end's SPIFFE ID");
        return ExitCode::from(2);
    }
    explain(args).unwrap_or_else(|status| status)
}

fn explain(args: &ExplainArgs) -> Result<ExitCode, ExitCode> {
    let loaded = compiled::load(&args.files, args.json)?;
    let (_, workload) = args.peer_and_workload();
    let set = loaded.set(workload.cloned())?;
    let (scenario, assumed) = assumed(args, &set);
    let built = compiled::built(scenario.direction);
    let mut explanation = set.explain_for(&scenario.request_under(&set, compiled::today()), built);
    if let Some(suggested) = explanation.suggestion.take() {
        explanation.suggestion = Some(suggestion::fitting(suggested, &loaded, &scenario, &explanation));
    }
    explanation.notes.extend(assumed);
    if scenario.direction == Direction::Ingress {
        explanation.notes.push(INGRESS_UNENFORCED.to_owned());
    }
    if args.json {
        report::say_json(&explanation);
    } else {
        report::say(explanation.to_string().trim_end());
    }
    let allowed = explanation.decision.verdict == Verdict::Allowed;
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The scenario, and where no protocol was named a word on the one that was assumed.
fn assumed(args: &ExplainArgs, set: &PolicySet) -> (Scenario, Option<String>) {
    if let Some(protocol) = args.protocol {
        return (args.scenario(protocol.into()), None);
    }
    if args.method.is_some() {
        return (args.scenario(Protocol::Http), None);
    }
    let another = "name another with --protocol";
    if let Some(scenario) = first_allowed(args, set) {
        let note = format!("protocol `{}` was assumed; {another}", scenario.protocol.word());
        return (scenario, Some(note));
    }
    let guess = if args.port == 80 { Protocol::Http } else { Protocol::Tls };
    let note = format!("protocol `{}` was assumed, and no other is allowed; {another}", guess.word());
    (args.scenario(guess), Some(note))
}

/// With the first protocol that is allowed; where none is, the first that is only because this build does not carry it
/// out. A rule that looks at no bytes allows TLS too, but it is mostly there for something else.
fn first_allowed(args: &ExplainArgs, set: &PolicySet) -> Option<Scenario> {
    let by_treatment = |accepted: &dyn Fn(Treatment, &Demands) -> bool, protocols: [Protocol; 4]| {
        protocols.map(|protocol| args.scenario(protocol)).into_iter().find(|scenario| {
            let decision = set.decide_for(&scenario.request_under(set, compiled::today()), |_, _| true);
            let demands = set.demands_of(&decision);
            decision.verdict == Verdict::Allowed
                && decision.treatment.is_some_and(|treatment| accepted(treatment, demands))
        })
    };
    let order = [Protocol::Tls, Protocol::Tcp, Protocol::Http, Protocol::Udp];
    let built = compiled::built(args.direction());
    by_treatment(&|treatment, demands| treatment.tls != TlsMode::None && built(treatment, demands), order)
        .or_else(|| by_treatment(&built, [Protocol::Tcp, Protocol::Tls, Protocol::Http, Protocol::Udp]))
        .or_else(|| by_treatment(&|_, _| true, order))
}

impl ExplainArgs {
    /// Who is at the far end, and the workload itself.
    fn peer_and_workload(&self) -> (Option<&SpiffeId>, Option<&SpiffeId>) {
        match self.direction {
            DirectionArg::Egress => (self.to.as_ref(), self.from.as_ref()),
            DirectionArg::Ingress => (self.from.as_ref(), self.to.as_ref()),
        }
    }

    fn direction(&self) -> Direction {
        match self.direction {
            DirectionArg::Egress => Direction::Egress,
            DirectionArg::Ingress => Direction::Ingress,
        }
    }

    fn scenario(&self, protocol: Protocol) -> Scenario {
        let (peer, workload) = self.peer_and_workload();
        Scenario {
            direction: self.direction(),
            host: self.host.clone(),
            ip: self.ip,
            port: self.port,
            protocol,
            http: self.method.clone().zip(self.path.clone()),
            upgrade: self.websocket.then_some(Upgrade::WebSocket),
            peer: peer.cloned(),
            workload: workload.cloned(),
        }
    }
}

impl From<ProtocolArg> for Protocol {
    fn from(named: ProtocolArg) -> Protocol {
        match named {
            ProtocolArg::Tls => Protocol::Tls,
            ProtocolArg::Http => Protocol::Http,
            ProtocolArg::Tcp => Protocol::Tcp,
            ProtocolArg::Udp => Protocol::Udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_host_is_told_as_flags() {
        for (text, flags) in [
            ("pypi.org:80", "--host pypi.org --port 80"),
            ("https://pypi.org/x", "--host pypi.org --port 443"),
            ("https://pypi.org", "--host pypi.org --port 443"),
            ("http://pypi.org/simple", "--host pypi.org --port 80 --method GET --path /simple"),
            ("https://pypi.org:8443/x?y", "--host pypi.org --port 8443"),
            ("pypi.org/x", "--host pypi.org --port 443"),
            ("10.0.0.1", "--ip 10.0.0.1"),
            ("10.0.0.1:22", "--ip 10.0.0.1 --port 22"),
            ("fd00::1", "--ip fd00::1"),
            ("https://[fd00::1]/", "--ip fd00::1 --port 443"),
        ] {
            let error = host(text).unwrap_err();
            assert!(error.ends_with(&format!("write `{flags}`")), "{text}: {error}");
        }
        assert_eq!(
            host("*.example.com").unwrap_err(),
            HostName::parse("*.example.com").unwrap_err().to_string()
        );
    }
}
