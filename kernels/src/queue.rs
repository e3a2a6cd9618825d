//! A stream of launches, and graphs of them.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream};

use crate::gpu::Gpu;
use crate::launch::LaunchError;

/// How a kernel follows the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Starts when the one before has ended.
    Serial,
    /// May be scheduled earlier and waits on the device: the launch gap is hidden.
    Programmatic,
}

/// Work in order on one device. Order between queues is the caller's to keep.
#[derive(Clone)]
pub struct Queue {
    gpu: Arc<Gpu>,
    stream: Arc<CudaStream>,
    chain: Chain,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("gpu", &self.gpu).field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Queue {
    pub fn new(gpu: &Arc<Gpu>, chain: Chain) -> Result<Self, LaunchError> {
        let stream = gpu.context().new_stream().map_err(LaunchError::driver("creating a stream"))?;
        Ok(Self { gpu: Arc::clone(gpu), stream, chain })
    }

    /// The same stream, launching in another way from here on.
    #[must_use]
    pub fn chained(&self, chain: Chain) -> Self {
        Self { chain, ..self.clone() }
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Waits for everything enqueued. An error of any kernel before shows here.
    pub fn synchronize(&self) -> Result<(), LaunchError> {
        self.stream.synchronize().map_err(LaunchError::driver("waiting for the device"))
    }

    /// Records what `enqueue` launches instead of running it. The graph refers to the addresses it saw:
    /// the buffers must outlive its replays.
    pub fn capture(
        &self,
        enqueue: impl FnOnce(&Self) -> Result<(), LaunchError>,
    ) -> Result<Graph, LaunchError> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(LaunchError::driver("beginning a capture"))?;
        let enqueued = enqueue(self);
        let graph = self.stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let graph = graph.map_err(LaunchError::driver("instantiating a graph"))?;
        graph
            .map(Graph)
            .ok_or_else(|| LaunchError::Shape { kernel: "capture", problem: "nothing was launched".into() })
    }
}

/// Launches that replay as one, on the queue that captured them.
pub struct Graph(CudaGraph);

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

impl Graph {
    pub fn replay(&self) -> Result<(), LaunchError> {
        self.0.launch().map_err(LaunchError::driver("replaying a graph"))
    }
}
