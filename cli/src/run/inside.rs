//! The inner side: from new namespaces to the command's first instruction, and then its first process.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    process::{Pid, Signal},
    thread::UnshareFlags,
};
use sidegate_proxy::sys::{
    namespace::{self, Forked},
    seccomp,
};

use super::{
    channel::{Channel, FromInside, FromOutside, Step},
    init, mounts, network, sockets, streams,
};

/// What the inner side must know.
#[derive(Debug)]
pub(super) struct Plan {
    /// The program and its arguments.
    pub(super) command: Vec<OsString>,
    /// Variables beside our own.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Unix sockets that stay reachable.
    pub(super) allow_socket: Vec<PathBuf>,
    /// The access log, which the command may not write.
    pub(super) access_log: Option<PathBuf>,
    /// Listener sockets of each kind and family: one a worker.
    pub(super) workers: usize,
    /// Give the command a PID namespace and `/proc` of its own.
    pub(super) own_processes: bool,
}

/// A step and what went wrong in it.
type Failure = (Step, io::Error);

/// Runs the inner side in a freshly forked process. Never returns to the caller's code.
pub(super) fn enter(channel: &Channel, plan: &Plan) -> ! {
    let status = match live(channel, plan) {
        Ok(status) => status,
        Err((step, error)) => {
            let errno = error.raw_os_error().unwrap_or(0);
            // The outer side may be gone, in which case nobody wants to know.
            let _ = channel.say(&FromInside::Failed { step, errno, message: error.to_string() });
            1
        }
    };
    namespace::exit_now(status)
}

/// The whole story of the inner side.
fn live(channel: &Channel, plan: &Plan) -> Result<i32, Failure> {
    let sockets = sockets::reachable(&plan.allow_socket);
    let mut flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    if plan.own_processes {
        flags |= UnshareFlags::NEWPID;
    }
    namespace::unshare(flags).map_err(at(Step::Unshare))?;
    converse(channel, &FromInside::Unshared, FromOutside::Mapped)?;

    // The first process of a PID namespace is a child of the one that made it.
    if let Forked::Parent(first) = namespace::fork().map_err(at(Step::Unshare))? {
        channel.say(&FromInside::Init(first.as_raw_nonzero().get())).map_err(at(Step::Unshare))?;
        return Ok(0);
    }
    expect(channel, FromOutside::Adopted)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| (Step::Confine, error.into()))?;

    serve_network(channel, plan)?;
    mounts::arrange(&sockets).map_err(at(Step::Mounts))?;
    plan.access_log.as_deref().map_or(Ok(()), mounts::protect).map_err(at(Step::Mounts))?;
    if plan.own_processes {
        mounts::own_proc().map_err(at(Step::Proc))?;
    }
    mounts::seal_kernel_settings().map_err(at(Step::Mounts))?;
    channel.say(&FromInside::Arranged).map_err(at(Step::Mounts))?;
    expect(channel, FromOutside::Go)?;
    confine().map_err(at(Step::Confine))?;
    let command = start(plan)?;
    let tended = init::tend(channel, command).map_err(at(Step::Start));
    if !plan.own_processes {
        init::end_the_rest();
    }
    tended
}

/// Network, rules and listeners; the descriptors go out.
fn serve_network(channel: &Channel, plan: &Plan) -> Result<(), Failure> {
    network::prepare().map_err(at(Step::Network))?;
    let refusals = OwnedFd::from(network::redirect().map_err(at(Step::Redirect))?);
    let bound = network::Bound::bind(plan.workers).map_err(at(Step::Listeners))?;
    let word = FromInside::Listening {
        outbound: bound.outbound.len(),
        dns_udp: bound.dns_udp.len(),
        dns_tcp: bound.dns_tcp.len(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = (bound.outbound.iter().map(AsFd::as_fd))
        .chain(bound.dns_udp.iter().map(AsFd::as_fd))
        .chain(bound.dns_tcp.iter().map(AsFd::as_fd))
        .chain([refusals.as_fd()])
        .collect();
    channel.say_with(&word, &descriptors).map_err(at(Step::Listeners))
}

/// Gives up every power over the namespaces and closes the ways around them, for the first process and all that follow.
fn confine() -> io::Result<()> {
    namespace::drop_capabilities()?;
    seccomp::refuse_ways_around()?;
    // The first process holds the channel: the command, which has the same user id, must not trace it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Forks the command off.
fn start(plan: &Plan) -> Result<Pid, Failure> {
    if !plan.own_processes {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| (Step::Start, error.into()))?;
    }
    if let Forked::Parent(command) = namespace::fork().map_err(at(Step::Start))? {
        return Ok(command);
    }
    execute(plan)
}

/// The command's own process: nothing is inherited that the user did not hand over.
fn execute(plan: &Plan) -> ! {
    let prepared =
        streams::close_ways_out().and_then(|()| namespace::close_on_exec(namespace::is_plain_carrier));
    let prepared = prepared.and_then(|()| {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
    });
    if let Err(error) = prepared {
        eprintln!("sidegate: can't prepare the command: {error}");
        namespace::exit_now(126);
    }
    let Some((program, arguments)) = plan.command.split_first() else { namespace::exit_now(127) };
    let error = namespace::execute(program, arguments, &plan.environment);
    let (status, why) = match error.kind() {
        io::ErrorKind::NotFound => (127, "not found".to_owned()),
        _ => (126, error.to_string()),
    };
    eprintln!("sidegate: {}: {why}", program.to_string_lossy());
    namespace::exit_now(status)
}

/// Says a word and waits for the answer that must follow.
fn converse(channel: &Channel, word: &FromInside, answer: FromOutside) -> Result<(), Failure> {
    channel.say(word).map_err(at(Step::Unshare))?;
    expect(channel, answer)
}

fn expect(channel: &Channel, expected: FromOutside) -> Result<(), Failure> {
    match channel.hear::<FromOutside>() {
        Ok(Some((word, _))) if word == expected => Ok(()),
        // Signals that arrive before the command runs end the attempt, as they would have ended the command.
        Ok(Some((FromOutside::Signal(signal), _))) => namespace::exit_now(128 + signal),
        Ok(_) => namespace::exit_now(1),
        Err(error) => Err((Step::Start, error)),
    }
}

fn at(step: Step) -> impl Fn(io::Error) -> Failure {
    move |error| (step, error)
}
