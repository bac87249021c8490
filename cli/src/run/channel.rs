//! The words that the two sides of `sidegate run` exchange, with descriptors attached where there are any.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What the inner side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromInside {
    /// New namespaces exist; the user namespace waits for its maps.
    Unshared,
    /// The first inhabitant, by its process id outside.
    Init(i32),
    /// Listeners are bound; they are attached in the order of the fields, the reports of refused packets last.
    Listening {
        /// Outbound TCP listeners.
        outbound: usize,
        /// DNS sockets over UDP.
        dns_udp: usize,
        /// DNS listeners over TCP.
        dns_tcp: usize,
    },
    /// The private view of files stands.
    Arranged,
    /// A step failed; the inner side is gone.
    Failed {
        /// Which.
        step: Step,
        /// The kernel's error number, 0 where there is none.
        errno: i32,
        /// The error in words.
        message: String,
    },
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The command exited with this status.
    Exited(i32),
    /// The command was killed by this signal.
    Killed(i32),
}

/// What the outer side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromOutside {
    /// User and group maps are written.
    Mapped,
    /// The first inhabitant is a child of the proxy now.
    Adopted,
    /// The proxy serves: execute the command.
    Go,
    /// Deliver this signal to the command.
    Signal(i32),
}

/// The steps that can fail inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Leaving for new namespaces.
    Unshare,
    /// Loopback, routes and kernel settings.
    Network,
    /// The redirect rules.
    Redirect,
    /// Binding the listeners.
    Listeners,
    /// The private view of files.
    Mounts,
    /// A `/proc` of one's own.
    Proc,
    /// Giving up capabilities and installing the filter.
    Confine,
    /// Starting the command's first program.
    Start,
}

/// One end of the conversation: datagrams over a Unix socket pair, so that each word arrives whole or not at all.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

/// Longest word in bytes.
const LONGEST: usize = 4096;
/// Most descriptors in one word; the kernel's bound is 253.
pub(super) const MOST_DESCRIPTORS: usize = 250;

impl Channel {
    /// Both ends, close-on-exec.
    pub(super) fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    /// Says one word.
    pub(super) fn say<T: Serialize>(&self, word: &T) -> io::Result<()> {
        self.say_with(word, &[])
    }

    /// Says one word with descriptors attached.
    pub(super) fn say_with<T: Serialize>(&self, word: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut attached = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !attached.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&text)], &mut attached, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Hears one word; `None`: the other side is gone.
    pub(super) fn hear<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut text = [0u8; LONGEST];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(&self.socket, &mut buffers, &mut attached, RecvFlags::CMSG_CLOEXEC) {
                // A reset is told once, ahead of words that were said before it: the other side ended with words unheard.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                Err(error) => return Err(error.into()),
                Ok(received) => break received.bytes,
            }
        };
        if received == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in attached.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        let word = serde_json::from_slice(text.get(..received).unwrap_or_default())?;
        Ok(Some((word, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn words_and_descriptors_arrive_in_order_and_an_end_is_noticed() {
        let (near, far) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        near.say(&FromInside::Unshared).unwrap();
        let listening = FromInside::Listening { outbound: 2, dns_udp: 0, dns_tcp: 0 };
        near.say_with(&listening, &[file.as_fd(), file.as_fd()]).unwrap();
        drop(near);

        let (word, descriptors) = far.hear::<FromInside>().unwrap().unwrap();
        assert_eq!((word, descriptors.len()), (FromInside::Unshared, 0));
        let (word, descriptors) = far.hear::<FromInside>().unwrap().unwrap();
        assert_eq!((word, descriptors.len()), (listening, 2));
        assert!(far.hear::<FromInside>().unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_although_the_speaker_left_some_unheard() {
        let (near, far) = Channel::pair().unwrap();
        near.say(&FromOutside::Signal(18)).unwrap();
        far.say(&FromInside::Exited(9)).unwrap();
        drop(far);
        assert_eq!(near.hear::<FromInside>().unwrap().map(|(word, _)| word), Some(FromInside::Exited(9)));
        assert!(near.hear::<FromInside>().unwrap().is_none());
    }
}
