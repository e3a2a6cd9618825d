//! What the compiler says of each kernel against what is allowed: registers may not creep, nothing spills.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

const REPORT: &str = include_str!(concat!(env!("OUT_DIR"), "/ptxas.txt"));
const BUDGET: &str = include_str!("../budget.txt");

/// The number before `word` in a line of the report.
fn before(line: &str, word: &str) -> Option<u32> {
    line.split_once(word)?.0.split_whitespace().next_back()?.parse().ok()
}

/// Registers, and bytes of stack and spills, by kernel.
fn used() -> BTreeMap<&'static str, (u32, u32)> {
    let mut kernels = BTreeMap::new();
    let (mut name, mut spilled) = ("", 0);
    for line in REPORT.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().expect("a quoted name");
        } else if line.contains("bytes stack frame") {
            let counts = [" bytes stack frame", " bytes spill stores", " bytes spill loads"];
            spilled = counts.iter().map(|word| before(line, word).expect("a count")).sum();
        } else if let Some(registers) = before(line, " registers") {
            kernels.insert(name, (registers, spilled));
        }
    }
    kernels
}

#[test]
fn every_kernel_stays_within_its_registers_and_spills_nothing() {
    let used = used();
    if used.is_empty() {
        eprintln!("skipped: {}", shoal_kernels::BUILD);
        return;
    }
    let allowed: BTreeMap<&str, u32> = BUDGET
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(' ').expect("a name and a number"))
        .map(|(name, registers)| (name, registers.trim().parse().expect("a number of registers")))
        .collect();
    assert!(used.keys().eq(allowed.keys()), "budget.txt lists other kernels: {:?}", used.keys());
    for (name, (registers, spilled)) in used {
        assert_eq!(spilled, 0, "{name} spills or has a stack frame");
        assert!(registers <= allowed[name], "{name} uses {registers} registers of {}", allowed[name]);
    }
}
