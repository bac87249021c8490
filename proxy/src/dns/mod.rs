//! Names: the stub towards upstream resolvers, the server that the application asks, synthetic addresses.

pub mod names;
pub mod resolver;
pub mod synthetic;

pub use names::Names;
pub use resolver::{ResolveError, Resolved, Resolver};
pub use synthetic::SyntheticAddresses;
