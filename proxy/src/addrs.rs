//! Every address has a type, so that the ends of a connection can't be mixed up.

use std::net::{IpAddr, SocketAddr};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps an address; an IPv4-mapped IPv6 address becomes IPv4.
            pub fn new(address: SocketAddr) -> Self {
                $name(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }

            /// The address and port.
            pub fn socket_addr(self) -> SocketAddr { self.0 }

            /// The address.
            pub fn ip(self) -> IpAddr { self.0.ip() }

            /// The port.
            pub fn port(self) -> u16 { self.0.port() }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }
    };
}

address! {
    /// Where a captured connection came from.
    ClientAddr
}
address! {
    /// Where the client meant to go before the redirect.
    OriginalDst
}
address! {
    /// Where the proxy dials.
    UpstreamAddr
}
address! {
    /// A listener's own address.
    ListenAddr
}
