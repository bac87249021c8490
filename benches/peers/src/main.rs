//! The moving parts of the peer comparison: an origin, a client, a resolver and two bare relays.
//!
//! `benches/peers/run` lays the network, starts a proxy, drives this program and reads the proxy's CPU time.
#![forbid(unsafe_code)]

mod client;
mod hello;
mod origin;
mod relay;
mod resolver;

use std::net::{IpAddr, SocketAddr};

use clap::{Parser, Subcommand};

/// Load, origin and bare relay for comparing proxies.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Serves bulk (9000), echo (9001), hold (9002) and TLS greetings (443) on every address.
    Origin,
    /// Answers every A question with one address.
    Resolver {
        /// Address and port to serve on.
        #[arg(long)]
        listen: SocketAddr,
        /// The answer.
        #[arg(long)]
        answer: IpAddr,
    },
    /// Relays every connection to one fixed address, with splice(2) or with plain copies.
    Relay {
        /// Address and port to serve on.
        #[arg(long)]
        listen: SocketAddr,
        /// Where to; port 0 keeps the connection's original destination port.
        #[arg(long)]
        to: SocketAddr,
        /// Copy through this many bytes of memory instead of splicing.
        #[arg(long)]
        copy: Option<usize>,
    },
    /// Makes load and prints one JSON line of what it did.
    Client {
        #[command(subcommand)]
        load: client::Load,
    },
}

fn main() -> std::io::Result<()> {
    match Arguments::parse().part {
        Part::Origin => origin::serve(),
        Part::Resolver { listen, answer } => resolver::serve(listen, answer),
        Part::Relay { listen, to, copy } => relay::serve(listen, to, copy),
        Part::Client { load } => client::run(&load),
    }
}
