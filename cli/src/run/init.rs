//! The first process of the command's world: it reaps, passes signals on, and tells how the command fares.

use std::io;

use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, Signal, WaitOptions, WaitStatus},
};
use sidegate_proxy::sys::signals::SignalSource;

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
        while source.next()?.is_some() {}
        if spoken {
            match channel.hear::<FromOutside>()? {
                Some((FromOutside::Signal(number), _)) => pass_on(command, number),
                Some(_) => {}
                // The proxy is gone: nothing the command does can leave any more.
                None => return Ok(1),
            }
        }
    }
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
