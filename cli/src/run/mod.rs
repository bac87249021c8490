//! `sidegate run`: a command in a network that leads nowhere but through the proxy.
//!
//! A child of this process stays in the network it was started in and is the proxy; this one only waits (see [`waiter`]).
//! The command lives in namespaces of its own, made by a fork of the proxy (see [`inside`]), which hands the listeners out
//! and then gives up every power.

mod args;
mod auditing;
mod channel;
mod explain;
mod init;
mod inside;
mod log_file;
mod member;
mod mounts;
mod network;
mod outside;
mod policy_files;
mod signals;
mod sockets;
mod streams;
mod suggestion;
mod summary;
mod supervise;
mod terminal;
mod trust;
mod unavailable;
mod waiter;
mod wording;

use std::{ffi::OsString, fs::OpenOptions, io, path::Path, process::ExitCode, sync::Arc, time::Duration};

use sidegate_policy::{Direction, HostEvidence, HostName, Observed, PolicySet, Request, Verdict};
use sidegate_proxy::{
    access_log::{AccessLog, JsonLines, Sink},
    clock::today,
    dns::{Names, ResolvConf, Resolver, SyntheticAddresses},
    inspection::Inspection,
    origins::{Origins, RootsFollower},
    policy_store::PolicyStore,
    redirect::{self, Datagrams, RefusalRecords},
    server::{Gate, Running},
    settings::Settings,
};

use crate::policy::report;

use args::Mode;
pub(crate) use args::RunArgs;
use channel::{FromOutside, Step};
pub(crate) use explain::wants_colour;
use inside::Plan;
use log_file::LogFile;
use member::Member;
use outside::{Prepared, Unprepared};
use policy_files::{Policies, Refused};
use suggestion::Known;
use summary::{Advice, Closing, Summary};
use trust::Trust;

/// Exit status before the command runs: the policy is invalid.
const INVALID: u8 = 1;
/// Exit status before the command runs: wrong usage, such as a policy file that can't be read.
const USAGE: u8 = 2;
/// Exit status before the command runs: this machine does not permit what is needed.
const UNAVAILABLE: u8 = 3;

/// How long connections of background children may go on once the command has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs the command. The exit status is the command's own.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    if let Err(fault) = args.check() {
        eprintln!("sidegate: {fault}");
        return ExitCode::from(USAGE);
    }
    let member = match Member::load(args.identity.as_deref(), args.peers.as_deref()) {
        Ok(member) => member,
        Err(fault) => {
            eprintln!("sidegate: {fault}");
            return ExitCode::from(USAGE);
        }
    };
    let status = match policy_files::load(&args.policies, args.mode, member.as_ref()) {
        Ok(policies) => gate(args, policies, member),
        Err(refused) => {
            report_refused(&refused);
            if refused.unreadable.is_empty() { INVALID } else { USAGE }
        }
    };
    ExitCode::from(status)
}

/// The whole story, outside.
fn gate(args: RunArgs, policies: Policies, member: Option<Member>) -> u8 {
    if policies.absent && !args.quiet {
        let effect = match args.mode {
            Some(Mode::Audit) => "everything passes, recorded as would-deny",
            Some(Mode::Enforce) | None => "everything is denied",
        };
        eprintln!("sidegate: no policy file (--policy FILE, or ./{}): {effect}", policy_files::DEFAULT_FILE);
    }
    let origins = Origins::of_system().with_roots(&RootsFollower::begun(&args.labelled()));
    let origins = match &member {
        Some(member) => origins.with_identity(member.identity()),
        None => origins,
    };
    if !args.quiet {
        origins.wanting(&policies.set).iter().for_each(|line| eprintln!("sidegate: warning: {line}"));
        policies.audits.iter().for_each(|audits| eprintln!("sidegate: {audits}"));
        policies.remarks.iter().for_each(|remark| eprintln!("sidegate: warning: {remark}"));
    }
    let settings = match settings(&args) {
        Ok(settings) => settings,
        Err(error) => {
            return unavailable(&format!(
                "no resolver: /etc/resolv.conf: {error}; name one with --resolver ADDR"
            ));
        }
    };
    match waiter::split_off() {
        Ok(None) => {}
        Ok(Some(status)) => return status,
        Err(error) => return unavailable(&error.to_string()),
    }
    let inspection = Inspection::new();
    let trust = match policies.set.inspects().then(|| Trust::write(&inspection)).transpose() {
        Ok(trust) => trust,
        Err(error) => return unavailable(&format!("the roots for the command can't be written: {error}")),
    };
    let environment = trust.as_ref().map(Trust::environment).unwrap_or_default();
    let log = match args.access_log.as_deref().map(LogFile::look).transpose() {
        Ok(log) => log.flatten(),
        Err(error) => return unavailable(&format!("the access log can't be looked at: {error}")),
    };
    let prepared = match prepare(&args, settings.workers, environment, log.as_ref()) {
        Ok(prepared) => prepared,
        Err(failure) => {
            eprint!("{}", unavailable::explain(&failure, &unavailable::Surroundings::look()));
            return UNAVAILABLE;
        }
    };
    let status = serve(&args, policies, settings, Carried { prepared, origins, inspection, member })
        .unwrap_or_else(|error| unavailable(&error.to_string()));
    if let Some(harm) = log.and_then(|log| log.harm()) {
        eprintln!("sidegate: {harm}");
    }
    status
}

/// Makes the inner side; where a `/proc` of its own is refused, again without.
fn prepare(
    args: &RunArgs,
    workers: usize,
    environment: Vec<(OsString, OsString)>,
    log: Option<&LogFile>,
) -> Result<Prepared, Unprepared> {
    let mut plan = Plan {
        command: args.command.clone(),
        environment,
        allow_socket: args.allow_socket.clone(),
        access_log: log.map(|log| log.path().to_owned()),
        workers,
        own_processes: true,
    };
    match outside::prepare(&plan) {
        Err(failure) if failure.step == Step::Proc => {
            eprintln!(
                "sidegate: warning: /proc can't be mounted here ({}): the command sees your other processes and can \
                 signal them; it still can't trace them or reach the network past the policy",
                failure.message
            );
            plan.own_processes = false;
            outside::prepare(&plan)
        }
        other => other,
    }
}

/// What a run is served with.
struct Carried {
    prepared: Prepared,
    origins: Origins,
    inspection: Inspection,
    member: Option<Member>,
}

/// From the first thread to the last record.
fn serve(args: &RunArgs, policies: Policies, settings: Settings, carried: Carried) -> io::Result<u8> {
    let Carried { prepared, origins, inspection, member } = carried;
    waiter::leave_group()?;
    // Threads inherit the blocked signals, so that only this one reads them.
    let signals = supervise::signal_source()?;
    // Nothing of the same user may trace the proxy or read its descriptors.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    raise_descriptor_limit();

    let (summary, absent) = (Summary::default(), policies.absent);
    let access_log = AccessLog::start(sinks(args, &summary)?);
    release_standard_streams(args.access_log.as_deref())?;
    let gate = Arc::new(Gate {
        reception: None,
        policies: PolicyStore::new(policies.set),
        resolver: Resolver::new(settings.resolvers.clone()),
        synthetic: SyntheticAddresses::default(),
        names: Names::new(settings.dns_names_per_minute),
        access_log: access_log.clone(),
        settings,
        original_dst: Arc::new(redirect::original_dst),
        workload: member.as_ref().map(|member| member.id().as_str().to_owned()),
        origins,
        inspection,
        membership: member.as_ref().map(Member::membership),
    });
    let Prepared { channel, init, listeners, refusals } = prepared;
    let refusals = RefusalRecords::start(refusals, Arc::clone(&gate), Datagrams::Never)?;
    if let Some(member) = member {
        member.follow(&gate)?;
    }
    let running = Running::start(Arc::clone(&gate), listeners)?;
    channel.say(&FromOutside::Go)?;
    let status = supervise::until_end(&channel, init, &signals)?;
    supervise::await_init(init);
    running.drain(LAST_WORDS);
    let unrecorded = refusals.finish().unwrap_or_default();
    access_log.finish();
    if !args.quiet {
        let outcome = Outcome { absent, dropped: access_log.dropped(), unrecorded, gate: &gate };
        eprint!("{}", closing_words(args, &summary, &outcome));
    }
    Ok(status)
}

/// What the summary needs of the proxy.
struct Outcome<'a> {
    absent: bool,
    dropped: u64,
    /// Refused packets without a record of their own.
    unrecorded: u64,
    gate: &'a Gate,
}

fn closing_words(args: &RunArgs, summary: &Summary, outcome: &Outcome<'_>) -> String {
    let command = args.command_name();
    let closing = Closing {
        when: args.summary,
        dropped: outcome.dropped,
        unrecorded: outcome.unrecorded,
        advice: match args.mode {
            Some(Mode::Audit) => Advice::Audit(&command),
            _ if outcome.absent => Advice::FirstPolicy(&command),
            _ => Advice::Rules,
        },
        known: Known {
            recall: &|address| outcome.gate.names.recall(address),
            rule_for: &|host, port| rule_for(&outcome.gate.policies.current(), host, port),
        },
    };
    summary.text(&closing).unwrap_or_default()
}

/// Policy and rule that allow TLS 1.3 to a name at a port.
fn rule_for(set: &PolicySet, host: &HostName, port: u16) -> Option<(String, String)> {
    let decision = set.decide(&Request {
        direction: Direction::Egress,
        host: Some((HostEvidence::Sni, host)),
        address: None,
        port,
        observed: Observed::Tls { offers_tls13: true, ech: false },
        peer: None,
        arrival: sidegate_policy::Arrival::Plain,
        http: None,
        today: today(),
    });
    let rule = decision.rule.filter(|_| decision.verdict == Verdict::Allowed)?;
    let facts = set.rule(rule);
    Some((facts.policy.to_string(), facts.name.to_string()))
}

fn settings(args: &RunArgs) -> io::Result<Settings> {
    // The command's resolv.conf keeps the system's search domains, whichever resolver the proxy asks.
    let search = ResolvConf::system().map(|conf| conf.search).unwrap_or_default();
    let resolvers = match args.resolver.as_slice() {
        [] => Resolver::system_servers()?,
        named => named.to_vec(),
    };
    // Beyond a few, workers cost descriptors at start and bring nothing to one command.
    let defaults = Settings::default();
    Ok(Settings {
        workers: defaults.workers.clamp(1, MOST_WORKERS),
        resolvers,
        dns_search: search,
        // Whoever waits at a terminal wants "not found" at once, not "try again"; the record says what it was.
        dns_denied_nxdomain: true,
        ..defaults
    })
}

/// Six sockets a worker (three kinds, two families) fit one message of descriptors.
const MOST_WORKERS: usize = 8;

fn sinks(args: &RunArgs, summary: &Summary) -> io::Result<Vec<Box<dyn Sink>>> {
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(summary.clone())];
    if let Some(path) = &args.access_log {
        sinks.push(match path.as_os_str().as_encoded_bytes() {
            b"-" => Box::new(JsonLines::stdout()),
            _ => Box::new(args::open_access_log(path).map_err(io::Error::other)?),
        });
    }
    if args.explain {
        sinks.push(Box::new(explain::Explain::on_stderr()));
    }
    Ok(sinks)
}

/// The command's input and output are its own: a reader sees the end when the command closes them.
fn release_standard_streams(access_log: Option<&Path>) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    if access_log != Some(Path::new("-")) {
        rustix::stdio::dup2_stdout(&null)?;
    }
    Ok(())
}

/// Each relayed connection takes two descriptors or more; the command keeps the limit it was given.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it fewer connections fit, which the limits tell when it matters.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn unavailable(message: &str) -> u8 {
    eprintln!("sidegate: {message}");
    UNAVAILABLE
}

fn report_refused(refused: &Refused) {
    for (path, error) in &refused.unreadable {
        eprintln!("sidegate: {}: {error}", path.display());
    }
    report::print(&refused.sources, &refused.diagnostics);
    match refused.diagnostics.as_slice() {
        [] => eprintln!("sidegate: the policy can't be read; nothing was run"),
        _ => eprintln!("sidegate: the policy was refused; nothing was run"),
    }
}
