//! Names: the stub towards upstream resolvers, the server that the application asks, synthetic addresses.

mod answer;
mod cache;
pub mod names;
pub mod resolv_conf;
pub mod resolver;
pub mod synthetic;
mod upstream;

pub use names::Names;
pub use resolv_conf::ResolvConf;
pub use resolver::{ResolveError, Resolved, Resolver};
pub use synthetic::SyntheticAddresses;
