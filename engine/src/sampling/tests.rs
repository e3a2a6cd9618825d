use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn plain() -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
        seed: 1,
        stop_token_ids: Vec::new(),
        max_tokens: 100,
        min_tokens: 0,
        logprobs: None,
    }
}

fn token(logits: &[f32], sampling: &Sampling, index: usize) -> Option<u32> {
    let history = History::new(sampling, &[], &[]);
    let sampled = sample(&mut logits.to_vec(), sampling, &history, None, index).expect("no grammar");
    sampled.map(|token| token.id)
}

/// Shares of each token over many positions.
fn shares(logits: &[f32], sampling: &Sampling) -> HashMap<u32, f64> {
    const DRAWS: usize = 20_000;
    let mut shares = HashMap::new();
    for index in 0..DRAWS {
        let id = token(logits, sampling, index).expect("possible");
        *shares.entry(id).or_default() += 1.0 / DRAWS as f64;
    }
    shares
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_of_equals() {
    let greedy = Sampling { temperature: 0.0, ..plain() };
    assert_eq!(token(&[0.0, 3.0, 3.0, 1.0], &greedy, 0), Some(1));
}

/// A backend draws what nothing but temperature, seed and index decides.
#[test]
fn what_needs_logits_is_not_left_to_the_backend() {
    let of = |sampling: Sampling, index| drawable(&sampling, &History::new(&sampling, &[], &[]), None, index);
    let hot = Draw { temperature: 1.0, seed: 1, index: 4 };
    assert_eq!(of(plain(), 4), Some(hot));
    let greedy = Sampling { temperature: 0.0, top_k: 40, top_p: 0.5, min_p: 0.1, ..plain() };
    assert_eq!(of(greedy, 4), Some(Draw { temperature: 0.0, ..hot }), "the largest stays the largest");
    let changes: [fn(&mut Sampling); 8] = [
        |s| s.top_k = 40,
        |s| s.top_p = 0.9,
        |s| s.min_p = 0.1,
        |s| s.repetition_penalty = 1.1,
        |s| s.presence_penalty = 0.5,
        |s| s.logit_bias = vec![(1, 2.0)],
        |s| s.min_tokens = 5,
        |s| s.logprobs = Some(0),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut sampling = plain();
        change(&mut sampling);
        assert_eq!(of(sampling, 4), None, "change {number}");
    }
    assert!(of(Sampling { min_tokens: 5, ..plain() }, 5).is_some(), "past min_tokens");
}

#[test]
fn draws_follow_the_softmax() {
    let shares = shares(&[1.0_f32.ln(), 2.0_f32.ln(), 7.0_f32.ln()], &plain());
    for (id, expected) in [(0, 0.1), (1, 0.2), (2, 0.7)] {
        assert!((shares[&id] - expected).abs() < 0.015, "{shares:?}");
    }
}

#[test]
fn a_lower_temperature_sharpens_and_a_higher_one_flattens() {
    let logits = [0.0, 1.0];
    let cold = shares(&logits, &Sampling { temperature: 0.25, ..plain() });
    let hot = shares(&logits, &Sampling { temperature: 4.0, ..plain() });
    assert!(cold[&1] > 0.97 && hot[&1] < 0.6, "{cold:?} {hot:?}");
}

#[test]
fn top_k_top_p_and_min_p_keep_the_likeliest_only() {
    let logits = [5.0_f32, 10.0, 60.0, 25.0].map(f32::ln);
    let kept = |sampling: Sampling| {
        let mut ids: Vec<u32> = shares(&logits, &sampling).into_keys().collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(kept(Sampling { top_k: 2, ..plain() }), [2, 3]);
    assert_eq!(kept(Sampling { top_p: 0.8, ..plain() }), [2, 3]);
    assert_eq!(kept(Sampling { top_p: 0.5, ..plain() }), [2]);
    assert_eq!(kept(Sampling { min_p: 0.15, ..plain() }), [1, 2, 3]);
    assert_eq!(kept(Sampling { top_k: 3, top_p: 0.85, ..plain() }), [2, 3], "top-p is of what top-k left");
}

#[test]
fn equal_seed_and_position_draw_equally_and_others_do_not() {
    let logits = [0.0; 1000];
    let at = |seed, index| token(&logits, &Sampling { seed, ..plain() }, index).expect("possible");
    assert_eq!(at(7, 3), at(7, 3));
    let distinct: std::collections::HashSet<u32> = (0..100).map(|index| at(7, index)).collect();
    assert!(distinct.len() > 80, "{} of 100 positions differ", distinct.len());
    assert!((0..100).filter(|seed| at(*seed, 0) == at(seed + 1, 0)).count() < 5);
}

#[test]
fn penalties_count_prompt_and_output_as_documented() {
    let sampling =
        Sampling { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 0.25, ..plain() };
    let mut logits = [4.0, 4.0, -4.0, 4.0];
    adjust::penalize(&mut logits, &sampling, &History::new(&sampling, &[0, 2], &[1, 1]));
    assert_eq!(logits.map(f32::to_bits), [2.0_f32, 0.75, -8.0, 4.0].map(f32::to_bits));
}

#[test]
fn biases_push_and_ban() {
    let greedy = Sampling { temperature: 0.0, logit_bias: vec![(0, 5.0), (2, -100.0)], ..plain() };
    assert_eq!(token(&[0.0, 1.0, 99.0], &greedy, 0), Some(0));
}

#[test]
fn stop_tokens_are_impossible_before_min_tokens() {
    let sampling = Sampling { temperature: 0.0, stop_token_ids: vec![1], min_tokens: 2, ..plain() };
    assert_eq!(token(&[0.0, 9.0], &sampling, 1), Some(0));
    assert_eq!(token(&[0.0, 9.0], &sampling, 2), Some(1));
}

#[test]
fn broken_logits_have_a_defined_outcome() {
    let nan = f32::NAN;
    for temperature in [0.0, 1.0] {
        let sampling = Sampling { temperature, top_p: 0.9, min_p: 0.1, ..plain() };
        assert_eq!(token(&[nan, f32::NEG_INFINITY, nan], &sampling, 0), None);
        assert_eq!(token(&[nan, 0.0, nan], &sampling, 0), Some(1));
        assert_eq!(token(&[0.0, f32::INFINITY, nan], &sampling, 0), Some(1));
    }
}

#[test]
fn logprobs_are_of_the_raw_distribution() {
    let logits = [1.0_f32.ln(), 3.0_f32.ln(), 4.0_f32.ln(), f32::NEG_INFINITY];
    let sampling = Sampling { temperature: 0.0, logit_bias: vec![(0, 50.0)], logprobs: Some(2), ..plain() };
    let history = History::default();
    let sampled = sample(&mut logits.to_vec(), &sampling, &history, None, 0).expect("ok").expect("possible");
    assert_eq!(sampled.id, 0);
    assert!((sampled.logprob.expect("asked for") - 0.125_f32.ln()).abs() < 1e-6);
    let ids: Vec<u32> = sampled.top.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [2, 1]);
    assert!((sampled.top[0].1 - 0.5_f32.ln()).abs() < 1e-6);
}

proptest! {
    /// The partial selection keeps what a full sort would keep.
    #[test]
    fn truncation_equals_a_full_sort(
        logits in proptest::collection::vec(-8.0_f32..8.0, 1..2000),
        top_k in 0_usize..300,
        top_p in 0.05_f32..1.0,
        seed: u64,
    ) {
        let sampling = Sampling { top_k, top_p, seed, ..plain() };
        let mut sorted: Vec<(u32, f64)> = logits.iter().enumerate().map(|(id, l)| (id as u32, f64::from(*l))).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if top_k > 0 { sorted.truncate(top_k); }
        let best = sorted[0].1;
        let total: f64 = sorted.iter().map(|(_, l)| (l - best).exp()).sum();
        let mut reached = 0.0;
        let kept: Vec<u32> = sorted.iter().take_while(|(_, l)| {
            let before = reached;
            reached += (l - best).exp();
            before < f64::from(top_p) * total * (1.0 + 1e-9)
        }).map(|(id, _)| *id).collect();
        for index in 0..20 {
            let id = token(&logits, &sampling, index).expect("possible");
            prop_assert!(kept.contains(&id), "{} is not among the {} kept", id, kept.len());
        }
    }
}
