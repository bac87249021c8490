//! Reading TLS from outside: ClientHello, ServerHello, HelloRetryRequest, alerts. Nothing here decrypts.

pub mod client_hello;
pub mod server_gate;
