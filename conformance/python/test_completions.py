def ask(client, model, **options):
    options.setdefault("prompt", "Once upon a time")
    options.setdefault("max_tokens", 16)
    options.setdefault("temperature", 0)
    return client.completions.create(model=model, **options)


def test_a_prompt_is_continued(client, model):
    answer = ask(client, model)
    assert answer.object == "text_completion"
    assert answer.choices[0].text.startswith(", the city of Nova Haven")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 16


def test_a_prompt_may_be_token_ids(client, model):
    ids = client.post("/tokenize", body={"prompt": "Once upon a time"}, cast_to=object)["tokens"]
    assert ask(client, model, prompt=ids).choices[0].text == ask(client, model).choices[0].text


def test_several_prompts_are_answered_in_order(client, model):
    prompts = ["Once upon a time", "The capital of France is"]
    together = ask(client, model, prompt=prompts)
    alone = [ask(client, model, prompt=prompt).choices[0].text for prompt in prompts]
    assert [choice.index for choice in together.choices] == [0, 1]
    assert [choice.text for choice in together.choices] == alone


def test_a_stream_joins_to_the_whole_and_ends_with_usage(client, model):
    chunks = list(ask(client, model, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == ask(client, model).choices[0].text
    assert chunks[-1].usage.completion_tokens == 16


def test_echo_repeats_the_prompt(client, model):
    assert ask(client, model, echo=True).choices[0].text.startswith("Once upon a time,")


def test_logprobs_are_parallel_lists(client, model):
    logprobs = ask(client, model, logprobs=2, max_tokens=5).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    assert all(value <= 0 for value in logprobs.token_logprobs)
    assert logprobs.text_offset == sorted(logprobs.text_offset)


def test_a_stop_string_ends_it(client, model):
    choice = ask(client, model, stop=" Nova").choices[0]
    assert choice.text == ", the city of"
    assert choice.finish_reason == "stop"


def test_logit_bias_forbids_a_token(client, model):
    [first] = ask(client, model, logprobs=1, max_tokens=1).choices[0].logprobs.tokens
    [token] = client.post("/tokenize", body={"prompt": first}, cast_to=object)["tokens"]
    biased = ask(client, model, max_tokens=1, logit_bias={str(token): -100}).choices[0].text
    assert biased != first
