//! gRPC channels to prefill instances, reused between requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shoal_wire::limits::MAX_MESSAGE_BYTES;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::tls::{self, Identity};
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Channels kept; instances come and go, so the table starts anew when it is full.
const MAX_CHANNELS: usize = 256;

#[derive(Debug, Default)]
pub struct PeerChannels {
    tls: Option<Arc<Identity>>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl PeerChannels {
    /// Within TLS if there is an identity.
    pub fn new(tls: Option<Arc<Identity>>) -> Self {
        Self { tls, channels: Mutex::default() }
    }

    /// A client for an address (host:port). It connects when first used, and again after a loss.
    pub(super) fn client(&self, address: &str) -> Result<EngineClient<Channel>, tonic::transport::Error> {
        let mut channels = self.channels.lock();
        let channel = if let Some(channel) = channels.get(address) {
            channel.clone()
        } else {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT);
            let channel = tls::channel(&endpoint, self.tls.as_ref());
            if channels.len() >= MAX_CHANNELS {
                channels.clear();
            }
            channels.insert(address.to_owned(), channel.clone());
            channel
        };
        Ok(EngineClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}
