use half::bf16;
use shoal_kernels::{Buffer, gather};

use crate::device::{Random, bits, poisoned, queue};

#[test]
fn rows_come_back_exactly_and_nothing_beside_them_is_written() {
    let Some(queue) = queue() else { return };
    for (tokens, vocab, hidden, gap) in
        [(1, 1, 8, 0), (7, 97, 576, 8), (257, 1000, 4096, 0), (8192, 49152, 576, 64)]
    {
        let mut random = Random::new(tokens as u64);
        let table: Vec<bf16> = random.numbers(vocab * hidden, 2.0);
        let ids: Vec<u32> = (0..tokens).map(|_| random.below(vocab) as u32).collect();
        let on_device = Buffer::from_host(&queue, &table).unwrap();
        let id_buffer = Buffer::from_host(&queue, &ids).unwrap();
        let stride = hidden + gap;
        let mut out = poisoned::<bf16>(&queue, tokens * stride);
        let rows = on_device.rows(vocab, hidden).unwrap();
        let mut target = out.strided_mut(0, tokens, hidden, stride).unwrap();
        gather(&queue, rows, id_buffer.rows(1, tokens).unwrap(), &mut target).unwrap();
        let got = out.read(&queue).unwrap();
        for (row, id) in got.chunks(stride).zip(&ids) {
            let start = *id as usize * hidden;
            assert_eq!(row[..hidden], table[start..start + hidden]);
            assert!(row[hidden..].iter().all(|x| x.to_bits() == 0xffff), "the gap between rows was written");
        }
    }
}

#[test]
fn an_id_outside_the_table_gives_a_row_of_nan_and_leaves_its_neighbours() {
    let Some(queue) = queue() else { return };
    let table: Vec<bf16> = Random::new(3).numbers(5 * 64, 1.0);
    let on_device = Buffer::from_host(&queue, &table).unwrap();
    let ids = Buffer::from_host(&queue, &[4_u32, 5, u32::MAX, 0]).unwrap();
    let mut out = Buffer::<bf16>::new(queue.gpu(), 4 * 64).unwrap();
    out.fill_bytes(&queue, 0).unwrap();
    let mut target = out.rows_mut(4, 64).unwrap();
    gather(&queue, on_device.rows(5, 64).unwrap(), ids.rows(1, 4).unwrap(), &mut target).unwrap();
    let got = out.read(&queue).unwrap();
    assert!(got[64..192].iter().all(|x| x.is_nan()));
    assert_eq!(bits(&got[..64]), bits(&table[256..]));
    assert_eq!(bits(&got[192..]), bits(&table[..64]));
}
