//! The threads of a backend and the instruction set they use.

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::simd::Cpu;

/// Splits work into pieces whose borders never change a result.
#[derive(Debug)]
pub(crate) struct Team {
    /// `None` is the calling thread alone.
    pool: Option<ThreadPool>,
    threads: usize,
    cpu: Cpu,
}

impl Team {
    pub(crate) fn new(threads: usize, cpu: Cpu) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = (threads > 1)
            .then(|| {
                let name = |i| format!("model-{i}");
                rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()
            })
            .transpose()?;
        Ok(Self { pool, threads: threads.max(1), cpu })
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Items per task when `items` are divided: all of them for one thread, else a few tasks per thread.
    pub(crate) fn share(&self, items: usize) -> usize {
        const TASKS_PER_THREAD: usize = 3;
        if self.threads == 1 { items.max(1) } else { items.div_ceil(self.threads * TASKS_PER_THREAD).max(1) }
    }

    /// `f(index, chunk)` for each chunk of `size` elements.
    pub(crate) fn chunks<T: Send>(&self, data: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        match &self.pool {
            None => data.chunks_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk)),
            Some(pool) => {
                pool.install(|| data.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk)));
            }
        }
    }

    /// `f(index, chunk of a, chunk of b)`; where `b` is empty its chunks are too.
    pub(crate) fn zip<A: Send, B: Send>(
        &self,
        a: &mut [A],
        a_size: usize,
        b: &mut [B],
        b_size: usize,
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        if b.is_empty() {
            return self.chunks(a, a_size, |i, a| f(i, a, &mut []));
        }
        match &self.pool {
            None => {
                let pairs = a.chunks_mut(a_size).zip(b.chunks_mut(b_size));
                pairs.enumerate().for_each(|(i, (a, b))| f(i, a, b));
            }
            Some(pool) => pool.install(|| {
                let pairs = a.par_chunks_mut(a_size).zip(b.par_chunks_mut(b_size));
                pairs.enumerate().for_each(|(i, (a, b))| f(i, a, b));
            }),
        }
    }
}
