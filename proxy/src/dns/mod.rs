//! Names: the stub towards upstream resolvers, the server that the application asks, synthetic addresses.

pub mod answer;
mod cache;
mod local;
pub mod message;
pub mod names;
mod question;
mod record;
pub mod resolv_conf;
pub mod resolver;
mod search;
pub mod server;
pub mod synthetic;
mod upstream;
#[cfg(test)]
mod upstreams;

pub use names::Names;
pub(crate) use question::resolve_permitted;
pub use resolv_conf::ResolvConf;
pub use resolver::{ResolveError, Resolved, Resolver};
pub use synthetic::SyntheticAddresses;
