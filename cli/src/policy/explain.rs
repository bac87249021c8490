//! `sidegate policy explain`: the verdict on one connection, and every reason for it.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use sidegate_policy::{
    CanonicalPath, Direction, HostName, SpiffeId, Verdict,
    document::{Protocol, cases::Scenario},
};

use super::{compiled, report};

/// Ask what a policy says of one connection, and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 allowed, 1 denied (or only recorded, in audit), 2 wrong usage or an invalid file.

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
    /// What the first bytes show.
    #[arg(long, value_enum, default_value_t = ProtocolArg::Tls)]
    protocol: ProtocolArg,
    /// Method of one HTTP request.
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// Path of one HTTP request.
    #[arg(long, requires = "method", value_parser = path)]
    path: Option<CanonicalPath>,
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
    HostName::parse(text).map_err(|error| error.to_string())
}

fn path(text: &str) -> Result<CanonicalPath, String> {
    CanonicalPath::parse(text).map_err(|error| error.to_string())
}

fn identity(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    let scenario = args.scenario();
    if scenario.host.is_none() && scenario.ip.is_none() && scenario.peer.is_none() {
        eprintln!("sidegate: say what to judge: --host, --ip, or the far end's SPIFFE ID");
        return ExitCode::from(2);
    }
    let Some(set) = compiled::set(&args.files, scenario.workload.clone()) else { return ExitCode::from(2) };
    let explanation = set.explain(&scenario.request(compiled::today()));
    if args.json {
        compiled::print_json(&explanation);
    } else {
        report::say(explanation.to_string().trim_end());
    }
    if explanation.decision.verdict == Verdict::Allowed { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

impl ExplainArgs {
    fn scenario(&self) -> Scenario {
        let (direction, peer, workload) = match self.direction {
            DirectionArg::Egress => (Direction::Egress, &self.to, &self.from),
            DirectionArg::Ingress => (Direction::Ingress, &self.from, &self.to),
        };
        let protocol = match self.protocol {
            // A method is only ever seen in HTTP.
            ProtocolArg::Tls if self.method.is_some() => Protocol::Http,
            ProtocolArg::Tls => Protocol::Tls,
            ProtocolArg::Http => Protocol::Http,
            ProtocolArg::Tcp => Protocol::Tcp,
            ProtocolArg::Udp => Protocol::Udp,
        };
        Scenario {
            direction,
            host: self.host.clone(),
            ip: self.ip,
            port: self.port,
            protocol,
            http: self.method.clone().zip(self.path.clone()),
            peer: peer.clone(),
            workload: workload.clone(),
        }
    }
}
