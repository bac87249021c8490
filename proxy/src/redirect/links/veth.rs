//! Pairs of devices that join two network namespaces. veth(4).

use std::{io, net::IpAddr};

use super::{
    super::netlink::{
        Message, NLM_F_CREATE, NLM_F_EXCL, Netlink, Refused,
        message::{attribute, string, u32_at},
    },
    IFA_ADDRESS, IFA_F_NODAD, IFA_FLAGS, IFA_LOCAL, IFF_UP, IFLA_IFNAME, RT_TABLE_MAIN, RTA_OIF, RTM_GETLINK,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTN_UNICAST, RTPROT_STATIC, family_byte,
};

const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
/// Nested in `IFLA_LINKINFO`, see linux/if_link.h and linux/veth.h.
const LINK_KIND: u16 = 1;
const LINK_DETAILS: u16 = 2;
const VETH_PEER: u16 = 1;
const RTA_GATEWAY: u16 = 5;

/// Joins this network namespace with that of the process `pid` by a pair of devices: `near` here, `far` there.
///
/// # Errors
/// The kernel refuses, or one of the names is taken.
pub fn join(near: &str, far: &str, pid: u32) -> Result<(), Refused> {
    let mut message =
        Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &[0; 16], format!("making the pair `{near}`"));
    message.text(IFLA_IFNAME, near).nested(IFLA_LINKINFO, |link| {
        link.text(LINK_KIND, "veth").nested(LINK_DETAILS, |pair| {
            pair.nested(VETH_PEER, |peer| {
                // struct ifinfomsg
                peer.fixed(&[0; 16]).text(IFLA_IFNAME, far).attr(IFLA_NET_NS_PID, &pid.to_ne_bytes());
            });
        });
    });
    open()?.transact(vec![message])
}

/// Brings a device up with an address and the prefix length of its network.
///
/// # Errors
/// There is no such device here, or the kernel refuses.
pub fn bring_up(name: &str, ip: IpAddr, prefix: u8) -> Result<(), Refused> {
    let index = index(name)?;
    let mut up = [0; 16];
    up[4..8].copy_from_slice(&index.to_ne_bytes());
    up[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    up[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    let up = Message::new(RTM_NEWLINK, 0, &up, format!("bringing `{name}` up"));

    let (family, octets) = octets(ip);
    // struct ifaddrmsg
    let mut fixed = [family, prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let purpose = format!("adding an address to `{name}`");
    let mut address = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed, purpose);
    address.attr(IFA_LOCAL, &octets).attr(IFA_ADDRESS, &octets).attr(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    open()?.transact(vec![up])?;
    open()?.transact(vec![address])
}

/// Sends what is for nobody near to `gateway`, over a device.
///
/// # Errors
/// There is no such device here, or the kernel refuses.
pub fn default_route(name: &str, gateway: IpAddr) -> Result<(), Refused> {
    let (family, octets) = octets(gateway);
    // struct rtmsg
    let fixed = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0];
    let purpose = format!("adding a default route over `{name}`");
    let mut route = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed, purpose);
    route.attr(RTA_OIF, &index(name)?.to_ne_bytes()).attr(RTA_GATEWAY, &octets);
    open()?.transact(vec![route])
}

fn open() -> Result<Netlink, Refused> {
    Netlink::route().map_err(|source| Refused { purpose: "opening a routing socket".to_owned(), source })
}

fn index(name: &str) -> Result<u32, Refused> {
    let mut found = None;
    let request = Message::new(RTM_GETLINK, 0, &[0; 16], "listing links");
    open()?
        .dump(request, |link| {
            let named = link.payload.get(16..).and_then(|rest| attribute(rest, IFLA_IFNAME)).and_then(string);
            if link.kind == RTM_NEWLINK && named == Some(name) {
                found = u32_at(link.payload, 4);
            }
        })
        .map_err(|source| Refused { purpose: "listing links".to_owned(), source })?;
    found.ok_or_else(|| Refused {
        purpose: format!("looking for the device `{name}`"),
        source: io::ErrorKind::NotFound.into(),
    })
}

fn octets(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (family_byte(libc::AF_INET), ip.octets().to_vec()),
        IpAddr::V6(ip) => (family_byte(libc::AF_INET6), ip.octets().to_vec()),
    }
}
