//! Reading TLS from outside: ClientHello, ServerHello, HelloRetryRequest, alerts. Nothing here decrypts.

pub mod client_hello;
pub(crate) mod read_ahead;
mod records;
mod second_hello;
pub mod server_gate;
mod server_hello;
#[cfg(test)]
pub(crate) mod testing;
mod wire;
