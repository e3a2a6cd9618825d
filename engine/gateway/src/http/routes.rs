//! Every route, its methods, and who may call it. A path that is not here has no class and is denied when
//! keys are in use.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use super::app::{App, gate};
use super::error::ApiError;
use super::{chat, completions, health, models, tokenize};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Probes and scrapers; tells nothing of requests.
    Open,
    /// Needs an API key when keys are in use.
    Key,
}

/// Paths and their class.
pub const ROUTES: [(&str, Access); 10] = [
    ("/v1/models", Access::Key),
    ("/v1/models/{id}", Access::Key),
    ("/v1/chat/completions", Access::Key),
    ("/v1/completions", Access::Key),
    ("/v1/tokenize", Access::Key),
    ("/v1/detokenize", Access::Key),
    ("/health", Access::Open),
    ("/ready", Access::Open),
    ("/health_generate", Access::Open),
    ("/metrics", Access::Open),
];

/// Class of a matched path.
pub fn access(path: &str) -> Access {
    ROUTES.iter().find(|(known, _)| *known == path).map_or(Access::Key, |(_, access)| *access)
}

fn methods(path: &str) -> MethodRouter<Arc<App>> {
    match path {
        "/v1/models" => get(models::list),
        "/v1/models/{id}" => get(models::one),
        "/v1/chat/completions" => post(chat::create),
        "/v1/completions" => post(completions::create),
        "/v1/tokenize" => post(tokenize::tokenize),
        "/v1/detokenize" => post(tokenize::detokenize),
        "/health" => get(health::health),
        "/ready" => get(health::ready),
        "/health_generate" => get(health::generate),
        "/metrics" => get(health::metrics),
        // A path without methods answers 405: the tests call every path.
        _ => MethodRouter::new(),
    }
}

pub fn router(app: Arc<App>) -> Router {
    let router = ROUTES.iter().fold(Router::new(), |router, (path, _)| router.route(path, methods(path)));
    router
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), gate))
        .with_state(app)
}

async fn unknown(request: Request) -> ApiError {
    ApiError::no_such_route(request.method().as_str(), request.uri().path())
}

async fn not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}
