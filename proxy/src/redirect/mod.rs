//! The redirect rules: what the kernel sends to the proxy, and what it refuses at once.
//!
//! A [`Spec`] becomes a [`Plan`], which is printed as nft text or installed over netlink in one transaction.
//! The rules belong to nobody's socket: they outlive the proxy, so that nothing leaks while it is away.

mod ask;
pub mod command;
pub mod install;
mod kept;
pub mod links;
mod netlink;
pub mod original_dst;
mod plan;
pub mod refusals;
mod snapshot;
mod spec;
pub mod sysctl;
pub mod watch;

pub use ask::RefusedPackets;
pub use command::InitCommand;
pub use install::{FrameWall, Installed, RedirectError, install, remove, replace_udp};
pub use links::prepare_loopback;
pub use netlink::{Netlink, Refused};
pub use original_dst::{NotRedirected, original_dst};
pub use plan::Plan;
pub use refusals::{Datagrams, Refusal, RefusalRecords, Refusals, RefusedProtocol};
pub use spec::{DNS_PORT, Exempt, INBOUND_PORT, NFLOG_GROUP, OUTBOUND_PORT, PROXY_UID, Spec};
pub use watch::{InPlace, Watch, WatchSockets};
