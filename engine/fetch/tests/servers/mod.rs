//! Servers that tests fetch from.

mod file_server;
mod s3_server;

use std::{future::Future, time::Duration};

pub(crate) use file_server::{Fault, FileServer};
pub(crate) use s3_server::S3Server;

/// Waits for a condition, not for a time; gives up after 20 s.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(),
        "waited in vain until {what}"
    );
}

pub(crate) async fn get_json(url: &str) -> Option<serde_json::Value> {
    let text = reqwest::get(url).await.ok()?.text().await.ok()?;
    serde_json::from_str(&text).ok()
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
