//! Names that never leave a machine: `localhost`, and who a private address belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{Name, RecordType};
use sidegate_policy::deny_table;

/// An answer that needs neither rule nor resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// `localhost` and names under it (RFC 6761 section 6.3); without an address for other types.
    Loopback(Option<IpAddr>),
    /// The name of an address that no public server knows (RFC 6303). Refused, clients would wait and ask again.
    NoSuchName,
}

pub(super) fn answer(name: &Name, record_type: RecordType) -> Option<Local> {
    if name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost")) {
        return Some(Local::Loopback(match record_type {
            RecordType::A => Some(Ipv4Addr::LOCALHOST.into()),
            RecordType::AAAA => Some(Ipv6Addr::LOCALHOST.into()),
            _ => None,
        }));
    }
    (record_type == RecordType::PTR && is_reverse_of_local(name)).then_some(Local::NoSuchName)
}

fn is_reverse_of_local(name: &Name) -> bool {
    // Four bytes or 32 nibbles, and two labels of the zone: the whole of an address.
    let whole = matches!(name.num_labels(), 6 | 34);
    whole && name.parse_arpa_name().is_ok_and(|net| deny_table::denied_answer(net.addr(), false).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, record_type: RecordType) -> Option<Local> {
        answer(&Name::from_ascii(name).unwrap(), record_type)
    }

    #[test]
    fn localhost_is_this_machine() {
        for name in ["localhost.", "LocalHost.", "api.localhost."] {
            assert_eq!(ask(name, RecordType::A), Some(Local::Loopback(Some(Ipv4Addr::LOCALHOST.into()))));
            assert_eq!(ask(name, RecordType::AAAA), Some(Local::Loopback(Some(Ipv6Addr::LOCALHOST.into()))));
            assert_eq!(ask(name, RecordType::TXT), Some(Local::Loopback(None)));
        }
        for name in ["localhost.test.", "notlocalhost.", ".", "test."] {
            assert_eq!(ask(name, RecordType::A), None, "{name}");
        }
    }

    #[test]
    fn private_addresses_have_no_names() {
        for name in ["1.0.0.10.in-addr.arpa.", "254.169.254.169.in-addr.arpa.", "1.0.0.127.in-addr.arpa."] {
            assert_eq!(ask(name, RecordType::PTR), Some(Local::NoSuchName), "{name}");
        }
        for name in ["1.1.1.1.in-addr.arpa.", "in-addr.arpa.", "x.in-addr.arpa.", "test."] {
            assert_eq!(ask(name, RecordType::PTR), None, "{name}");
        }
    }
}
