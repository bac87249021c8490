//! What the rules refused, told by the kernel over NFLOG and turned into access records.
//!
//! The kernel tells at most 50 refusals a second (burst 100), so that a flood can't fill the log; the counters of
//! chain `refuse` count all of them.

mod count;
mod packet;
mod records;

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::RecvFlags;

pub(super) use count::refused_packets;
pub use records::{Datagrams, RefusalRecords};

use super::netlink::{
    Message, Netlink, Refused,
    message::{self, attribute},
    uapi::{
        NFNL_SUBSYS_ULOG, NFULA_CFG_CMD, NFULA_CFG_MODE, NFULA_CFG_QTHRESH, NFULA_PAYLOAD,
        NFULNL_CFG_CMD_BIND, NFULNL_COPY_PACKET, NFULNL_MSG_CONFIG, NFULNL_MSG_PACKET,
    },
};

/// Bytes of each packet that are asked for.
const COPY_BYTES: u32 = 128;

/// A packet that the rules refused. A port is 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// What kind of packet.
    pub protocol: RefusedProtocol,
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it was to go.
    pub destination: SocketAddr,
}

/// The protocol of a refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedProtocol {
    /// To a port of the proxy itself, or a connection older than the rules.
    Tcp,
    /// A datagram that no rule allows, QUIC among them.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// Another protocol by its number (IANA "Protocol Numbers").
    Other(u8),
}

/// The kernel's reports of one NFLOG group, in the network namespace where it was opened.
#[derive(Debug)]
pub struct Refusals {
    netlink: Netlink,
}

impl Refusals {
    /// Subscribes to a group. Call it inside the network namespace; the descriptor works from anywhere.
    ///
    /// # Errors
    /// `CAP_NET_ADMIN` is missing, another process reads the group, or the kernel has no nfnetlink_log.
    pub fn open(group: u16) -> Result<Refusals, Refused> {
        let mut netlink = Netlink::netfilter()
            .map_err(|source| Refused { purpose: "opening a netfilter socket".to_owned(), source })?;
        let [high, low] = group.to_be_bytes();
        let kind = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
        let config = |purpose| Message::new(kind, 0, &[0, 0, high, low], purpose);
        let mut bind = config("subscribing to refusals (NFLOG)");
        bind.attr(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]);
        let mut mode = config("choosing what is told of refusals (NFLOG)");
        let [a, b, c, d] = COPY_BYTES.to_be_bytes();
        mode.attr(NFULA_CFG_MODE, &[a, b, c, d, NFULNL_COPY_PACKET, 0]);
        // Told one by one at once: batching would hold a lone refusal back for a second.
        mode.be32(NFULA_CFG_QTHRESH, 1);
        netlink.transact(vec![bind])?;
        netlink.transact(vec![mode])?;
        Ok(Refusals { netlink })
    }

    /// The refusals that wait now; empty when there are none.
    ///
    /// # Errors
    /// ENOBUFS: more came than fitted, some are lost. Anything else: the socket is of no more use.
    pub fn take(&self) -> io::Result<Vec<Refusal>> {
        let Some(bytes) = self.netlink.receive(RecvFlags::DONTWAIT)? else { return Ok(Vec::new()) };
        Ok(message::messages(&bytes)
            .filter(|message| message.kind == NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET)
            .filter_map(|message| attribute(message.payload.get(4..)?, NFULA_PAYLOAD))
            .filter_map(packet::read)
            .collect())
    }
}

impl Refusals {
    /// Packets that the rules have refused since they were put in place, told or not. What the kernel tells meanwhile
    /// is lost. Needs `CAP_NET_ADMIN` over the network namespace where it was opened.
    ///
    /// # Errors
    /// The kernel refuses.
    fn counted(&mut self) -> io::Result<u64> {
        // An overrun is told once, and would end the reading of the counters.
        while self.take().is_ok_and(|told| !told.is_empty()) {}
        refused_packets(&mut self.netlink)
    }
}

impl From<OwnedFd> for Refusals {
    /// A subscription that another process opened.
    fn from(socket: OwnedFd) -> Self {
        Refusals { netlink: Netlink::from(socket) }
    }
}

impl From<Refusals> for OwnedFd {
    fn from(refusals: Refusals) -> Self {
        refusals.netlink.into()
    }
}

impl AsFd for Refusals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}
