//! The scripted API server.

use std::collections::VecDeque;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body, core::Status};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower_test::mock;

use crate::children::tests::SECRET_UID;

type Check = Box<dyn FnOnce(&str, &Value) + Send>;

/// What the API server is asked and answers.
pub(super) struct Exchange {
    /// `METHOD path`, without the query; a path that ends in `/` is that of any object there.
    call: String,
    /// Looks at query and body.
    check: Check,
    answer: Answer,
}

pub(super) enum Answer {
    /// The object that was sent, as stored.
    Stored,
    Object(Value),
    Error(u16, &'static str),
    /// 403 in these words.
    Refusal(&'static str),
}

pub(super) fn on(call: &str, answer: Answer) -> Exchange {
    Exchange { call: call.to_owned(), check: Box::new(|_, _| ()), answer }
}

impl Exchange {
    pub(super) fn checking(mut self, check: impl FnOnce(&str, &Value) + Send + 'static) -> Self {
        self.check = Box::new(check);
        self
    }
}

/// Answers in this order and lets nothing else be asked. Events are left out: they have tests of their own. So is the
/// status of a ServingRole where the script does not name it.
pub(super) fn server(script: Vec<Exchange>) -> (Client, JoinHandle<()>) {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "team");
    let mut script = VecDeque::from(script);
    let serving = tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let sent: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let path = parts.uri.path();
            if path.starts_with("/apis/events.k8s.io/") {
                send.send_response(Response::new(Body::from(bytes.to_vec())));
                continue;
            }
            let call = format!("{} {path}", parts.method);
            let asked_for = script.front().is_some_and(|next: &Exchange| next.call == call);
            if is_role_status(path) && !asked_for {
                send.send_response(Response::new(Body::from(stored(sent).to_string().into_bytes())));
                continue;
            }
            let Some(Exchange { call: expected, check, answer }) = script.pop_front() else {
                panic!("nothing more was expected: {call} {sent}");
            };
            let any = expected.ends_with('/') && call.starts_with(&expected);
            assert!(any || call == expected, "{call} and not {expected}");
            check(parts.uri.query().unwrap_or_default(), &sent);
            let (code, reply) = match answer {
                Answer::Stored => (200, stored(sent)),
                Answer::Object(object) => (200, object),
                Answer::Refusal(words) => {
                    let status = Status::failure(words, "Forbidden").with_code(403);
                    (403, serde_json::to_value(status).unwrap())
                }
                Answer::Error(code, reason) => {
                    let status = Status::failure(reason, reason).with_code(code);
                    (code, serde_json::to_value(status).unwrap())
                }
            };
            let mut response = Response::new(Body::from(reply.to_string().into_bytes()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            send.send_response(response);
        }
        assert!(
            script.is_empty(),
            "never asked: {:?}",
            script.iter().map(|left| &left.call).collect::<Vec<_>>()
        );
    });
    (client, serving)
}

fn is_role_status(path: &str) -> bool {
    path.contains("/servingroles/") && path.ends_with("/status")
}

fn stored(mut object: Value) -> Value {
    let uid = object["metadata"]["uid"].as_str().unwrap_or(SECRET_UID).to_owned();
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["resourceVersion"] = json!("1");
    if object["kind"] == "ServingRole" && object["spec"].is_null() {
        object["spec"] = json!({ "role": "decode", "replicas": 1 });
    }
    object
}
