//! What an undisturbed fleet answers.

use anyhow::Result;
use futures::future::try_join_all;
use serde_json::json;
use shoal_e2e::{Ask, EngineOptions, Fleet, Role, http, model};

const SPLIT: &[Role] = &[Role::Prefill, Role::Decode, Role::Mixed];

#[tokio::test]
async fn greedy_text_is_what_an_independent_implementation_says() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, &[Role::Prefill, Role::Decode]).await?.with_gateway(&[]).await?;
    for (prompt, golden) in model::GOLDEN {
        let body = json!({"model": "smollm2", "prompt": prompt, "max_tokens": 16, "temperature": 0});
        let reply = http::post(fleet.url()?, "/v1/completions", &body).await?.ok()?;
        let text = reply["choices"][0]["text"].as_str().unwrap_or_default();
        assert!(golden.starts_with(text) && text.len() > 40, "{prompt:?} continued with {text:?}");
        assert_eq!(reply["usage"]["completion_tokens"], 16);
        assert_eq!(reply["choices"][0]["finish_reason"], "length");
    }
    fleet.end().await
}

#[tokio::test]
async fn a_split_fleet_answers_token_for_token_like_a_mixed_instance() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, SPLIT).await?;
    let [prefill, decode, mixed] = &fleet.engines[..] else { unreachable!("three engines were started") };
    for length in [1, 63, 64, 65, 128, 513, 2000] {
        let prompt = model::prompt(7, length);
        let ask = Ask::greedy(&prompt, 12);
        let expected = ask.clone().run(mixed).await?;
        let split = ask.prefilled_by(&[("prefill-0", prefill.address())]).run(decode).await?;
        assert_eq!(split.prefilled_by(), "prefill-0", "{length} tokens");
        assert_eq!(split.exact(), expected.exact(), "{length} tokens");
        assert_eq!(split.tokens.len(), 12);
        // The pages that both the shorter prompts and this one begin with are cached on decode.
        let started = split.started.unwrap_or_default();
        assert_eq!(started.kv_bytes_received, u64::from(started.kv_tokens_received) * decode.token_bytes()?);
        assert!(
            started.kv_tokens_received > 0 && started.kv_tokens_received as usize <= length,
            "{started:?}"
        );
    }
    fleet.end().await
}

#[tokio::test]
async fn a_prompt_that_nobody_cached_moves_exactly_its_own_bytes() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, &[Role::Prefill, Role::Decode]).await?;
    let [prefill, decode] = &fleet.engines[..] else { unreachable!("two engines were started") };
    for length in [1, 64, 300] {
        let ask = Ask::greedy(&model::prompt(3, length), 2).alone();
        let answer = ask.prefilled_by(&[("prefill-0", prefill.address())]).run(decode).await?;
        assert_eq!(answer.kv_bytes(), length as u64 * decode.token_bytes()?, "{length} tokens");
    }
    fleet.end().await
}

#[tokio::test]
async fn sixty_four_streams_at_once_answer_like_each_alone() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let options = EngineOptions { kv_memory: "512Mi".into(), ..EngineOptions::default() };
    let fleet = Fleet::start_with(&model, SPLIT, &options).await?;
    let [prefill, decode, mixed] = &fleet.engines[..] else { unreachable!("three engines were started") };
    let asks: Vec<Ask> = (0..64_u32)
        .map(|number| {
            let prompt = model::prompt(100 + number, 5 + number as usize);
            if number % 2 == 0 { Ask::greedy(&prompt, 10) } else { Ask::seeded(&prompt, 10, number.into()) }
        })
        .collect();
    let target = [("prefill-0", prefill.address())];
    let together = asks.iter().map(|ask| ask.clone().prefilled_by(&target).run(decode));
    let together = try_join_all(together).await?;
    for (ask, answer) in asks.into_iter().zip(together) {
        let alone = ask.run(mixed).await?;
        assert_eq!(answer.exact(), alone.exact());
        assert_eq!(answer.tokens.len(), 10);
    }
    fleet.end().await
}

#[tokio::test]
async fn a_seed_decides_the_output_and_its_logprobs_wherever_it_runs() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, SPLIT).await?;
    let [prefill, decode, mixed] = &fleet.engines[..] else { unreachable!("three engines were started") };
    let prompt = model::prompt(11, 100);
    let target = [("prefill-0", prefill.address())];
    let first = Ask::seeded(&prompt, 24, 5).prefilled_by(&target).run(decode).await?;
    let again = Ask::seeded(&prompt, 24, 5).run(mixed).await?;
    let other = Ask::seeded(&prompt, 24, 6).run(mixed).await?;
    assert_eq!(first.tokens, again.tokens, "tokens, log-probabilities and runners-up are the same");
    assert_ne!(first.ids(), other.ids(), "another seed gives another text");
    for token in &first.tokens {
        assert_eq!(token.top.len(), 2);
        assert!(token.logprob.is_some_and(|logprob| logprob <= 0.0), "{token:?}");
        assert!(token.top[0].logprob >= token.top[1].logprob, "{token:?}");
    }
    fleet.end().await
}
