//! A stream of launches, and graphs of them.
#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, CudaGraph, CudaStream};

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

    /// A point in the queue whose time is taken when the device gets there.
    pub fn mark(&self) -> Result<Mark, LaunchError> {
        let driver = LaunchError::driver("recording an event");
        let event =
            self.stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(&driver)?;
        event.record(&self.stream).map_err(driver)?;
        Ok(Mark(event))
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

/// A point in time on the device.
pub struct Mark(CudaEvent);

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mark")
    }
}

impl Mark {
    /// Waits until the device is here, and returns the milliseconds since an earlier mark.
    pub fn since(&self, earlier: &Self) -> Result<f64, LaunchError> {
        let driver = LaunchError::driver("reading an event");
        self.0.synchronize().map_err(&driver)?;
        earlier.0.elapsed_ms(&self.0).map(f64::from).map_err(driver)
    }
}

/// Launches that replay as one, on the queue that captured them.
pub struct Graph(CudaGraph);

// SAFETY: the handles belong to this value alone, and the driver takes them from any thread, one at a time.
unsafe impl Send for Graph {}

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
