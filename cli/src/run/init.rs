//! The first process of the command's world: it reaps, passes signals on, and tells how the command fares.

use std::{
    collections::BTreeMap,
    fs, io,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, Signal, WaitOptions, WaitStatus},
};
use sidegate_proxy::sys::signals::{Arrived, SignalSource};

use super::{
    channel::{Channel, FromInside, FromOutside},
    signals,
};

/// Looks after `command` until it ends; every process left over ends with the namespace. Returns the exit status for form's sake.
///
/// # Errors
/// The kernel refuses to wait or to poll.
pub(super) fn tend(channel: &Channel, command: Pid) -> io::Result<i32> {
    // Terminal signals reach the whole group; only the command decides what they mean. Children that this process has
    // yet to reap stay zombies until the first look below, so that none is missed.
    let source = SignalSource::new(&signals::ALL)?;
    release_standard_streams()?;
    let mut group = GroupSignals::default();
    loop {
        if reap(channel, command)? {
            return Ok(0);
        }
        let mut sources = [PollFd::new(channel, PollFlags::IN), PollFd::new(&source, PollFlags::IN)];
        match rustix::event::poll(&mut sources, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let spoken = !sources[0].revents().is_empty();
        while let Some(arrived) = source.next()? {
            group.arrived(arrived);
        }
        if spoken {
            match channel.hear::<FromOutside>()? {
                Some((FromOutside::Signal(number), _)) if group.takes(number, command) => {}
                Some((FromOutside::Signal(number), _)) => pass_on(command, number),
                Some(_) => {}
                // The proxy is gone: nothing the command does can leave any more.
                None => return Ok(1),
            }
        }
    }
}

/// Signals that a program sent to the whole process group (`kill -TERM -PGID`, timeout(1)): they reach the proxy, this
/// process and the command alike, so that passing the proxy's on would deliver them twice.
#[derive(Default)]
struct GroupSignals {
    arrived: BTreeMap<i32, Instant>,
}

/// The members of a group get a signal at the same time; the proxy's word of it takes a little longer.
const SAME_TIME: Duration = Duration::from_secs(1);

impl GroupSignals {
    fn arrived(&mut self, arrived: Arrived) {
        // The terminal's are not passed on in the first place.
        if !arrived.from_kernel {
            self.arrived.insert(arrived.signal, Instant::now());
        }
    }

    /// Whether the command got the signal as a member of this process's group. Each arrival counts once.
    fn takes(&mut self, signal: i32, command: Pid) -> bool {
        let lately = self.arrived.remove(&signal).is_some_and(|when| when.elapsed() < SAME_TIME);
        lately && group_of("self").is_some_and(|ours| group_of(&command.to_string()) == Some(ours))
    }
}

/// The process group as `/proc/PID/stat` has it, the fifth field; 0 for a group from outside. proc_pid_stat(5).
fn group_of(pid: &str) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// A reader of the command's output sees its end when the command closes it, not when this process ends.
fn release_standard_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Collects every child that changed; true when the command has ended.
fn reap(channel: &Channel, command: Pid) -> io::Result<bool> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == command => {
                let word = report(status);
                channel.say(&word)?;
                if !matches!(word, FromInside::Stopped(_)) {
                    return Ok(true);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long processes that fork faster than they are ended may be chased.
const CHASE: Duration = Duration::from_secs(5);

/// Ends every process that the command left running, where no PID namespace ends with this one. Orphans become children of
/// this process, so that there is always one to end until there is none.
pub(super) fn end_the_rest() {
    let latest = Instant::now() + CHASE;
    while Instant::now() < latest {
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        if children.is_empty() || rustix::process::wait(WaitOptions::empty()).is_err() {
            return;
        }
    }
}

fn report(status: WaitStatus) -> FromInside {
    if let Some(signal) = status.stopping_signal() {
        FromInside::Stopped(signal)
    } else if let Some(signal) = status.terminating_signal() {
        FromInside::Killed(signal)
    } else {
        FromInside::Exited(status.exit_status().unwrap_or(1))
    }
}

fn pass_on(command: Pid, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // It may have ended meanwhile, which the next look at the children shows.
        let _ = rustix::process::kill_process(command, signal);
    }
}
