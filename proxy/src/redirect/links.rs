//! Network devices, addresses and routes over rtnetlink: as little as the rules and `sidegate run` need.

pub mod veth;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::netlink::{
    Message, NLM_F_CREATE, NLM_F_EXCL, Netlink, Refused,
    message::{attribute, string, u32_at},
};
use super::sysctl;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const IFF_UP: u32 = 1;
const LOOPBACK: u32 = 1;

/// The IPv4 address of a workload under `sidegate run`: the dummy address of RFC 7600 section 4.8, which nobody else
/// has. Resolvers ask for A records only where an address beside loopback exists (AI_ADDRCONFIG).
pub const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The IPv6 address of a workload under `sidegate run`: a unique local address outside the synthetic range.
pub const DUMMY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5de6, 1, 0, 0, 0, 0, 1);

/// Names of the devices that lead out of this network namespace: all but `lo`.
pub fn outward() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let request = Message::new(RTM_GETLINK, 0, &[0; 16], "listing links");
    Netlink::route()?.dump(request, |link| {
        // struct ifinfomsg: 16 bytes, the index at 4.
        let name = link.payload.get(16..).and_then(|rest| attribute(rest, IFLA_IFNAME)).and_then(string);
        if link.kind == RTM_NEWLINK && u32_at(link.payload, 4) != Some(LOOPBACK) {
            names.extend(name.map(str::to_owned));
        }
    })?;
    names.sort_unstable();
    Ok(names)
}

/// How long a list of addresses is good for who asks with every stream.
const REMEMBERED: Duration = Duration::from_secs(1);

/// As [`local_addresses`], for who asks often: asked of the kernel at most once a second.
pub fn remembered_addresses() -> Arc<dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync> {
    let known: Mutex<Option<(Instant, Vec<IpAddr>)>> = Mutex::new(None);
    Arc::new(move || {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((since, found)) if since.elapsed() < REMEMBERED => Ok(found.clone()),
            _ => {
                let found = local_addresses()?;
                *known = Some((Instant::now(), found.clone()));
                Ok(found)
            }
        }
    })
}

/// Every address of this network namespace's devices, those of `lo` among them. Needs no privilege.
///
/// # Errors
/// The kernel won't list them.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    // struct ifaddrmsg: 8 bytes; all zero asks for every family and device.
    let request = Message::new(RTM_GETADDR, 0, &[0; 8], "listing addresses");
    Netlink::route()?.dump(request, |answer| {
        let Some(attributes) = answer.payload.get(8..).filter(|_| answer.kind == RTM_NEWADDR) else { return };
        // On a point-to-point device IFA_ADDRESS is the far end; the near one is then IFA_LOCAL.
        let near = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS));
        found.extend(near.and_then(ip));
    })?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Makes a fresh network namespace lead somewhere: `lo` up, one address beside loopback and a default route on `lo` per
/// family, and short connections without stalls ([`sysctl::tune`]). Without a route, connect fails before the redirect
/// sees a packet. Idempotent.
///
/// # Errors
/// The step that the kernel refused. IPv6 may be absent from the kernel; then only its steps are left out.
pub fn prepare_loopback() -> Result<(), Refused> {
    let mut netlink = Netlink::route()
        .map_err(|source| Refused { purpose: "opening a routing socket".to_owned(), source })?;
    netlink.transact(vec![loopback_up()])?;
    tolerate(netlink.transact(vec![address(libc::AF_INET, &DUMMY_V4.octets())]), &[libc::EEXIST])?;
    tolerate(netlink.transact(vec![default_route(libc::AF_INET, &DUMMY_V4.octets())]), &[libc::EEXIST])?;
    // EACCES: disabled on `lo` by sysctl.
    let absent = [libc::EEXIST, libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EACCES];
    tolerate(netlink.transact(vec![address(libc::AF_INET6, &DUMMY_V6.octets())]), &absent)?;
    let absent = [&absent[..], &[libc::EINVAL, libc::ENODEV]].concat();
    tolerate(netlink.transact(vec![default_route(libc::AF_INET6, &DUMMY_V6.octets())]), &absent)?;
    // Slower without it, no less safe.
    let _ = sysctl::tune();
    Ok(())
}

/// Makes an address local to this network namespace, on `lo`. Idempotent.
///
/// # Errors
/// The kernel refuses.
pub fn add_local_address(ip: IpAddr) -> Result<(), Refused> {
    let mut netlink = Netlink::route()
        .map_err(|source| Refused { purpose: "opening a routing socket".to_owned(), source })?;
    let message = match ip {
        IpAddr::V4(ip) => address(libc::AF_INET, &ip.octets()),
        IpAddr::V6(ip) => address(libc::AF_INET6, &ip.octets()),
    };
    tolerate(netlink.transact(vec![message]), &[libc::EEXIST])
}

fn tolerate(outcome: Result<(), Refused>, errors: &[i32]) -> Result<(), Refused> {
    match outcome {
        Err(refused) if refused.source.raw_os_error().is_some_and(|code| errors.contains(&code)) => Ok(()),
        other => other,
    }
}

fn loopback_up() -> Message {
    // struct ifinfomsg: family, type, index, flags, change mask.
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&LOOPBACK.to_ne_bytes());
    fixed[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    fixed[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    Message::new(RTM_NEWLINK, 0, &fixed, "bringing `lo` up")
}

fn address(family: i32, octets: &[u8]) -> Message {
    // struct ifaddrmsg: family, prefix length, flags, scope (universe), index.
    let bits = u8::try_from(octets.len() * 8).unwrap_or(0);
    let mut fixed = [family_byte(family), bits, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&LOOPBACK.to_ne_bytes());
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWADDR, flags, &fixed, "adding an address to `lo`");
    message.attr(IFA_LOCAL, octets).attr(IFA_ADDRESS, octets).attr(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    message
}

fn default_route(family: i32, source: &[u8]) -> Message {
    // struct rtmsg: family, dst length, src length, tos, table, protocol, scope (universe), type, flags.
    let fixed = [family_byte(family), 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0];
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWROUTE, flags, &fixed, "adding a default route on `lo`");
    message.attr(RTA_OIF, &LOOPBACK.to_ne_bytes()).attr(RTA_PREFSRC, source);
    message
}

fn family_byte(family: i32) -> u8 {
    u8::try_from(family).unwrap_or(0)
}
