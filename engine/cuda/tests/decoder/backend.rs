//! Pages that travel: out of one device's memory, through the host's, into another's.

use shoal_cuda::CudaBackend;
use shoal_model::{Backend as _, LogitRows, SequenceRows};

use crate::drive::{best, device, model, safetensors, tokens};

const PROMPT: usize = 150;

fn backend() -> Option<CudaBackend> {
    Some(CudaBackend::over(device(&safetensors(&model("qwen3")))?).expect("a backend"))
}

/// Logits after each of a few tokens that follow the prompt in these pages.
fn go_on(backend: &mut CudaBackend, first: u32, pages: &[u32]) -> Vec<Vec<f32>> {
    let (mut token, mut rows) = (first, Vec::new());
    for step in 0..6 {
        let mut logits = Vec::new();
        let tokens = [token];
        let row = SequenceRows { tokens: &tokens, start: PROMPT + step, pages, logits: LogitRows::Last };
        backend.forward(&[row], &mut logits).expect("a step");
        token = best(&logits);
        rows.push(logits);
    }
    rows
}

#[test]
fn a_prompt_that_travelled_is_continued_to_the_bit() {
    let (Some(mut here), Some(mut there)) = (backend(), backend()) else { return };
    let (from, to) = ([5, 2, 9], [1, 7, 0]);
    let mut logits = Vec::new();
    let prompt = tokens(4, PROMPT);
    let rows = SequenceRows { tokens: &prompt, start: 0, pages: &from, logits: LogitRows::Last };
    here.forward(&[rows], &mut logits).expect("a step");
    here.publish(&from).expect("published");
    for (from, to) in from.iter().zip(to) {
        let source = here.arena().read(*from).expect("nobody writes");
        there.arena().write(to).expect("free").copy_from_slice(&source);
    }
    there.adopt(&to).expect("adopted");
    let first = best(&logits);
    assert_eq!(go_on(&mut there, first, &to), go_on(&mut here, first, &from));
}

#[test]
fn a_page_that_somebody_holds_is_busy() {
    let Some(mut backend) = backend() else { return };
    let reader = backend.arena().read(3).expect("free");
    assert!(backend.publish(&[3]).expect_err("read").to_string().contains("page 3"));
    drop(reader);
    let writer = backend.arena().write(3).expect("free");
    assert!(backend.adopt(&[3]).expect_err("written").to_string().contains("page 3"));
    drop(writer);
    backend.publish(&[3]).and_then(|()| backend.adopt(&[3])).expect("free again");
}
