//! Plain f32 arithmetic.

/// `outputs × inputs`, row-major.
#[derive(Debug)]
pub(super) struct Dense {
    pub(super) inputs: usize,
    pub(super) weights: Vec<f32>,
}

impl Dense {
    pub(super) fn row(&self, output: usize) -> &[f32] {
        &self.weights[output * self.inputs..][..self.inputs]
    }

    pub(super) fn multiply(&self, input: &[f32]) -> Vec<f32> {
        self.weights.chunks_exact(self.inputs).map(|row| dot(row, input)).collect()
    }
}

/// Sixteen partial sums, so that the compiler may use vectors, added in order at the end.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut partial = [0.0; 16];
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in partial.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    partial.iter().sum::<f32>() + rest
}

pub(super) fn add(to: &mut [f32], values: &[f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}

pub(super) fn rms_norm(values: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let scale = 1.0 / (dot(values, values) / values.len() as f32 + eps).sqrt();
    values.iter().zip(weight).map(|(v, w)| v * scale * w).collect()
}

pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

pub(super) fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
    }
    let total: f32 = scores.iter().sum();
    for score in scores {
        *score /= total;
    }
}

pub(super) fn write(to: &mut [u8], values: &[f32]) {
    for (to, value) in to.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *to = value.to_le_bytes();
    }
}

pub(super) fn read(from: &[u8]) -> Vec<f32> {
    from.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
