//! A whole model on every instruction set.

use shoal_checkpoint::{Checkpoint, DType, SyntheticModel};

use super::FastBackend;
use crate::simd::Cpu;
use crate::{
    Backend, Compute, KvDtype, KvGeometry, KvMemory, LoadOptions, LogitRows, PageArena, SequenceRows,
};

fn logits(cpu: Cpu, checkpoint: &Checkpoint) -> Vec<u32> {
    let config = checkpoint.config();
    let geometry = KvGeometry {
        layers: config.layers,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        page_tokens: 20,
        dtype: KvDtype::F16,
    };
    let arena = PageArena::new(4, geometry.page_bytes()).expect("memory");
    let kv = KvMemory::Pages(4);
    let options =
        LoadOptions { compute: Compute::Fast, threads: 1, kv, page_tokens: 20, progress: &|_, _| {} };
    let mut backend = FastBackend::load_for(cpu, checkpoint, &options, geometry, arena).expect("it loads");
    let tokens: Vec<u32> = (0..70).map(|i| i * 41 % 288).collect();
    let rows = SequenceRows { tokens: &tokens, start: 0, pages: &[3, 1, 0, 2], logits: LogitRows::Last };
    let mut logits = Vec::new();
    backend.forward(&[rows], &mut logits).expect("a step");
    logits.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_instruction_set_computes_the_same_logits() {
    let directory = tempfile::tempdir().expect("a directory");
    for (model, dtype) in [(SyntheticModel::wide(), DType::Q4K), (SyntheticModel::qwen3(), DType::Q4_1)] {
        let path = directory.path().join(model.name);
        model.write_gguf(&path, dtype).expect("it is written");
        let checkpoint = Checkpoint::open(&path).expect("it opens");
        let portable = logits(Cpu::Portable, &checkpoint);
        for cpu in Cpu::available() {
            assert_eq!(logits(cpu, &checkpoint), portable, "{} on {}", model.name, cpu.name());
        }
    }
}
