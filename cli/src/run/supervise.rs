//! While the command runs: signals go in, its fate comes out.

use std::io;

use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, Signal, WaitOptions},
};
use sidegate_proxy::sys::signals::{Arrived, SignalSource};

use super::{
    channel::{Channel, FromInside, FromOutside},
    signals,
};

/// Blocks the signals that are passed on. To be called before any thread is started and after the inner side was made.
///
/// # Errors
/// The kernel refuses.
pub(super) fn signal_source() -> io::Result<SignalSource> {
    let read: Vec<i32> = signals::PASSED_ON.into_iter().chain([signals::ORPHANED.as_raw()]).collect();
    SignalSource::new(&read)
}

/// Waits for the command's end. Returns its exit status: 128+N when signal N killed it.
///
/// # Errors
/// Polling or the conversation fails.
pub(super) fn until_end(channel: &Channel, init: Pid, source: &SignalSource) -> io::Result<u8> {
    loop {
        let mut sources = [PollFd::new(channel, PollFlags::IN), PollFd::new(source, PollFlags::IN)];
        match rustix::event::poll(&mut sources, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let (spoken, signalled) = (!sources[0].revents().is_empty(), !sources[1].revents().is_empty());
        if signalled {
            pass_on(channel, init, source)?;
        }
        if spoken {
            match channel.hear::<FromInside>()? {
                Some((FromInside::Exited(status), _)) => return Ok(u8::try_from(status).unwrap_or(1)),
                Some((FromInside::Killed(signal), _)) => return Ok(killed_status(signal)),
                Some((FromInside::Stopped(_), _)) => stop_along(channel)?,
                Some((FromInside::Failed { message, .. }, _)) => return Err(io::Error::other(message)),
                Some(_) => {}
                None => return Ok(lost(init)),
            }
        }
    }
}

/// Passes on what the waiter passes on: signals from programs. Those of the terminal reach the command by its group.
fn pass_on(channel: &Channel, init: Pid, source: &SignalSource) -> io::Result<()> {
    while let Some(Arrived { signal, from_kernel }) = source.next()? {
        if signal == signals::ORPHANED.as_raw() {
            // Nobody waits any more: the command ends, and its records are still written.
            let _ = rustix::process::kill_process(init, Signal::KILL);
        } else if !from_kernel {
            say_if_there(channel, &FromOutside::Signal(signal))?;
        }
    }
    Ok(())
}

/// The command stopped: so does this process, for the shell that waits for it. Continued, it continues the command.
fn stop_along(channel: &Channel) -> io::Result<()> {
    rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
    say_if_there(channel, &FromOutside::Signal(Signal::CONT.as_raw()))
}

fn say_if_there(channel: &Channel, word: &FromOutside) -> io::Result<()> {
    match channel.say(word) {
        // The command has ended; its last word is still to be heard.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        other => other,
    }
}

/// The inner side ended without a word: somebody killed its first process, and the kernel everything in it.
fn lost(init: Pid) -> u8 {
    let status = rustix::process::waitpid(Some(init), WaitOptions::empty());
    let signal = status.ok().flatten().and_then(|(_, status)| status.terminating_signal());
    killed_status(signal.unwrap_or(Signal::KILL.as_raw()))
}

/// Waits until the first process inside is gone, and with it everything that the command left running.
pub(super) fn await_init(init: Pid) {
    // Whoever collected it before has waited too.
    let _ = rustix::process::waitpid(Some(init), WaitOptions::empty());
}

fn killed_status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
