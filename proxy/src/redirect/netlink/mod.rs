//! A netlink socket: transactions, dumps and notifications. Only what the redirect rules need.

pub(crate) mod message;
pub(crate) mod uapi;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::{self, SocketAddrNetlink},
    recvfrom, send, socket_with,
};
use socket2::SockRef;

pub(crate) use message::{Message, Received};

/// Largest datagram that the kernel sends in a dump (NLMSG_GOODSIZE is far below).
const RECEIVE_BYTES: usize = 64 * 1024;
const SEND_BUFFER: usize = 8 << 20;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// A netlink socket in the network namespace where it was opened, wherever its holder is now.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// The kernel refused one message.
#[derive(Debug, thiserror::Error)]
#[error("{purpose}")]
pub struct Refused {
    /// What the message was to do.
    pub purpose: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl Netlink {
    /// A socket for nftables and NFLOG (`NETLINK_NETFILTER`). Opening needs no privilege; using it needs `CAP_NET_ADMIN`.
    pub fn netfilter() -> io::Result<Netlink> {
        Netlink::open(Some(netlink::NETFILTER), 0)
    }

    /// A socket for links, addresses and routes (`NETLINK_ROUTE`).
    pub(crate) fn route() -> io::Result<Netlink> {
        Netlink::open(None, 0)
    }

    /// A netfilter socket that receives the notifications of `groups` (a mask: group N is bit N-1).
    pub(crate) fn netfilter_events(groups: u32) -> io::Result<Netlink> {
        Netlink::open(Some(netlink::NETFILTER), groups)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Netlink> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        // Large UDP sets travel in one datagram; the kernel caps this at wmem_max.
        SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER)?;
        Ok(Netlink { socket, sequence: 1 })
    }

    /// Sends every message in one datagram and reads the answers; the last message is acknowledged.
    ///
    /// # Errors
    /// The first message that the kernel refused. For nftables batches nothing at all was changed then.
    pub(crate) fn transact(&mut self, mut messages: Vec<Message>) -> Result<(), Refused> {
        let first = self.sequence;
        let mut purposes = Vec::with_capacity(messages.len());
        let mut bytes = Vec::with_capacity(messages.iter().map(Message::len).sum());
        let count = messages.len();
        for (index, message) in messages.iter_mut().enumerate() {
            // Errors always come; one acknowledgement is enough. Batch edges have none on older kernels.
            message.flag(if index + 2 >= count { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST });
            bytes.extend_from_slice(&message.finish(self.next_sequence()));
            purposes.push(std::mem::take(&mut message.purpose));
        }
        let refused = |index: usize, source: io::Error| Refused {
            purpose: purposes.get(index).cloned().unwrap_or_else(|| "talking to the kernel".to_owned()),
            source,
        };
        send(&self.socket, &bytes, SendFlags::empty()).map_err(|error| refused(usize::MAX, error.into()))?;
        // The kernel answers within send(); what is not there now never comes.
        let mut acknowledged = 0;
        while let Some(answer) =
            self.receive(RecvFlags::DONTWAIT).map_err(|error| refused(usize::MAX, error))?
        {
            for message in message::messages(&answer).filter(|message| message.kind == NLMSG_ERROR) {
                let index = message.sequence.wrapping_sub(first) as usize;
                match message.error() {
                    _ if index >= purposes.len() => {}
                    Some(error) => return Err(refused(index, error)),
                    None => acknowledged += 1,
                }
            }
        }
        if acknowledged == 0 { Err(refused(usize::MAX, io::ErrorKind::TimedOut.into())) } else { Ok(()) }
    }

    /// Sends one dump request and hands every answer to `each`.
    pub(crate) fn dump(
        &mut self,
        mut request: Message,
        mut each: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        request.flag(NLM_F_REQUEST | NLM_F_DUMP);
        let sequence = self.next_sequence();
        send(&self.socket, &request.finish(sequence), SendFlags::empty())?;
        loop {
            let Some(answer) = self.receive(RecvFlags::empty())? else { continue };
            for message in message::messages(&answer).filter(|message| message.sequence == sequence) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return message.error().map_or(Ok(()), Err),
                    _ => each(message),
                }
            }
        }
    }

    /// One datagram from the kernel; `None` when nothing waits (with `DONTWAIT`).
    pub(crate) fn receive(&self, flags: RecvFlags) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            match recvfrom(&self.socket, buffer.as_mut_slice(), flags) {
                Ok((length, _, sender)) => {
                    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
                    // Anything else is not the kernel but a process that plays it.
                    if sender.is_some_and(|sender| sender.pid() == 0) {
                        buffer.truncate(length);
                        return Ok(Some(buffer));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }
}

impl From<OwnedFd> for Netlink {
    /// A socket that another process opened, for example inside a network namespace.
    fn from(socket: OwnedFd) -> Self {
        Netlink { socket, sequence: 1 << 16 }
    }
}

impl From<Netlink> for OwnedFd {
    fn from(netlink: Netlink) -> Self {
        netlink.socket
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Received<'_> {
    /// The error in an `NLMSG_ERROR`; `None` for an acknowledgement.
    fn error(&self) -> Option<io::Error> {
        let code = message::u32_at(self.payload, 0).unwrap_or(0).cast_signed();
        (code != 0).then(|| io::Error::from_raw_os_error(-code))
    }
}
