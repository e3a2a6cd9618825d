//! Packing and products of every format.

use shoal_checkpoint::{DType, TensorView, quantize};

use super::{Input, Matrix, Output};
use crate::simd::Cpu;
use crate::team::Team;

const FORMATS: [DType; 11] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
];

/// Not a multiple of a group of outputs.
const OUTPUTS: usize = 37;
const INPUTS: usize = 512;

fn noise(i: usize) -> f32 {
    let mixed = (i as u32 + 1).wrapping_mul(2_654_435_761);
    (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
}

fn team(cpu: Cpu, threads: usize) -> Team {
    Team::new(threads, cpu).expect("threads")
}

/// A matrix and its exact weights.
fn matrix(dtype: DType, team: &Team) -> (Matrix, Vec<f32>) {
    let elements: Vec<f32> = (0..OUTPUTS * INPUTS).map(|i| noise(i) * noise(i / INPUTS)).collect();
    let bytes = quantize(dtype, &elements);
    let view = TensorView { name: "w", dtype, shape: vec![OUTPUTS, INPUTS], bytes: &bytes };
    (Matrix::pack(dtype, OUTPUTS, INPUTS, &bytes, team), view.to_f32().expect("whole blocks"))
}

fn product(matrix: &Matrix, rows: std::ops::Range<usize>, team: &Team) -> Vec<Vec<f32>> {
    let (mut input, mut output) = (Input::default(), Output::default());
    input.resize(rows.len(), INPUTS);
    let first = rows.start;
    input.fill(team, |row, values| {
        for (i, value) in values.iter_mut().enumerate() {
            *value = noise((first + row) * 7919 + i) * 3.0;
        }
    });
    matrix.multiply(&input, &mut output, team);
    let row = |r| {
        let mut values = vec![0.0; OUTPUTS];
        output.copy_row(r, &mut values);
        values
    };
    (0..rows.len()).map(row).collect()
}

#[test]
fn a_packed_row_is_the_row_of_the_file() {
    let team = team(Cpu::best(), 1);
    for dtype in FORMATS {
        let (matrix, exact) = matrix(dtype, &team);
        for (output, exact) in exact.chunks_exact(INPUTS).enumerate() {
            let mut row = vec![0.0; INPUTS];
            matrix.row(output, &mut row);
            for (found, exact) in row.iter().zip(exact) {
                assert!((found - exact).abs() <= 2e-7, "{dtype:?} {output}: {found}, not {exact}");
            }
        }
    }
}

#[test]
fn products_are_near_the_exact_ones() {
    let team = team(Cpu::best(), 1);
    for dtype in FORMATS {
        let (matrix, weights) = matrix(dtype, &team);
        for (r, found) in product(&matrix, 0..3, &team).iter().enumerate() {
            for (found, weights) in found.iter().zip(weights.chunks_exact(INPUTS)) {
                let term = |(i, w): (usize, &f32)| f64::from(noise(r * 7919 + i) * 3.0) * f64::from(*w);
                let exact: f64 = weights.iter().enumerate().map(term).sum();
                let magnitude: f64 = weights.iter().enumerate().map(term).map(f64::abs).sum();
                // Half a step of 8 bits on every input, or the rounding of f32.
                let bound = magnitude * if dtype.block().0 > 1 { 0.5 / 127.0 } else { 1e-6 };
                assert!((f64::from(*found) - exact).abs() < bound, "{dtype:?}: {found}, not {exact}");
            }
        }
    }
}

#[test]
fn rows_threads_and_instruction_sets_do_not_change_a_bit() {
    for dtype in FORMATS {
        let alone = team(Cpu::Portable, 1);
        let (matrix, _) = matrix(dtype, &alone);
        let expected: Vec<Vec<f32>> = (0..15).flat_map(|r| product(&matrix, r..r + 1, &alone)).collect();
        for cpu in Cpu::available() {
            for threads in [1, 2] {
                let team = team(cpu, threads);
                assert_eq!(product(&matrix, 0..15, &team), expected, "{dtype:?} on {}", cpu.name());
            }
        }
    }
}
