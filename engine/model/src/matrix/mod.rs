//! Weight matrices `outputs × inputs` and their product with rows.
//!
//! Outputs are packed in groups of sixteen lanes. Every (row, output) is summed over the inputs in one
//! fixed order, whatever the number of rows and threads.

mod affine;
mod float;
mod ggml;
mod input;
mod output;
mod quads;
#[cfg(test)]
mod tests;

use shoal_checkpoint::DType;

use crate::simd::{Isa, Kernel, LANES, Lanes};
use crate::team::Team;

use affine::{Centred, Halves, Packed, Scaling, Shifted};
use float::{Bf16Lanes, F16Lanes, F32Lanes, FloatLanes};
use ggml::{BLOCK, block};
pub(crate) use input::{Input, eleven_bits};
use input::{InputBlock, tiles};
pub(crate) use output::Output;
use quads::{Bytes, Nibbles, Quads};

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

/// Packed inputs of sixteen outputs.
pub(crate) trait Column: Copy + Send + Sync + 'static {
    const ZERO: Self;
    /// Inputs in a column.
    const INPUTS: usize;
    /// Takes column `index` of an output's row as stored in a file of type `dtype`.
    fn pack(&mut self, lane: usize, dtype: DType, row: &[u8], index: usize);
    fn unpack(&self, lane: usize, to: &mut [f32]);
    /// What the columns multiply in `R` rows.
    type Inputs<'a, const R: usize>: Copy;
    fn inputs<const R: usize>(input: &Input, first: usize) -> Self::Inputs<'_, R>;
    /// Adds the part of this column, number `index`, to the sums of `R` rows.
    fn add<S: Isa, const R: usize>(
        &self,
        s: S,
        sums: &mut [S::F; R],
        inputs: Self::Inputs<'_, R>,
        index: usize,
    );
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

    type Inputs<'a, const R: usize> = &'a [[InputBlock; R]];

    #[inline(always)]
    fn inputs<const R: usize>(input: &Input, first: usize) -> &[[InputBlock; R]] {
        input.tile(first)
    }

    #[inline(always)]
    fn add<S: Isa, const R: usize>(
        &self,
        s: S,
        sums: &mut [S::F; R],
        inputs: &[[InputBlock; R]],
        index: usize,
    ) {
        self.accumulate(s, sums, &inputs[index]);
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

    type Inputs<'a, const R: usize> = [&'a [f32]; R];

    #[inline(always)]
    fn inputs<const R: usize>(input: &Input, first: usize) -> [&[f32]; R] {
        std::array::from_fn(|r| input.row(first + r))
    }

    #[inline(always)]
    fn add<S: Isa, const R: usize>(&self, s: S, sums: &mut [S::F; R], inputs: [&[f32]; R], index: usize) {
        let weights = self.load(s);
        for (sum, input) in sums.iter_mut().zip(inputs) {
            *sum = s.fma(weights, s.splat(input[index]), *sum);
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
        for (group, out) in self.tiles.chunks_mut(rows).enumerate() {
            let columns = self.grouped.group(self.first_group + group);
            for tile in tiles(rows) {
                let (first, out) = (tile.start, &mut out[tile]);
                match out {
                    [a, b, c, d, e, f, g, h] => {
                        multiply_rows(s, columns, self.input, first, [a, b, c, d, e, f, g, h]);
                    }
                    [a, b, c, d] => multiply_rows(s, columns, self.input, first, [a, b, c, d]),
                    [a, b] => multiply_rows(s, columns, self.input, first, [a, b]),
                    [a] => multiply_rows(s, columns, self.input, first, [a]),
                    _ => {}
                }
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
    out: [&mut Lanes; R],
) {
    let inputs = T::inputs::<R>(input, first);
    let mut sums = [s.splat(0.0); R];
    for (index, column) in columns.iter().enumerate() {
        column.add(s, &mut sums, inputs, index);
    }
    for (sum, out) in sums.into_iter().zip(out) {
        s.store(sum, out);
    }
}
