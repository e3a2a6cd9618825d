//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// The elector turns every few seconds, whether the API server answers or not.
const LONGEST_TURN: Duration = Duration::from_mins(1);

/// Signs of life, given by the elector.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Beats>);

#[derive(Debug, Default)]
struct Beats {
    turned: Option<Instant>,
    answered: bool,
}

impl Pulse {
    /// A turn ended; whether the API server answered in it.
    pub fn beat(&self, answered: bool) {
        let mut beats = self.0.lock();
        beats.turned = Some(Instant::now());
        beats.answered |= answered;
    }

    /// The process turns. Not whether the API server is there: a restart would not bring it back.
    fn is_alive(&self) -> bool {
        self.0.lock().turned.is_none_or(|turned| turned.elapsed() < LONGEST_TURN)
    }

    /// It has reached the API server, so it can lead, or take over.
    fn is_ready(&self) -> bool {
        self.0.lock().answered
    }
}

#[derive(Debug, Clone)]
struct Shown {
    pulse: Arc<Pulse>,
    metrics: Arc<Metrics>,
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, pulse: Arc<Pulse>, metrics: Arc<Metrics>) -> std::io::Result<()> {
    axum::serve(listener, router(pulse, metrics)).await
}

fn router(pulse: Arc<Pulse>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(async |State(shown): State<Shown>| answer(shown.pulse.is_alive())))
        .route("/readyz", get(async |State(shown): State<Shown>| answer(shown.pulse.is_ready())))
        .route("/metrics", get(page))
        .with_state(Shown { pulse, metrics })
}

fn answer(good: bool) -> (StatusCode, &'static str) {
    if good { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not yet\n") }
}

async fn page(State(shown): State<Shown>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_alive_from_the_start_and_ready_once_the_api_server_has_answered() {
        let pulse = Pulse::default();
        assert!(pulse.is_alive() && !pulse.is_ready());
        pulse.beat(false);
        assert!(pulse.is_alive() && !pulse.is_ready());
        pulse.beat(true);
        pulse.beat(false);
        assert!(pulse.is_ready(), "an API server that goes away later takes nothing back");
    }
}
