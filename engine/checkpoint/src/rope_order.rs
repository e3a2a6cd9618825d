//! Row order of q and k matrices. GGUF's llama files keep the two rows that turn together next to each
//! other; Hugging Face keeps them half a head apart.

/// Rows `i` and `i + dim/2` of each head become rows `2i` and `2i + 1`.
pub(crate) fn to_interleaved(elements: &[f32], head_dim: usize, row: usize) -> Vec<f32> {
    reorder(elements, head_dim, row, |to| to % 2 * (head_dim / 2) + to / 2)
}

/// Inverse of [`to_interleaved`].
pub(crate) fn to_half(elements: &[f32], head_dim: usize, row: usize) -> Vec<f32> {
    reorder(elements, head_dim, row, |to| to % (head_dim / 2) * 2 + to / (head_dim / 2))
}

/// Within each head, row `to` comes from row `from(to)`.
fn reorder(elements: &[f32], head_dim: usize, row: usize, from: impl Fn(usize) -> usize) -> Vec<f32> {
    let heads = elements.chunks_exact(head_dim * row);
    let rows = heads.flat_map(|head| (0..head_dim).map(move |to| (head, to)));
    rows.flat_map(|(head, to)| head[from(to) * row..][..row].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_each_head_interleave_and_return() {
        // Two heads of four rows with one element each.
        let rows = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        let interleaved = to_interleaved(&rows, 4, 1);
        assert_eq!(interleaved, [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0]);
        assert_eq!(to_half(&interleaved, 4, 1), rows);
    }
}
