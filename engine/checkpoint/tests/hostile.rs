//! Broken and malicious files, one kind of damage each: the error names the place.
#![allow(clippy::expect_used, clippy::panic)] // how a test fails

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use shoal_checkpoint::{Checkpoint, DType, ErrorClass, ModelConfig, SyntheticModel};
use tempfile::TempDir;

/// Valid small files to start from, and a place to put the broken ones.
struct Originals {
    place: TempDir,
    gguf: Vec<u8>,
    safetensors: Vec<u8>,
}

static ORIGINALS: LazyLock<Originals> = LazyLock::new(|| {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut model = SyntheticModel::qwen2();
    let small = ModelConfig { layers: 1, hidden: 32, heads: 2, kv_heads: 1, ffn: 32, ..model.config };
    model.config = small;
    let path = place.path().join("original.gguf");
    model.write_gguf(&path, DType::Q4_0).expect("writable");
    let directory = place.path().join("directory");
    model.write_safetensors(&directory, DType::BF16, 1).expect("writable");
    let gguf = std::fs::read(path).expect("just written");
    let safetensors = std::fs::read(directory.join("model.safetensors")).expect("just written");
    Originals { place, gguf, safetensors }
});

thread_local! {
    /// A copy of the good directory for each test, whose files are replaced case by case.
    static DIRECTORY: TempDir = directory_with(&[]);
}

fn open_gguf(bytes: &[u8]) -> Result<Checkpoint, String> {
    DIRECTORY.with(|directory| {
        let path = directory.path().join("damaged.gguf");
        std::fs::write(&path, bytes).expect("writable");
        open(&path)
    })
}

/// A directory whose other files are good.
fn open_safetensors(bytes: &[u8]) -> Result<Checkpoint, String> {
    DIRECTORY.with(|directory| {
        std::fs::write(directory.path().join("model.safetensors"), bytes).expect("writable");
        open(directory.path())
    })
}

/// A copy of the good directory with some files replaced.
fn directory_with(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir_in(ORIGINALS.place.path()).expect("temporary directory");
    for entry in std::fs::read_dir(ORIGINALS.place.path().join("directory")).expect("listable") {
        let source: PathBuf = entry.expect("readable").path();
        let target = directory.path().join(source.file_name().expect("named"));
        std::fs::copy(&source, &target).expect("writable");
    }
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).expect("writable");
    }
    directory
}

fn open(path: &Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path).map_err(|error| {
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
        error.to_string()
    })
}

fn refusal(result: Result<Checkpoint, String>) -> String {
    result.map(|_| ()).expect_err("this file must be refused")
}

/// What opens can also be used: every tensor decodes and the vocabulary answers.
fn exercise(checkpoint: &Checkpoint) {
    for name in checkpoint.tensor_names() {
        checkpoint.tensor(name).expect("listed").to_f32().expect("checked when opened");
    }
    let vocabulary = checkpoint.vocabulary();
    for id in 0..=vocabulary.len() as u32 {
        vocabulary.bytes(id);
    }
}

/// The file with the bytes after `anchor` (its last occurrence) overwritten.
fn with_bytes_after(anchor: &[u8], skip: usize, replacement: &[u8]) -> Vec<u8> {
    let mut bytes = ORIGINALS.gguf.clone();
    let at = bytes.windows(anchor.len()).rposition(|window| window == anchor).expect("present");
    let start = at + anchor.len() + skip;
    bytes[start..start + replacement.len()].copy_from_slice(replacement);
    bytes
}

const DOWN: &[u8] = b"blk.0.ffn_down.weight";

#[test]
fn the_originals_are_valid() {
    exercise(&open_gguf(&ORIGINALS.gguf).expect("valid"));
    exercise(&open_safetensors(&ORIGINALS.safetensors).expect("valid"));
}

#[test]
fn gguf_headers_are_refused_by_name() {
    let cases: [(Vec<u8>, &str); 7] = [
        (b"GGML".to_vec(), "magic"),
        (Vec::new(), "magic is cut off"),
        (with_header(4, &1u32.to_le_bytes()), "version is 1"),
        (with_header(4, &3u32.to_be_bytes()), "version is 50331648"),
        (with_header(8, &u64::MAX.to_le_bytes()), "tensor count is 18446744073709551615"),
        (with_header(16, &u64::MAX.to_le_bytes()), "key count is 18446744073709551615"),
        (with_header(24, &u64::MAX.to_le_bytes()), "key number 0"),
    ];
    for (bytes, place) in cases {
        let message = refusal(open_gguf(&bytes));
        assert!(message.contains(place), "{message:?} does not name {place:?}");
    }
}

fn with_header(at: usize, replacement: &[u8]) -> Vec<u8> {
    let mut bytes = ORIGINALS.gguf.clone();
    bytes[at..at + replacement.len()].copy_from_slice(replacement);
    bytes
}

#[test]
fn gguf_tensors_are_refused_by_name() {
    // After the name: number of dimensions, two dimensions, type, offset.
    let cases: [(Vec<u8>, &str); 8] = [
        (with_bytes_after(DOWN, 0, &9u32.to_le_bytes()), "of 9 dimensions"),
        (with_bytes_after(DOWN, 0, &0u32.to_le_bytes()), "of 0 dimensions"),
        (with_bytes_after(DOWN, 4, &33u64.to_le_bytes()), "rows of 33 elements"),
        (with_bytes_after(DOWN, 12, &u64::MAX.to_le_bytes()), "sizes that are positive and fit"),
        (with_bytes_after(DOWN, 12, &0u64.to_le_bytes()), "sizes that are positive and fit"),
        (with_bytes_after(DOWN, 20, &99u32.to_le_bytes()), "of GGML type 99"),
        (with_bytes_after(DOWN, 24, &1u64.to_le_bytes()), "at offset 1"),
        (with_bytes_after(DOWN, 24, &(u64::MAX - 31).to_le_bytes()), "is cut off"),
    ];
    for (bytes, problem) in cases {
        let message = refusal(open_gguf(&bytes));
        assert!(
            message.contains("blk.0.ffn_down.weight") && message.contains(problem),
            "{message:?}: {problem:?}"
        );
    }
}

#[test]
fn gguf_tensors_that_repeat_or_are_absent_are_refused_by_name() {
    let rename = |from: &[u8], to: &[u8]| {
        let mut bytes = ORIGINALS.gguf.clone();
        let at = bytes.windows(from.len()).rposition(|window| window == from).expect("present");
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let twice = refusal(open_gguf(&rename(b"blk.0.attn_k.weight", b"blk.0.attn_q.weight")));
    assert!(twice.contains("tensor blk.0.attn_q.weight appears twice"), "{twice}");
    let absent = refusal(open_gguf(&rename(b"blk.0.ffn_up.weight", b"blk.0.ffn_xx.weight")));
    assert!(absent.contains("tensor model.layers.0.mlp.up_proj.weight is missing"), "{absent}");
    let latin1 = refusal(open_gguf(&rename(b"blk.0.ffn_up.weight", b"blk.0.ffn_\xFFp.weight")));
    assert!(latin1.contains("is not UTF-8"), "{latin1}");
}

#[test]
fn gguf_keys_are_refused_by_name() {
    // After the key: value type, then the value; of an array its item type and count.
    let tokens = b"tokenizer.ggml.tokens";
    let layers = b"qwen2.block_count";
    let cases: [(Vec<u8>, &str, &str); 6] = [
        (with_bytes_after(layers, 4, &u32::MAX.to_le_bytes()), "number of layers", "4294967295"),
        (with_bytes_after(layers, 0, &5u32.to_le_bytes()), "", ""),
        (with_bytes_after(layers, 0, &6u32.to_le_bytes()), "qwen2.block_count", "has type float"),
        (with_bytes_after(tokens, 8, &u64::MAX.to_le_bytes()), "tokenizer.ggml.tokens", ""),
        (with_bytes_after(tokens, 4, &9u32.to_le_bytes()), "tokenizer.ggml.tokens", "array of arrays"),
        (with_bytes_after(tokens, 0, &77u32.to_le_bytes()), "tokenizer.ggml.tokens", "value type 77"),
    ];
    for (bytes, key, problem) in cases {
        if key.is_empty() {
            exercise(&open_gguf(&bytes).expect("a signed layer count is as good"));
            continue;
        }
        let message = refusal(open_gguf(&bytes));
        assert!(message.contains(key) && message.contains(problem), "{message:?}: {key} {problem}");
    }
}

fn safetensors_file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn safetensors_headers_are_refused_by_name() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
        safetensors_file(&header, 8)
    };
    let dimensions = format!("[{}1]", "1,".repeat(100_000));
    let cases: [(Vec<u8>, &str); 12] = [
        (tensor("F32", &dimensions, "[0,4]"), "tensor w is of 100001 dimensions"),
        (vec![1, 2, 3], "length is cut off"),
        (u64::MAX.to_le_bytes().to_vec(), "length is 18446744073709551615"),
        (1000u64.to_le_bytes().to_vec(), "length is cut off"),
        (safetensors_file("{", 0), "not valid JSON"),
        (safetensors_file(&"[".repeat(10_000), 0), "not valid JSON"),
        (tensor("I64", "[1]", "[0,8]"), "tensor w is of type I64"),
        (tensor("F32", "[3]", "[0,8]"), "tensor w is at bytes 0 to 8"),
        (tensor("F32", "[2]", "[8,16]"), "tensor w is cut off"),
        (tensor("F32", "[2]", "[8,0]"), "tensor w is at bytes 8 to 0"),
        (tensor("F32", "[4294967296,4294967296]", "[0,8]"), "tensor w is of shape"),
        (tensor("F32", "[-1]", "[0,8]"), "tensor w: invalid value"),
    ];
    for (bytes, place) in cases {
        let message = refusal(open_safetensors(&bytes));
        assert!(message.contains(place), "{message:?} does not say {place:?}");
    }
    let one = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let twice = refusal(open_safetensors(&safetensors_file(&format!("{{{one},{one}}}"), 4)));
    assert!(twice.contains("tensor w appears twice"), "{twice}");
}

#[test]
fn an_index_cannot_lead_out_of_its_directory_or_lie_about_a_shard() {
    let index = |file: &str| format!(r#"{{"weight_map":{{"model.norm.weight":"{file}"}}}}"#);
    for file in ["../original.gguf", "/etc/hostname", "a/b.safetensors", "."] {
        let directory = directory_with(&[("model.safetensors.index.json", index(file).as_bytes())]);
        let message = refusal(open(directory.path()));
        assert!(message.contains("weight_map") && message.contains("same directory"), "{message}");
    }
    let index = r#"{"weight_map":{"model.norm.weight":"model.safetensors","ghost":"model.safetensors"}}"#;
    let directory = directory_with(&[("model.safetensors.index.json", index.as_bytes())]);
    let message = refusal(open(directory.path()));
    assert!(message.contains("tensor ghost is missing"), "{message}");
}
