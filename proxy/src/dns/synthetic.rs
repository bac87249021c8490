//! Synthetic addresses: one name, one address, so that the name carries the permission.

use std::net::IpAddr;

use sidegate_policy::HostName;

/// The mapping between names and addresses of 198.18.0.0/15 and fd00:5de6::/64. Stable while the proxy lives.
#[derive(Debug, Default)]
pub struct SyntheticAddresses {}

impl SyntheticAddresses {
    /// Whether an address lies in a synthetic range, assigned or not.
    pub fn is_synthetic(address: IpAddr) -> bool {
        let _ = address;
        todo!()
    }

    /// The addresses of a name, assigned on first use; `None` when the range is exhausted.
    pub fn assign(&self, host: &HostName) -> Option<(std::net::Ipv4Addr, std::net::Ipv6Addr)> {
        let _ = host;
        todo!()
    }

    /// The name that an address was assigned to.
    pub fn name_of(&self, address: IpAddr) -> Option<HostName> {
        let _ = address;
        todo!()
    }
}
