//! Where the model is computed: from the command line to a loaded backend.

use std::cell::Cell;

use anyhow::{Context as _, Result, ensure};
use shoal_checkpoint::Checkpoint;
use shoal_cuda::{CudaBackend, CudaModel, CudaOptions};
use shoal_engine::scheduler::Limits;
use shoal_model::{Backend, Compute, KvGeometry, KvMemory, LoadOptions};

use crate::options::{Device, Options};

pub(crate) fn load(checkpoint: &Checkpoint, options: &Options, limits: &Limits) -> Result<Box<dyn Backend>> {
    let tenths = Cell::new(0);
    let progress = |loaded: u64, total: u64| {
        let now = loaded * 10 / total.max(1);
        if now > tenths.replace(now) {
            tracing::info!(percent = now * 10, megabytes = loaded >> 20, "loading weights");
        }
    };
    match options.device {
        Device::Cpu => on_cpu(checkpoint, options, &progress),
        Device::Cuda(number) => {
            let given = [("--threads", options.threads.is_some()), ("--compute", options.compute.is_some())];
            let cpu_only = given.iter().find(|(_, given)| *given).map_or("", |(name, _)| name);
            ensure!(cpu_only.is_empty(), "{cpu_only} is for --device cpu alone");
            on_gpu(checkpoint, options, limits, number, &progress)
        }
    }
}

fn on_cpu(
    checkpoint: &Checkpoint,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<Box<dyn Backend>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = LoadOptions {
        compute: options.compute.map_or_else(Compute::default, Compute::from),
        threads: options.threads.map_or(cores, usize::from),
        kv: KvMemory::Bytes(options.kv_memory),
        page_tokens: KvGeometry::PAGE_TOKENS,
        progress,
    };
    Ok(shoal_model::load(checkpoint, &options)?)
}

fn on_gpu(
    checkpoint: &Checkpoint,
    options: &Options,
    limits: &Limits,
    number: usize,
    progress: &dyn Fn(u64, u64),
) -> Result<Box<dyn Backend>> {
    let Limits { max_batch, chunk, max_context, .. } = *limits;
    let options = CudaOptions {
        device: number,
        kv: KvMemory::Bytes(options.kv_memory),
        max_tokens: max_batch + chunk,
        // A batch of streams, one of prompts for peers, and prompts of streams that wait for their first token.
        max_sequences: (3 * max_batch).min(max_batch + chunk),
        max_context: max_context.min(checkpoint.config().max_context),
        progress,
        ..CudaOptions::default()
    };
    let mut model = CudaModel::load(checkpoint, &options).context("--device cuda")?;
    // The sizes that steps of streams are rounded up to, a third apart at most, and a step full of prompt.
    let mut batches: Vec<usize> =
        [1, 2, 4, 8, 16].into_iter().take_while(|batch| *batch < max_batch).collect();
    batches.extend(
        (4..usize::BITS - 1).flat_map(|power| [3 << (power - 1), 2 << power]).take_while(|b| *b < max_batch),
    );
    batches.push(max_batch);
    model.prepare(&batches, &[chunk]).context("choosing the products")?;
    let backend = CudaBackend::over(model)?;
    tracing::info!(gpu = %backend.model().gpu().name()?, memory = ?backend.model().memory(), "on a GPU");
    Ok(Box::new(backend))
}
