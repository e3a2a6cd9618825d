//! `/v1/models`: the one model this gateway serves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::app::App;
use super::error::ApiError;

#[derive(Debug, Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    /// Tokens of prompt and output together.
    max_model_len: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    object: &'static str,
    data: Vec<Model>,
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<List> {
    Json(List { object: "list", data: vec![model(&app)] })
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    if id == app.model { Ok(Json(model(&app))) } else { Err(ApiError::no_such_model(&id)) }
}

fn model(app: &App) -> Model {
    Model {
        id: app.model.clone(),
        object: "model",
        created: app.created,
        owned_by: "shoal",
        root: app.model.clone(),
        parent: None,
        max_model_len: app.context(),
    }
}
