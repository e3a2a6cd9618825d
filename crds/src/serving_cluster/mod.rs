//! `ServingCluster`: one model served by prefill and decode instances behind one gateway.
//!
//! Doc comments here are what `kubectl explain` prints: a sentence, the unit, the default, an example.
//! Limits are CEL rules alone (no schema minimum beside them), so each refusal has one message.

mod download;
mod spec;
mod status;

pub use download::{Download, DownloadFile};
pub use spec::{
    DecodeSpec, Device, EngineSpec, GatewaySpec, ImagePullPolicy, MAX_NAME_LENGTH, MAX_REPLICAS, ModelSource,
    ModelSpec, PrefillSpec, ServingCluster, ServingClusterSpec,
};
pub use status::{Loading, RoleStatus, ServingClusterStatus, condition};
