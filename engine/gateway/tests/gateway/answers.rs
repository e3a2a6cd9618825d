//! What well-behaved clients get.

use serde_json::{Value, json};
use shoal_wire::rpc::Role;

use crate::fake::{Fake, text};
use crate::world::{MODEL, World};

fn chat(change: &Value) -> Value {
    let mut body = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "seed": 7,
    });
    merge(&mut body, change);
    body
}

pub(crate) fn completion(change: &Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 8, "seed": 7});
    merge(&mut body, change);
    body
}

fn merge(body: &mut Value, change: &Value) {
    for (key, value) in change.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
}

#[tokio::test]
async fn a_chat_answer_has_the_shape_that_openai_clients_read() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let reply = world.post("/v1/chat/completions", &chat(&json!({}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], MODEL);
    assert_eq!(
        answer["choices"][0]["message"],
        json!({"role": "assistant", "content": text(7, 0, 8), "refusal": null})
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let usage = &answer["usage"];
    let prompt = usage["prompt_tokens"].as_u64().expect("prompt tokens");
    assert_eq!(usage["completion_tokens"], 8);
    assert_eq!(usage["total_tokens"], prompt + 8);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(answer["shoal"]["decode_instance"], "d");
    assert_eq!(answer["shoal"]["prefill_reason"], "no_prefill_instance");
    assert!(reply.headers["x-request-id"].to_str().is_ok_and(|id| id.starts_with("req-")));
    let counted = world.get("/metrics").await;
    let line = r#"shoal_gateway_requests_total{route="/v1/chat/completions",status="2xx"} 1"#;
    assert!(counted.text().contains(line), "{}", counted.text());
}

#[tokio::test]
async fn a_chat_stream_is_role_text_finish_usage_and_done() {
    let engine = Fake::start("d", Role::Decode);
    let prefill = Fake::start("p", Role::Prefill);
    let world = World::new(&[("d", &engine), ("p", &prefill)]).await;
    let body = chat(&json!({"stream": true, "stream_options": {"include_usage": true}}));
    let events = world.stream("/v1/chat/completions", &body).await.rest().await;
    let chunks = events.chunks();
    assert!(events.is_done());
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == chunks[0]["id"]));
    assert_eq!(events.text(0), text(7, 0, 8));
    let [.., finish, usage] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 8);
    assert_eq!(
        (&usage["shoal"]["prefill_instance"], &usage["shoal"]["kv_bytes"]),
        (&json!("p"), &json!(1000))
    );
    assert_eq!(usage["shoal"]["prefill_reason"], "unmeasured");
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_it_and_the_work_behind_it() {
    let engine = Fake::start("d", Role::Mixed);
    engine.pace(5);
    let world = World::new(&[("d", &engine)]).await;
    let whole = text(7, 0, 2000);
    let stop = &whole[9..12];
    let expected = &whole[..whole.find(stop).expect("it is there")];
    for stream in [false, true] {
        let body = completion(&json!({"max_tokens": 2000, "stop": [stop, "@@@"], "stream": stream}));
        let (got, reason) = if stream {
            let events = world.stream("/v1/completions", &body).await.rest().await;
            let last = events.chunks().pop().expect("a chunk");
            (events.text(0), last["choices"][0]["finish_reason"].clone())
        } else {
            let answer = world.post("/v1/completions", &body).await.json();
            (
                answer["choices"][0]["text"].as_str().expect("text").to_owned(),
                answer["choices"][0]["finish_reason"].clone(),
            )
        };
        assert_eq!((got.as_str(), reason.as_str()), (expected, Some("stop")));
    }
    crate::world::until("the engine stopped", || {
        engine.script.streams.load(std::sync::atomic::Ordering::Relaxed) == 0
    })
    .await;
    assert!(
        engine.script.tokens_sent.load(std::sync::atomic::Ordering::Relaxed) < 200,
        "the rest was not computed"
    );
}

#[tokio::test]
async fn several_prompts_and_choices_are_numbered_prompt_by_prompt() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    for prompt in [json!(["a", "b"]), json!([[5, 6], [7]])] {
        let body = completion(&json!({"prompt": prompt, "n": 2}));
        let answer = world.post("/v1/completions", &body).await.json();
        let texts: Vec<_> =
            answer["choices"].as_array().expect("choices").iter().map(|c| c["text"].clone()).collect();
        let expected: Vec<_> = [0, 1, 0, 1].iter().map(|&choice| json!(text(7, choice, 8))).collect();
        assert_eq!(texts, expected);
        assert_eq!(answer["usage"]["completion_tokens"], 32);
        let streamed = completion(&json!({"prompt": prompt, "n": 2, "stream": true}));
        let events = world.stream("/v1/completions", &streamed).await.rest().await;
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(json!(events.text(index as u64)), *expected);
        }
    }
}

#[tokio::test]
async fn echo_puts_the_prompt_before_the_text() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let answer = world.post("/v1/completions", &completion(&json!({"echo": true}))).await.json();
    assert_eq!(answer["choices"][0]["text"], format!("Once{}", text(7, 0, 8)));
    let events = world
        .stream("/v1/completions", &completion(&json!({"echo": true, "stream": true})))
        .await
        .rest()
        .await;
    assert_eq!(events.text(0), format!("Once{}", text(7, 0, 8)));
}

#[tokio::test]
async fn logprobs_come_in_both_shapes_one_entry_per_token() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let expected = text(7, 0, 8);
    let joined = |tokens: &[Value], field: Option<&str>| -> String {
        tokens
            .iter()
            .map(|t| field.map_or(t, |field| &t[field]).as_str().expect("token").to_owned())
            .collect()
    };
    let answer =
        world.post("/v1/chat/completions", &chat(&json!({"logprobs": true, "top_logprobs": 2}))).await.json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().expect("content").clone();
    assert_eq!(joined(&content, Some("token")), expected);
    assert!(content.iter().all(|entry| entry["logprob"] == -0.5 && entry["bytes"].is_array()));

    let body = chat(&json!({"logprobs": true, "stream": true}));
    let events = world.stream("/v1/chat/completions", &body).await.rest().await;
    let chunks = events.chunks();
    let streamed: Vec<Value> = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(joined(&streamed, Some("token")), expected);

    let answer = world.post("/v1/completions", &completion(&json!({"logprobs": 0}))).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(joined(logprobs["tokens"].as_array().expect("tokens"), None), expected);
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
}

#[tokio::test]
async fn models_lists_ours_and_another_is_a_404() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let list = world.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!(MODEL)));
    assert_eq!(world.get(&format!("/v1/models/{MODEL}")).await.json(), list["data"][0]);
    let missing = world.get("/v1/models/other").await;
    assert_eq!(missing.error(), (404, Some("model".into()), Some("model_not_found".into())));
}

#[tokio::test]
async fn tokenize_and_detokenize_are_each_others_inverse() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let words = "the fish and the sea: \u{1f41f} é";
    let tokens = world.post("/v1/tokenize", &json!({"prompt": words})).await.json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().expect("tokens").len());
    let back = world.post("/v1/detokenize", &json!({"tokens": tokens["tokens"]})).await.json();
    assert_eq!(back["prompt"], words);
    let chat =
        world.post("/v1/tokenize", &json!({"messages": [{"role": "user", "content": "hi"}]})).await.json();
    let back = world.post("/v1/detokenize", &json!({"tokens": chat["tokens"]})).await.json();
    assert_eq!(back["prompt"], "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

#[tokio::test]
async fn health_ready_and_generate_answer_different_questions() {
    let world = World::new(&[]).await;
    assert_eq!(world.get("/health").await.status, 200);
    let ready = world.get("/ready").await;
    assert_eq!((ready.status, ready.headers["retry-after"].to_str().ok()), (503, Some("1")));
    assert_eq!(world.get("/health_generate").await.status, 503);

    let (prefill, decode) = (Fake::start("p", Role::Prefill), Fake::start("d", Role::Decode));
    let world = World::new(&[("p", &prefill), ("d", &decode)]).await;
    assert_eq!(world.get("/ready").await.status, 200);
    let generated = world.get("/health_generate").await.json();
    assert_eq!((&generated["prefill_instance"], &generated["decode_instance"]), (&json!("p"), &json!("d")));
    world.get("/health_generate").await;
    assert_eq!(decode.calls(), 1, "probes at the same time share one token");
}

#[tokio::test]
async fn a_clients_request_id_comes_back_and_reaches_the_engine() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let body = completion(&json!({})).to_string();
    let reply = world.send(hyper::Method::POST, "/v1/completions", &[("x-request-id", "mine-1")], body).await;
    assert_eq!(reply.headers["x-request-id"], "mine-1");
    assert_eq!(engine.script.requests.lock()[0].request_id, "mine-1.0");
    let reply = world.send(hyper::Method::GET, "/health", &[("x-request-id", "a b\u{e9}")], "").await;
    assert!(
        reply.headers["x-request-id"].to_str().is_ok_and(|id| id.starts_with("req-")),
        "an unfit id is replaced"
    );
}

#[tokio::test]
async fn tenants_and_their_salts_never_share_page_keys() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    for body in
        [json!({}), json!({"cache_salt": "a"}), json!({"cache_salt": "b"}), json!({"cache_salt": "a"})]
    {
        assert_eq!(world.post("/v1/completions", &completion(&body)).await.status, 200);
    }
    let salts: Vec<_> = engine.script.requests.lock().iter().map(|r| r.tenant_salt.clone()).collect();
    assert!(salts[0].is_empty() && salts[1] != salts[2] && salts[1] == salts[3], "{salts:?}");
    assert!(salts.iter().all(|salt| salt.len() <= 32));
}
