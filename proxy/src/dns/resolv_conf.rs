//! `/etc/resolv.conf`: which resolvers to ask, and which suffixes clients try.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use sidegate_policy::HostName;

/// What resolv.conf(5) says that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines in order, port 53.
    pub servers: Vec<SocketAddr>,
    /// The last `search` or `domain` line. Entries that are no host names are left out.
    pub search: Vec<HostName>,
}

impl ResolvConf {
    /// Reads the system's file.
    ///
    /// # Errors
    /// It can't be read.
    pub fn system() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/etc/resolv.conf")?))
    }

    /// Parses the text as the C library does: keyword at the start of a line, unknown lines skipped.
    pub fn parse(text: &str) -> Self {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            match (line.starts_with([' ', '\t']), words.next()) {
                (false, Some("nameserver")) => {
                    conf.servers.extend(words.next().and_then(nameserver));
                }
                (false, Some("search" | "domain")) => {
                    conf.search = words.filter_map(|word| HostName::parse(word).ok()).collect();
                }
                _ => {}
            }
        }
        conf
    }
}

/// An address, for link-local IPv6 with `%` and the interface's index or name.
fn nameserver(word: &str) -> Option<SocketAddr> {
    let (address, scope) = match word.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (word, None),
    };
    match (address.parse().ok()?, scope) {
        (IpAddr::V6(address), Some(scope)) => scoped(address, scope),
        (address, None) => Some(SocketAddr::new(address, 53)),
        (IpAddr::V4(_), Some(_)) => None,
    }
}

fn scoped(address: Ipv6Addr, scope: &str) -> Option<SocketAddr> {
    let index = scope.parse().ok().or_else(|| interface_index(scope))?;
    Some(SocketAddrV6::new(address, 53, 0, index).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    plain
        .then(|| std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok())??
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
