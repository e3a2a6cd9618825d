//! Reads a `ServingCluster` from YAML and refuses it with every reason at once, each naming its field.

use serde_json::{Map, Value, json};

use crate::{
    API_VERSION, ServingCluster,
    rules::{SCHEMA, broken_rules},
    schema,
};

/// A manifest is a page of text; anything larger is a mistake.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;

/// One field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Dotted path, for example `spec.engine.chunk`.
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub(crate) fn new(field: &str, message: String) -> Self {
        Self { field: field.to_owned(), message }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the document has {bytes} bytes; it must have at most {MAX_DOCUMENT_BYTES}")]
    TooLarge { bytes: usize },
    #[error("not YAML: {0}")]
    Syntax(String),
    #[error("{}", lines(.0))]
    Fields(Vec<FieldError>),
}

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads and checks one `ServingCluster`: structure, types, limits and the rules between fields. Defaults are
/// filled in.
///
/// # Errors
/// `Syntax` with line and column when the text is not YAML; otherwise `Fields`, all of them at once.
pub fn read(text: &str) -> Result<ServingCluster, DocumentError> {
    let value = parse(text)?;
    let mut errors = Vec::new();
    check_envelope(&value, &mut errors);
    if let Some(spec) = value.get("spec") {
        schema::check("spec", &SCHEMA["properties"]["spec"], spec, &mut errors);
    }
    if !errors.is_empty() {
        return Err(DocumentError::Fields(errors));
    }
    let cluster = decode(value)?;
    let broken = broken_rules(&cluster);
    if broken.is_empty() { Ok(cluster) } else { Err(DocumentError::Fields(broken)) }
}

/// Reads a document that this program wrote itself: types are checked, rules are not.
///
/// # Errors
/// As [`read`], without the rules.
pub fn read_unchecked(text: &str) -> Result<ServingCluster, DocumentError> {
    decode(parse(text)?)
}

/// The YAML of a `ServingCluster`; `read` gives back an equal one.
///
/// # Errors
/// `Syntax` when the value has no YAML form.
pub fn write(cluster: &ServingCluster) -> Result<String, DocumentError> {
    serde_saphyr::to_string(cluster).map_err(|error| DocumentError::Syntax(error.to_string()))
}

fn parse(text: &str) -> Result<Value, DocumentError> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLarge { bytes: text.len() });
    }
    serde_saphyr::from_str(text).map_err(|error| DocumentError::Syntax(error.to_string()))
}

fn decode(value: Value) -> Result<ServingCluster, DocumentError> {
    serde_json::from_value(value)
        .map_err(|error| DocumentError::Fields(vec![FieldError::new("", error.to_string())]))
}

/// `apiVersion`, `kind`, `metadata.name` and the fields beside `spec`.
fn check_envelope(value: &Value, errors: &mut Vec<FieldError>) {
    let Some(document) = value.as_object() else {
        let message = "the document must be a ServingCluster: apiVersion, kind, metadata and spec".to_owned();
        errors.push(FieldError::new("", message));
        return;
    };
    let fields = known(&["apiVersion", "kind", "metadata", "spec", "status"]);
    for name in document.keys().filter(|name| !fields.contains_key(*name)) {
        errors.push(schema::unknown("", name, &fields));
    }
    check_equals(document, "apiVersion", API_VERSION, errors);
    check_equals(document, "kind", "ServingCluster", errors);
    if !document.contains_key("spec") {
        errors.push(FieldError::new("spec", "is required".to_owned()));
    }
    match document.get("metadata") {
        Some(metadata) => schema::check("metadata", &metadata_schema(), metadata, errors),
        None => errors.push(FieldError::new("metadata.name", "is required".to_owned())),
    }
}

fn check_equals(document: &Map<String, Value>, name: &str, wanted: &str, errors: &mut Vec<FieldError>) {
    let message = match document.get(name) {
        Some(Value::String(found)) if found == wanted => return,
        Some(found) => format!("must be {wanted}, not {found}"),
        None => format!("is required and must be {wanted}"),
    };
    errors.push(FieldError::new(name, message));
}

fn known(names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect()
}

/// The part of `ObjectMeta` that a user writes, and what a server adds to it: what `get` prints, `apply` takes.
fn metadata_schema() -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": {"type": "object"},
            "annotations": {"type": "object"},
            "generation": {"type": "integer"},
            "creationTimestamp": {"type": "string"},
            "resourceVersion": {"type": "string"},
            "uid": {"type": "string"},
        },
    })
}
