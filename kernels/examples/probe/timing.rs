//! Device time between two events on a queue.

use cudarc::driver::sys::CUevent_flags;
use shoal_kernels::Queue;

use crate::Outcome;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) median_ms: f64,
    pub(crate) best_ms: f64,
}

/// Three runs to warm up, then `repeats` timed one by one.
pub(crate) fn repeat(queue: &Queue, repeats: usize, mut run: impl FnMut() -> Outcome<()>) -> Outcome<Times> {
    for _ in 0..3 {
        run()?;
    }
    queue.synchronize()?;
    let event = || queue.stream().context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    let (begin, end) = (event()?, event()?);
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        begin.record(queue.stream())?;
        run()?;
        end.record(queue.stream())?;
        end.synchronize()?;
        times.push(f64::from(begin.elapsed_ms(&end)?));
    }
    times.sort_by(f64::total_cmp);
    Ok(Times { median_ms: times[repeats / 2], best_ms: times[0] })
}
