//! The only code that builds rustls configurations: TLS 1.3 alone, post-quantum key exchange preferred, no early
//! data, no resumption between workloads (a resumed session would outlive the certificate it began with).

mod mesh;
mod origin;
mod serve;
mod terminate;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, ServerConfig, WantsVerifier, client::Resumption, crypto::CryptoProvider,
    server::NoServerSessionStorage, time_provider::TimeProvider, version::TLS13,
};

pub use mesh::{TrustCell, mesh_client, mesh_server, peer_id};
pub use origin::{NotPinned, Origin, OriginError, Pin};
pub use serve::{Credential, CredentialError, inspect, serve};
pub use terminate::{Shown, terminate};

/// The application protocol of the mesh. RFC 9113 section 3.2.
pub const H2: &[u8] = b"h2";
/// HTTP/1.1. RFC 7301 section 6.
pub const HTTP1: &[u8] = b"http/1.1";

/// The cryptography: aws-lc-rs, X25519MLKEM768 preferred.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The clock of the machine.
pub fn system_time() -> Arc<dyn TimeProvider> {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}

/// TLS could not be set up at all: this build's cryptography can't do TLS 1.3.
#[derive(Debug, thiserror::Error)]
#[error("TLS can't be set up: {0}")]
pub struct SetupError(#[from] rustls::Error);

type Unverified<Side> = ConfigBuilder<Side, WantsVerifier>;

fn server(time: Arc<dyn TimeProvider>) -> Result<Unverified<ServerConfig>, SetupError> {
    Ok(ServerConfig::builder_with_details(Arc::new(provider()), time).with_protocol_versions(&[&TLS13])?)
}

fn client(time: Arc<dyn TimeProvider>) -> Result<Unverified<ClientConfig>, SetupError> {
    Ok(ClientConfig::builder_with_details(Arc::new(provider()), time).with_protocol_versions(&[&TLS13])?)
}

/// No tickets, no sessions, no early data.
fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config
}

fn without_client_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}
