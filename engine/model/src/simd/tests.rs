//! Every instruction set against the portable one, bit for bit.

use super::portable::Portable;
use super::{Cpu, Isa, Kernel, LANES, Lanes, Quad, exp, sum, sum_of_squares};

/// Values of many magnitudes, both signs, zeros.
fn lanes(seed: u32) -> Lanes {
    std::array::from_fn(|l| {
        let mixed = (seed * 31 + l as u32).wrapping_mul(2_654_435_761);
        let magnitude = 2.0_f32.powi((mixed >> 27) as i32 - 16);
        if mixed.is_multiple_of(13) {
            0.0
        } else {
            (f64::from(mixed) / f64::from(u32::MAX) - 0.5) as f32 * magnitude
        }
    })
}

fn quad(seed: u32) -> Quad {
    std::array::from_fn(|i| ((seed + i as u32).wrapping_mul(2_654_435_761) >> 24) as u8)
}

/// Bits of everything that an instruction set computes from a seed.
struct Everything<'a> {
    seed: u32,
    bits: &'a mut Vec<u32>,
}

impl Kernel for Everything<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { seed, bits } = self;
        let (a, b, c) = (s.load(&lanes(seed)), s.load(&lanes(seed + 1)), s.load(&lanes(seed + 2)));
        let mut keep = |value: S::F| {
            let mut lanes = [0.0; LANES];
            s.store(value, &mut lanes);
            bits.extend(lanes.map(f32::to_bits));
        };
        for value in [s.add(a, b), s.sub(a, b), s.mul(a, b), s.max(a, b), s.fma(a, b, c), s.round(a)] {
            keep(value);
        }
        keep(s.div(a, s.add(s.mul(b, b), s.splat(1.0))));
        keep(s.pow2(s.round(s.splat(seed as f32 % 250.0 - 124.0))));
        keep(exp(s, a));
        let halves: [u16; LANES] = std::array::from_fn(|l| (seed * 97 + l as u32 * 4001) as u16 & 0x7bff);
        keep(s.widen_f16(&halves));
        keep(s.widen_bf16(&halves));
        let mut tile: [S::F; LANES] = std::array::from_fn(|r| s.load(&lanes(seed + r as u32)));
        s.transpose(&mut tile);
        tile.into_iter().for_each(&mut keep);
        keep(fold_sixteen(s, seed));
        for weights in [s.bytes(&quad(seed)), s.low_nibbles(&quad(seed)), s.high_nibbles(&quad(seed))] {
            keep(s.i32_to_f32(s.dot4(s.splat_i32(-5), weights, seed.wrapping_mul(2_654_435_761) as i32)));
        }
        // The largest sums: what a saturating multiply would get wrong.
        keep(s.i32_to_f32(s.dot4(s.splat_i32(0), s.bytes(&[255; 64]), i32::from_le_bytes([127; 4]))));
        keep(s.i32_to_f32(s.dot4(s.splat_i32(0), s.bytes(&[255; 64]), i32::from_le_bytes([129; 4]))));
        let mut narrow = [0; LANES];
        s.narrow_f16(a, &mut narrow);
        bits.extend(narrow.map(u32::from));
        let within = |value: f32| (value * 40.0).clamp(-127.0, 127.0);
        let scaled = s.load(&lanes(seed).map(within));
        bits.extend(s.narrow_i8(scaled).map(|v| v as u32));
        bits.push(sum(s, a).to_bits());
        bits.push(sum_of_squares(s, &lanes(seed).repeat(3)[..41]).to_bits());
    }
}

/// The sums of sixteen rows by folding.
#[inline(always)]
fn fold_sixteen<S: Isa>(s: S, seed: u32) -> S::F {
    let row = |r: u32| s.load(&lanes(seed + r));
    let four =
        |r: u32| s.fold_quarters(s.fold_halves(row(r), row(r + 4)), s.fold_halves(row(r + 8), row(r + 12)));
    s.fold_last(s.fold_pairs(four(0), four(1)), s.fold_pairs(four(2), four(3)))
}

struct Fold<'a>(u32, &'a mut Lanes);

impl Kernel for Fold<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        s.store(fold_sixteen(s, self.0), self.1);
    }
}

#[test]
fn folding_sixteen_rows_gives_the_sum_of_each_to_the_bit() {
    for seed in 0..500 {
        for cpu in Cpu::available() {
            let mut folded = [0.0; LANES];
            cpu.run(Fold(seed, &mut folded));
            for (r, found) in (0..).zip(folded) {
                let alone = sum(Portable, lanes(seed + r));
                assert_eq!(found.to_bits(), alone.to_bits(), "row {r} of seed {seed} on {}", cpu.name());
            }
        }
    }
}

fn everything(cpu: Cpu, seed: u32) -> Vec<u32> {
    let mut bits = Vec::new();
    cpu.run(Everything { seed, bits: &mut bits });
    bits
}

#[test]
fn every_instruction_set_computes_the_same_bits() {
    for seed in 0..500 {
        let portable = everything(Cpu::Portable, seed);
        for cpu in Cpu::available() {
            let found = everything(cpu, seed);
            let differs = found.iter().zip(&portable).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{} at seed {seed}", cpu.name());
        }
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    for step in -87_000..88_000 {
        let x = step as f32 / 1000.0;
        let exact = f64::from(x).exp();
        let found = exp(Portable, [x; LANES])[0];
        let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1) - exact as f32);
        assert!((f64::from(found) - exact).abs() <= 2.0 * unit, "exp({x}) = {found}, not {exact}");
    }
    assert!(exp(Portable, [f32::NEG_INFINITY; LANES])[0] < 2e-38, "below the range is as good as zero");
}
