//! The process that the caller waits for, and nothing else.
//!
//! It shares the caller's process group with the command, so that the terminal and `kill 0` treat both as one job. The
//! proxy is a child of it in a group of its own: a signal that the command sends to its whole group can't reach it, and
//! no record is lost.

use std::io;

use rustix::{
    event::{PollFd, PollFlags},
    process::{DumpableBehavior, Pid, Signal, WaitOptions},
};
use sidegate_proxy::sys::{
    namespace::{self, Forked},
    signals::{Arrived, SignalSource},
};

use super::{signals, terminal::Foreground};

/// Splits the waiter off. `Some(status)`: this is the waiter, and everything is over. `None`: this is the proxy-to-be.
/// To be called before any thread is started.
///
/// # Errors
/// The kernel refuses to fork or to wait.
pub(super) fn split_off() -> io::Result<Option<u8>> {
    let waiter = rustix::process::getpid();
    match namespace::fork()? {
        Forked::Parent(proxy) => wait_for(proxy).map(Some),
        Forked::Child => {
            rustix::process::set_parent_process_death_signal(Some(signals::ORPHANED))?;
            if rustix::process::getppid() != Some(waiter) {
                namespace::exit_now(1);
            }
            Ok(None)
        }
    }
}

/// Leaves the caller's process group. To be called once the command's first process is made, which stays in it.
///
/// # Errors
/// The kernel refuses.
pub(super) fn leave_group() -> io::Result<()> {
    Ok(rustix::process::setpgid(None, None)?)
}

fn wait_for(proxy: Pid) -> io::Result<u8> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let source = SignalSource::new(&signals::ALL)?;
    let foreground = Foreground::remember();
    release_streams()?;
    let status = loop {
        if let Some(status) = look_after(proxy)? {
            break status;
        }
        match rustix::event::poll(&mut [PollFd::new(&source, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        while let Some(arrived) = source.next()? {
            pass_on(proxy, arrived)?;
        }
    };
    if let Some(foreground) = foreground {
        foreground.restore();
    }
    Ok(status)
}

/// Signals from programs go to the proxy, which passes them in. The terminal's reach the command by its group already.
fn pass_on(proxy: Pid, Arrived { signal, from_kernel }: Arrived) -> io::Result<()> {
    let continued = signal == Signal::CONT.as_raw();
    if signal == Signal::CHILD.as_raw() || from_kernel && !continued {
        return Ok(());
    }
    match Signal::from_named_raw(signal).map(|signal| rustix::process::kill_process(proxy, signal)) {
        // It has ended; its status is the next thing that is seen.
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(()),
        Some(other) => Ok(other?),
    }
}

/// The exit status, if the proxy has ended. When it stops, so does this process, for the shell that waits for it.
fn look_after(proxy: Pid) -> io::Result<Option<u8>> {
    loop {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        let Some((_, status)) = rustix::process::waitpid(Some(proxy), options)? else { return Ok(None) };
        if status.stopped() {
            rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
            continue;
        }
        if let Some(signal) = status.terminating_signal() {
            eprintln!("sidegate: the proxy was killed by signal {signal}; the command ended with it");
            return Ok(Some(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
        }
        return Ok(Some(status.exit_status().and_then(|status| u8::try_from(status).ok()).unwrap_or(1)));
    }
}

/// Whoever reads the command's output must see its end, and whoever feeds it must notice that it stopped reading.
fn release_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}
