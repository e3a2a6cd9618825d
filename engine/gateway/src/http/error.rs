//! The error object every dialect speaks: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::route::SessionError;

/// Seconds a client is asked to wait before it tries again.
const RETRY_AFTER: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    pub kind: &'static str,
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: String) -> Self {
        Self { status, message, kind, param: None, code }
    }

    /// 400 that names the parameter.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let code = Some("invalid_value");
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message.into());
        Self { param: Some(param.into()), ..error }
    }

    /// 400 for a body that is no JSON object at all.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("invalid_json"), message.into())
    }

    pub fn context_length(prompt: usize, wanted: u32, context: u32) -> Self {
        let message = format!(
            "the prompt has {prompt} tokens and the model's context {context}; \
             that leaves no room for {wanted} output tokens"
        );
        let code = Some("context_length_exceeded");
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        Self { param: Some("messages".to_owned()), ..error }
    }

    pub fn unauthorized() -> Self {
        let message = "this server needs an API key: send it as `Authorization: Bearer <key>`".to_owned();
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    pub fn no_such_model(name: &str) -> Self {
        let message = format!("the model {name:?} does not exist; GET /v1/models lists those that do");
        let error =
            Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message);
        Self { param: Some("model".to_owned()), ..error }
    }

    pub fn no_such_route(method: &str, path: &str) -> Self {
        let message = format!("unknown URL: {method} {path}");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), message)
    }

    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{path} does not answer {method}");
        let code = Some("method_not_allowed");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", code, message)
    }

    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body exceeds {limit} bytes");
        let code = Some("request_too_large");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", code, message)
    }

    pub fn body_timeout() -> Self {
        let message = "the request body did not arrive in time".to_owned();
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("request_timeout"), message)
    }

    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("overloaded"), message.into())
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("unavailable"), message.into())
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", Some("timeout"), message.into())
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message.into())
    }

    /// The JSON of the error object.
    pub fn to_json(&self) -> Vec<u8> {
        let Self { status: _, message, kind, param, code } = self;
        let fields = Fields { message, r#type: kind, param: param.as_deref(), code: *code };
        serde_json::to_vec(&Envelope { error: fields }).unwrap_or_default()
    }

    fn asks_to_wait(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::Invalid(message) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("invalid_value"), message)
            }
            SessionError::QueueFull => Self::overloaded(message),
            SessionError::NoInstance
            | SessionError::BudgetSpent
            | SessionError::NotTakenOver
            | SessionError::Stopping => Self::unavailable(message),
            SessionError::Timeout => Self::timeout(message),
            SessionError::Poisoned | SessionError::Diverged | SessionError::Engine(_) => {
                Self::internal(message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.asks_to_wait() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
