//! The outer side: makes the inner one, gives it its identity, and receives its listeners.

use std::{fs, io, os::fd::OwnedFd};

use rustix::process::{Pid, WaitOptions};
use sidegate_proxy::{
    redirect::Refusals,
    server::Listeners,
    sys::namespace::{self, Forked},
};

use super::{
    channel::{Channel, FromInside, FromOutside, Step},
    inside::{self, Plan},
};

/// A prepared inner side: its listeners are here, its command waits.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The conversation.
    pub(super) channel: Channel,
    /// The first process inside, a child of this one.
    pub(super) init: Pid,
    /// What the proxy serves.
    pub(super) listeners: Listeners,
    /// What the rules refuse, as the kernel tells it.
    pub(super) refusals: Refusals,
}

/// Why there is no inner side.
#[derive(Debug)]
pub(super) struct Unprepared {
    /// The step that failed.
    pub(super) step: Step,
    /// The kernel's error number, 0 where there is none.
    pub(super) errno: i32,
    /// The error in words.
    pub(super) message: String,
}

impl Unprepared {
    fn at(step: Step, error: &io::Error) -> Self {
        Unprepared { step, errno: error.raw_os_error().unwrap_or(0), message: error.to_string() }
    }
}

/// Makes the inner side. To be called before any thread is started.
///
/// # Errors
/// The step that failed; nothing of the inner side is left.
pub(super) fn prepare(plan: &Plan) -> Result<Prepared, Unprepared> {
    let start = |error: io::Error| Unprepared::at(Step::Start, &error);
    let (ours, theirs) = Channel::pair().map_err(start)?;
    let maker = match namespace::fork().map_err(start)? {
        Forked::Child => {
            drop(ours);
            inside::enter(&theirs, plan)
        }
        Forked::Parent(maker) => maker,
    };
    drop(theirs);
    let adopted = match adopt(&ours, maker) {
        Ok(init) => Ok((ours, init)),
        // The maker may still wait for a word: `ours` is dropped, so that it waits no more.
        Err(failure) => {
            drop(ours);
            Err(failure)
        }
    };
    // The maker has no other task than to make; it is gone or failing by now.
    let _ = rustix::process::waitpid(Some(maker), WaitOptions::empty());
    let (ours, init) = adopted?;
    let prepared = receive(ours, init);
    if prepared.is_err() {
        let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(init), WaitOptions::empty());
    }
    prepared
}

/// Writes the maps of the new user namespace and learns of its first process, which becomes a child of this process when its maker ends.
fn adopt(channel: &Channel, maker: Pid) -> Result<Pid, Unprepared> {
    let unshare = |error: io::Error| Unprepared::at(Step::Unshare, &error);
    hear_expected(channel, &FromInside::Unshared)?;
    write_maps(maker).map_err(unshare)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| unshare(error.into()))?;
    channel.say(&FromOutside::Mapped).map_err(unshare)?;
    match hear(channel)? {
        (FromInside::Init(pid), _) => {
            Pid::from_raw(pid).ok_or_else(|| unshare(io::ErrorKind::InvalidData.into()))
        }
        (word, _) => Err(unexpected(&word)),
    }
}

fn receive(channel: Channel, init: Pid) -> Result<Prepared, Unprepared> {
    channel.say(&FromOutside::Adopted).map_err(|error| Unprepared::at(Step::Start, &error))?;
    let mut listeners = Listeners::default();
    let mut refusals = None;
    loop {
        match hear(&channel)? {
            (FromInside::Listening { outbound, dns_udp, dns_tcp }, descriptors) => {
                let mut rest = descriptors.into_iter();
                listeners.outbound.extend(rest.by_ref().take(outbound).map(Into::into));
                listeners.dns_udp.extend(rest.by_ref().take(dns_udp).map(Into::into));
                listeners.dns_tcp.extend(rest.by_ref().take(dns_tcp).map(Into::into));
                refusals = rest.next().map(Refusals::from);
            }
            (FromInside::Arranged, _) if let Some(refusals) = refusals.take() => {
                return Ok(Prepared { channel, init, listeners, refusals });
            }
            (word, _) => return Err(unexpected(&word)),
        }
    }
}

fn hear(channel: &Channel) -> Result<(FromInside, Vec<OwnedFd>), Unprepared> {
    match channel.hear::<FromInside>() {
        Ok(Some((FromInside::Failed { step, errno, message }, _))) => {
            Err(Unprepared { step, errno, message })
        }
        Ok(Some(word)) => Ok(word),
        Ok(None) => Err(Unprepared {
            step: Step::Start,
            errno: 0,
            message: "the inner side ended unexpectedly".to_owned(),
        }),
        Err(error) => Err(Unprepared::at(Step::Start, &error)),
    }
}

fn hear_expected(channel: &Channel, expected: &FromInside) -> Result<(), Unprepared> {
    match hear(channel)? {
        (word, _) if word == *expected => Ok(()),
        (word, _) => Err(unexpected(&word)),
    }
}

fn unexpected(word: &FromInside) -> Unprepared {
    Unprepared { step: Step::Start, errno: 0, message: format!("the inner side said {word:?} out of turn") }
}

/// Maps every id of this namespace to itself where that is permitted (so that files keep their owners), else the caller's own id.
fn write_maps(maker: Pid) -> io::Result<()> {
    let place = format!("/proc/{}", maker.as_raw_nonzero());
    let whole = identity_map(&fs::read_to_string("/proc/self/uid_map")?)
        .zip(identity_map(&fs::read_to_string("/proc/self/gid_map")?));
    if let Some((users, groups)) = whole
        && fs::write(format!("{place}/uid_map"), users).is_ok()
    {
        return fs::write(format!("{place}/gid_map"), groups);
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    fs::write(format!("{place}/uid_map"), format!("{user} {user} 1\n"))?;
    // Without it an unprivileged user could drop a group that a file denies. user_namespaces(7).
    fs::write(format!("{place}/setgroups"), "deny")?;
    fs::write(format!("{place}/gid_map"), format!("{group} {group} 1\n"))
}

/// The map that names each id of `own` (a `/proc/self/uid_map`) by itself; `None` when it is malformed or empty.
fn identity_map(own: &str) -> Option<String> {
    let mut map = String::new();
    for line in own.lines() {
        let mut columns = line.split_whitespace();
        let (first, _, count) = (columns.next()?, columns.next()?, columns.next()?);
        map.push_str(&format!("{first} {first} {count}\n"));
    }
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_range_is_mapped_to_itself() {
        assert_eq!(identity_map("         0          0 4294967295\n").unwrap(), "0 0 4294967295\n");
        assert_eq!(identity_map("0 1000 1\n1 100000 65536\n").unwrap(), "0 0 1\n1 1 65536\n");
        assert_eq!(identity_map(""), None);
        assert_eq!(identity_map("0 1000\n"), None);
    }
}
