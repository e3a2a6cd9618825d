//! Weight matrices `outputs × inputs` and their product with rows.
//!
//! Outputs are packed in groups of sixteen lanes. Every (row, output) is summed over the inputs in one
//! fixed order, whatever the number of rows and threads.

mod affine;
mod float;
mod ggml;
mod input;
#[cfg(test)]
mod tests;

use shoal_checkpoint::DType;

use crate::simd::{Isa, Kernel, LANES, Lanes};
use crate::team::Team;

use affine::{Bytes, Centred, Halves, Nibbles, Packed, Quads, Scaling, Shifted};
use float::{Bf16Lanes, F16Lanes, F32Lanes, FloatLanes};
use ggml::{BLOCK, block};
use input::InputBlock;
pub(crate) use input::{Input, eleven_bits};

/// Packed columns of a group: `[group][column]`, a column being one input or a block of 32.
#[derive(Debug)]
pub(crate) struct Grouped<T> {
    columns: Vec<T>,
    columns_per_group: usize,
}

/// A matrix in the format of its file.
#[derive(Debug)]
pub(crate) struct Matrix {
    outputs: usize,
    inputs: usize,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    F32(Grouped<F32Lanes>),
    F16(Grouped<F16Lanes>),
    BF16(Grouped<Bf16Lanes>),
    Q4Centred(Grouped<Packed<Nibbles, Centred<u16>>>),
    Q4Shifted(Grouped<Packed<Nibbles, Shifted<u16>>>),
    Q4Wide(Grouped<Packed<Nibbles, Shifted<f32>>>),
    Q8Centred(Grouped<Packed<Bytes, Centred<u16>>>),
    Q8Shifted(Grouped<Packed<Bytes, Shifted<u16>>>),
    Q8Wide(Grouped<Packed<Bytes, Shifted<f32>>>),
    Q8Halves(Grouped<Packed<Bytes, Halves>>),
}

/// Applies an expression to the grouped columns of whatever storage.
macro_rules! each_storage {
    ($storage:expr, $grouped:ident => $e:expr) => {
        match $storage {
            Storage::F32($grouped) => $e,
            Storage::F16($grouped) => $e,
            Storage::BF16($grouped) => $e,
            Storage::Q4Centred($grouped) => $e,
            Storage::Q4Shifted($grouped) => $e,
            Storage::Q4Wide($grouped) => $e,
            Storage::Q8Centred($grouped) => $e,
            Storage::Q8Shifted($grouped) => $e,
            Storage::Q8Wide($grouped) => $e,
            Storage::Q8Halves($grouped) => $e,
        }
    };
}

impl Matrix {
    /// Packs a row-major matrix; `bytes` has exactly the size that the format and the shape imply, and
    /// the rows of a block format are whole blocks.
    pub(crate) fn pack(dtype: DType, outputs: usize, inputs: usize, bytes: &[u8], team: &Team) -> Self {
        let shape = (outputs, inputs);
        let storage = match dtype {
            DType::F32 => Storage::F32(pack(dtype, shape, bytes, team)),
            DType::F16 => Storage::F16(pack(dtype, shape, bytes, team)),
            DType::BF16 => Storage::BF16(pack(dtype, shape, bytes, team)),
            DType::Q4_0 => Storage::Q4Centred(pack(dtype, shape, bytes, team)),
            DType::Q4_1 => Storage::Q4Shifted(pack(dtype, shape, bytes, team)),
            DType::Q5_0 | DType::Q8_0 => Storage::Q8Centred(pack(dtype, shape, bytes, team)),
            DType::Q5_1 => Storage::Q8Shifted(pack(dtype, shape, bytes, team)),
            DType::Q4K => Storage::Q4Wide(pack(dtype, shape, bytes, team)),
            DType::Q5K => Storage::Q8Wide(pack(dtype, shape, bytes, team)),
            DType::Q6K => Storage::Q8Halves(pack(dtype, shape, bytes, team)),
        };
        Self { outputs, inputs, storage }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Values of one output's weights.
    pub(crate) fn row(&self, output: usize, to: &mut [f32]) {
        let (group, lane) = (output / LANES, output % LANES);
        each_storage!(&self.storage, grouped => {
            for (column, values) in grouped.group(group).iter().zip(to.chunks_mut(column_inputs(grouped))) {
                column.unpack(lane, values);
            }
        });
    }

    /// `out[row][output] = Σ input[row][i] × weight[output][i]`.
    pub(crate) fn multiply(&self, input: &Input, out: &mut Output, team: &Team) {
        debug_assert_eq!(input.width, self.inputs);
        out.resize(input.rows, self.outputs);
        let groups_per_task = team.share(out.groups());
        let cpu = team.cpu();
        each_storage!(&self.storage, grouped => {
            team.chunks(&mut out.tiles, groups_per_task * input.rows, |task, tiles| {
                let first_group = task * groups_per_task;
                cpu.run(Multiply { grouped, first_group, input, tiles });
            });
        });
    }
}

/// Rows that leave a matrix, as `[group of 16 outputs][row]`.
#[derive(Debug, Default)]
pub(crate) struct Output {
    rows: usize,
    width: usize,
    tiles: Vec<Lanes>,
}

impl Output {
    fn resize(&mut self, rows: usize, width: usize) {
        (self.rows, self.width) = (rows, width);
        self.tiles.resize(rows * width.div_ceil(LANES), [0.0; LANES]);
    }

    fn groups(&self) -> usize {
        self.width.div_ceil(LANES)
    }

    /// Sixteen values of a row; those beyond the width are zero.
    #[inline]
    pub(crate) fn lanes(&self, row: usize, group: usize) -> &Lanes {
        &self.tiles[group * self.rows + row]
    }

    /// Passes the row in pieces of at most sixteen values to `f(first, values)`.
    #[inline]
    pub(crate) fn for_row(&self, row: usize, mut f: impl FnMut(usize, &[f32])) {
        for group in 0..self.groups() {
            let first = group * LANES;
            f(first, &self.lanes(row, group)[..LANES.min(self.width - first)]);
        }
    }

    pub(crate) fn copy_row(&self, row: usize, to: &mut [f32]) {
        self.for_row(row, |first, values| to[first..first + values.len()].copy_from_slice(values));
    }
}

/// Packed inputs of sixteen outputs.
pub(crate) trait Column: Copy + Send + Sync + 'static {
    const ZERO: Self;
    /// Inputs in a column.
    const INPUTS: usize;
    /// Takes column `index` of an output's row as stored in a file of type `dtype`.
    fn pack(&mut self, lane: usize, dtype: DType, row: &[u8], index: usize);
    fn unpack(&self, lane: usize, to: &mut [f32]);
    /// What a column multiplies in one row.
    type Input;
    fn inputs(input: &Input, row: usize) -> &[Self::Input];
    /// Adds this column's part to the sums of `R` rows.
    fn add<S: Isa, const R: usize>(&self, s: S, sums: &mut [S::F; R], inputs: [&Self::Input; R]);
}

impl<Q: Quads, C: Scaling> Column for Packed<Q, C> {
    const ZERO: Self = Self::ZERO;
    const INPUTS: usize = BLOCK;

    #[inline]
    fn pack(&mut self, lane: usize, dtype: DType, row: &[u8], index: usize) {
        self.set(lane, &block(dtype, row, index));
    }

    fn unpack(&self, lane: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.get(lane).dequantize());
    }

    type Input = InputBlock;

    #[inline(always)]
    fn inputs(input: &Input, row: usize) -> &[InputBlock] {
        input.block_row(row)
    }

    #[inline(always)]
    fn add<S: Isa, const R: usize>(&self, s: S, sums: &mut [S::F; R], inputs: [&InputBlock; R]) {
        self.accumulate(s, sums, inputs);
    }
}

impl<T: FloatLanes> Column for T {
    const ZERO: Self = T::ZERO;
    const INPUTS: usize = 1;

    #[inline]
    fn pack(&mut self, lane: usize, _: DType, row: &[u8], index: usize) {
        self.set(lane, &row[index * T::BYTES..]);
    }

    fn unpack(&self, lane: usize, to: &mut [f32]) {
        to[0] = self.get(lane);
    }

    type Input = f32;

    #[inline(always)]
    fn inputs(input: &Input, row: usize) -> &[f32] {
        input.row(row)
    }

    #[inline(always)]
    fn add<S: Isa, const R: usize>(&self, s: S, sums: &mut [S::F; R], inputs: [&f32; R]) {
        let weights = self.load(s);
        for (sum, input) in sums.iter_mut().zip(inputs) {
            *sum = s.fma(weights, s.splat(*input), *sum);
        }
    }
}

fn column_inputs<T: Column>(_: &Grouped<T>) -> usize {
    T::INPUTS
}

impl<T> Grouped<T> {
    #[inline]
    fn group(&self, group: usize) -> &[T] {
        &self.columns[group * self.columns_per_group..][..self.columns_per_group]
    }
}

fn pack<T: Column>(dtype: DType, (outputs, inputs): (usize, usize), bytes: &[u8], team: &Team) -> Grouped<T> {
    let row_bytes = bytes.len() / outputs;
    let columns_per_group = inputs / T::INPUTS;
    let mut columns = vec![T::ZERO; outputs.div_ceil(LANES) * columns_per_group];
    team.chunks(&mut columns, columns_per_group, |group, columns| {
        let rows = bytes.chunks_exact(row_bytes).skip(group * LANES).take(LANES);
        for (lane, row) in rows.enumerate() {
            for (index, column) in columns.iter_mut().enumerate() {
                column.pack(lane, dtype, row, index);
            }
        }
    });
    Grouped { columns, columns_per_group }
}

struct Multiply<'a, T> {
    grouped: &'a Grouped<T>,
    first_group: usize,
    input: &'a Input,
    /// `[group][row]`, from `first_group`.
    tiles: &'a mut [Lanes],
}

impl<T: Column> Kernel for Multiply<'_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let rows = self.input.rows;
        for (group, tiles) in self.tiles.chunks_mut(rows).enumerate() {
            let columns = self.grouped.group(self.first_group + group);
            let (eights, rest) = tiles.as_chunks_mut::<8>();
            for (i, out) in eights.iter_mut().enumerate() {
                multiply_rows(s, columns, self.input, 8 * i, out);
            }
            let mut first = rows - rest.len();
            let (fours, rest) = rest.as_chunks_mut::<4>();
            for out in fours {
                multiply_rows(s, columns, self.input, first, out);
                first += 4;
            }
            let (twos, rest) = rest.as_chunks_mut::<2>();
            for out in twos {
                multiply_rows(s, columns, self.input, first, out);
                first += 2;
            }
            for out in rest {
                multiply_rows(s, columns, self.input, first, std::array::from_mut(out));
            }
        }
    }
}

/// The columns in order, for `R` rows at once; each row's sum is what it would be alone.
#[inline(always)]
fn multiply_rows<S: Isa, T: Column, const R: usize>(
    s: S,
    columns: &[T],
    input: &Input,
    first: usize,
    out: &mut [Lanes; R],
) {
    let rows: [&[T::Input]; R] = std::array::from_fn(|r| &T::inputs(input, first + r)[..columns.len()]);
    let mut sums = [s.splat(0.0); R];
    for (index, column) in columns.iter().enumerate() {
        column.add(s, &mut sums, std::array::from_fn(|r| &rows[r][index]));
    }
    for (sum, out) in sums.into_iter().zip(out) {
        s.store(sum, out);
    }
}
