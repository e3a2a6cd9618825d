use half::bf16;
use shoal_kernels::{Buffer, KvPages, NO_SLOT, Standing, advance};

use crate::device::queue;

#[test]
fn running_sequences_move_one_token_on() {
    let Some(queue) = queue() else { return };
    let pages = KvPages::new(
        Buffer::<bf16>::new(queue.gpu(), 9 * KvPages::<bf16>::page_elements(1, 1, 64)).unwrap(),
        [1, 1, 64],
    )
    .unwrap();
    // Within a page, at its border, padding, past the table, and a page that does not exist.
    let table = Buffer::from_host(&queue, &[5, 7, 5, 7, 5, 7, 5, 7, 5, 99_u32]).unwrap();
    let mut lengths = Buffer::from_host(&queue, &[3, 64, 0, 128, 64_u32]).unwrap();
    let mut positions = Buffer::from_host(&queue, &[2, 63, 0, 127, 63_u32]).unwrap();
    let mut slots = Buffer::from_host(&queue, &[0, 0, NO_SLOT, 0, 0_u32]).unwrap();
    let mut indices = Buffer::from_host(&queue, &[0, 7, 1, 8, 9_u32]).unwrap();
    {
        let mut standing = Standing {
            lengths: &mut lengths.rows_mut(1, 5).unwrap(),
            positions: &mut positions.rows_mut(1, 5).unwrap(),
            slots: &mut slots.rows_mut(1, 5).unwrap(),
            indices: &mut indices.rows_mut(1, 5).unwrap(),
        };
        advance(&queue, table.rows(5, 2).unwrap(), &pages, &mut standing).unwrap();
    }
    assert_eq!(lengths.read(&queue).unwrap(), [4, 65, 0, 129, 65]);
    assert_eq!(positions.read(&queue).unwrap(), [3, 64, 0, 128, 64]);
    assert_eq!(slots.read(&queue).unwrap(), [5 * 64 + 3, 7 * 64, NO_SLOT, NO_SLOT, NO_SLOT]);
    assert_eq!(indices.read(&queue).unwrap(), [1, 8, 1, 9, 10]);
}
