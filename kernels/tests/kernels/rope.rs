use half::{bf16, f16};
use shoal_kernels::{
    Buffer, KvElement, KvPages, NO_SLOT, PAGE_TOKENS, Pairing, QkRope, Queue, RopeTables, qk_rope_write,
    reference,
};

use crate::device::{Number, Random, assert_close, bits, poisoned, queue, wide};

struct Case {
    tokens: usize,
    q_heads: usize,
    kv_heads: usize,
    dim: usize,
    pairing: Pairing,
    norm: bool,
}

const LAYERS: usize = 3;
const LAYER: usize = 1;
const PAGES: usize = 9;
const POSITIONS: usize = 700;
const EPS: f32 = 1e-6;

struct Output<T> {
    q: Vec<bf16>,
    pages: Vec<T>,
}

/// One case's input, on the host.
struct Input {
    qkv: Vec<bf16>,
    norm: [Vec<bf16>; 2],
    tables: [Vec<f32>; 2],
    positions: Vec<u32>,
    slots: Vec<u32>,
}

fn input(case: &Case) -> Input {
    let mut random = Random::new(case.tokens as u64 + case.dim as u64);
    let width = (case.q_heads + 2 * case.kv_heads) * case.dim;
    let mut free: Vec<u32> = (0..(PAGES * PAGE_TOKENS) as u32).collect();
    let mut slots: Vec<u32> = (0..case.tokens).map(|_| free.swap_remove(random.below(free.len()))).collect();
    if case.tokens > 2 {
        slots[1] = NO_SLOT;
    }
    let angle = |i: usize| (i / (case.dim / 2)) as f32 * 0.5_f32.powi((i % (case.dim / 2)) as i32 % 12);
    let angles: Vec<f32> = (0..POSITIONS * case.dim / 2).map(angle).collect();
    Input {
        qkv: random.numbers(case.tokens * width, 4.0),
        norm: [random.numbers(case.dim, 2.0), random.numbers(case.dim, 2.0)],
        tables: [angles.iter().map(|a| a.cos()).collect(), angles.iter().map(|a| a.sin()).collect()],
        positions: (0..case.tokens).map(|_| random.below(POSITIONS) as u32).collect(),
        slots,
    }
}

fn run<T: KvElement + Number>(queue: &Queue, case: &Case, input: &Input) -> Output<T> {
    let width = (case.q_heads + 2 * case.kv_heads) * case.dim;
    let qkv = Buffer::from_host(queue, &input.qkv).unwrap();
    let [q_norm, k_norm] = input.norm.each_ref().map(|weight| Buffer::from_host(queue, weight).unwrap());
    let [cos, sin] = input.tables.each_ref().map(|table| Buffer::from_host(queue, table).unwrap());
    let positions = Buffer::from_host(queue, &input.positions).unwrap();
    let slots = Buffer::from_host(queue, &input.slots).unwrap();
    let elements = PAGES * KvPages::<T>::page_elements(LAYERS, case.kv_heads, case.dim);
    let mut pages = KvPages::new(poisoned::<T>(queue, elements), [LAYERS, case.kv_heads, case.dim]).unwrap();
    let mut q = poisoned::<bf16>(queue, case.tokens * case.q_heads * case.dim);
    let step = QkRope {
        qkv: qkv.rows(case.tokens, width).unwrap(),
        norm: case.norm.then(|| (q_norm.rows(1, case.dim).unwrap(), k_norm.rows(1, case.dim).unwrap(), EPS)),
        tables: RopeTables {
            cos: cos.rows(POSITIONS, case.dim / 2).unwrap(),
            sin: sin.rows(POSITIONS, case.dim / 2).unwrap(),
        },
        pairing: case.pairing,
        positions: positions.rows(1, case.tokens).unwrap(),
        slots: slots.rows(1, case.tokens).unwrap(),
    };
    let mut target = q.rows_mut(case.tokens, case.q_heads * case.dim).unwrap();
    qk_rope_write(queue, &step, &mut pages, LAYER, &mut target).unwrap();
    Output { q: q.read(queue).unwrap(), pages: pages.buffer().read(queue).unwrap() }
}

/// Head `head` of token `token` as it leaves the kernel; heads count through q, k and v.
fn expected(case: &Case, input: &Input, token: usize, head: usize) -> Vec<f64> {
    let width = (case.q_heads + 2 * case.kv_heads) * case.dim;
    let start = token * width + head * case.dim;
    let mut row = wide(&input.qkv[start..start + case.dim]);
    if head >= case.q_heads + case.kv_heads {
        return row;
    }
    if case.norm {
        row = reference::rmsnorm(&row, &wide(&input.norm[usize::from(head >= case.q_heads)]), EPS.into());
    }
    let half = case.dim / 2;
    let at = input.positions[token] as usize * half;
    let [cos, sin] = input.tables.each_ref().map(|table| wide(&table[at..at + half]));
    reference::rope(&mut row, &cos, &sin, case.pairing);
    row
}

fn agrees<T: KvElement + Number>(queue: &Queue, case: &Case) {
    let input = input(case);
    let got = run::<T>(queue, case, &input);
    let name =
        format!("rope {:?} {}x{}+{}x{}", case.pairing, case.tokens, case.q_heads, case.kv_heads, case.dim);
    let heads = |token| (0..case.q_heads).map(move |head| (token, head));
    let q: Vec<f64> = (0..case.tokens)
        .flat_map(heads)
        .flat_map(|(token, head)| expected(case, &input, token, head))
        .collect();
    assert_close(&format!("{name} q"), &got.q, &q, 1.0 / 250.0, 1e-5);

    let (mut written, mut want) = (Vec::new(), Vec::new());
    let mut untouched = vec![true; got.pages.len()];
    for (token, slot) in input.slots.iter().enumerate().filter(|(_, slot)| **slot != NO_SLOT) {
        let (page, offset) = (*slot as usize / PAGE_TOKENS, *slot as usize % PAGE_TOKENS);
        for head in 0..2 * case.kv_heads {
            let (part, kv_head) = (head / case.kv_heads, head % case.kv_heads);
            let run = (((page * case.kv_heads + kv_head) * LAYERS + LAYER) * 2 + part) * PAGE_TOKENS;
            let start = (run + offset) * case.dim;
            written.extend_from_slice(&got.pages[start..start + case.dim]);
            want.extend(expected(case, &input, token, case.q_heads + head));
            untouched[start..start + case.dim].fill(false);
        }
    }
    assert_close(&format!("{name} kv"), &written, &want, 1.0 / 250.0, 1e-5);
    let kept = got.pages.iter().zip(&untouched).filter(|(_, untouched)| **untouched);
    assert!(kept.clone().all(|(x, _)| x.wide().is_nan()), "{name}: something beside the slots was written");

    let again = run::<T>(queue, case, &input);
    assert_eq!(bits(&got.q), bits(&again.q), "{name}: twice the same");
    assert_eq!(bits(&got.pages), bits(&again.pages), "{name}: twice the same pages");
}

fn cases(pairing: Pairing) -> [Case; 5] {
    let case = |tokens, [q_heads, kv_heads, dim]: [usize; 3], norm| Case {
        tokens,
        q_heads,
        kv_heads,
        dim,
        pairing,
        norm,
    };
    [
        case(1, [1, 1, 64], false),
        case(7, [9, 3, 64], false),
        case(64, [32, 4, 128], true),
        case(129, [5, 1, 64], true),
        case(257, [32, 8, 128], false),
    ]
}

#[test]
fn halves_rotate_and_land_in_their_slots() {
    let Some(queue) = queue() else { return };
    for case in &cases(Pairing::Half) {
        agrees::<bf16>(&queue, case);
        agrees::<f16>(&queue, case);
    }
}

#[test]
fn neighbours_rotate_and_land_in_their_slots() {
    let Some(queue) = queue() else { return };
    for case in &cases(Pairing::Interleaved) {
        agrees::<bf16>(&queue, case);
        agrees::<f16>(&queue, case);
    }
}
