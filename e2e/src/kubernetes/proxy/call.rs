//! What a write does to which object: the points at which plans disturb.

use std::{fmt, time::Instant};

use http::Method;
use serde_json::Value;

/// The `nth` call of a run that does this to that object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// create, apply, update or delete.
    pub verb: &'static str,
    /// `pods`, `servingclusters/status` and so on.
    pub resource: String,
    /// Of the object; of an event its reason, because its name is random.
    pub name: String,
    pub nth: u32,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} #{}", self.verb, self.resource, self.name, self.nth)
    }
}

/// One write and what became of it.
#[derive(Debug, Clone)]
pub struct Write {
    pub call: Call,
    pub namespace: String,
    pub at: Instant,
    /// The object as it was sent, if the write creates it.
    pub object: Option<Value>,
    /// The server's answer: a status code, or 0 for none, because the write never reached it.
    pub answer: Option<u16>,
}

impl Call {
    pub fn is_lease(&self) -> bool {
        self.resource == "leases"
    }

    /// The call that a request is, with 0 for its number, and the namespace of its object.
    pub(super) fn of(method: &Method, path: &str, body: &Value) -> (Self, String) {
        let verb = match method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "DELETE" => "delete",
            _ => "apply",
        };
        // /api/v1/namespaces/NAMESPACE/RESOURCE/NAME/SUBRESOURCE, or with /apis/GROUP/VERSION before it.
        let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
        let namespace = parts.next().unwrap_or_default().to_owned();
        let mut resource = parts.next().unwrap_or(path).to_owned();
        let named = parts.next().map(ToOwned::to_owned);
        if let Some(subresource) = parts.next() {
            resource = format!("{resource}/{subresource}");
        }
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let name = match (resource.as_str(), named) {
            ("events", None) => text(&body["reason"]),
            ("events", Some(_)) => "again".to_owned(),
            (_, Some(name)) => name,
            (_, None) => text(&body["metadata"]["name"]),
        };
        (Self { verb, resource, name, nth: 0 }, namespace)
    }
}

impl Write {
    pub fn succeeded(&self) -> bool {
        self.answer.is_some_and(|code| (200..300).contains(&code))
    }

    /// It made an object that was not there.
    pub fn created(&self) -> bool {
        self.answer == Some(201)
    }

    pub fn deleted(&self) -> bool {
        self.call.verb == "delete" && self.succeeded()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_known_by_verb_resource_and_name_and_an_event_by_its_reason() {
        for (method, path, body, expected) in [
            (
                Method::POST,
                "/api/v1/namespaces/n/pods",
                json!({"metadata": {"name": "a-0-1"}}),
                "create pods a-0-1",
            ),
            (Method::DELETE, "/api/v1/namespaces/n/pods/a-0-1", json!({}), "delete pods a-0-1"),
            (
                Method::PATCH,
                "/apis/shoal.dev/v1alpha1/namespaces/n/servingclusters/a/status",
                json!({}),
                "apply servingclusters/status a",
            ),
            (
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/n/events",
                json!({"metadata": {"name": "a.17f"}, "reason": "Serving"}),
                "create events Serving",
            ),
        ] {
            let (call, namespace) = Call::of(&method, path, &body);
            assert_eq!((call.to_string(), namespace.as_str()), (format!("{expected} #0"), "n"));
        }
    }
}
