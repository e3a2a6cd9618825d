import json

import pytest

QUESTION = [{"role": "user", "content": "Name three fish."}]


def ask(client, model, **options):
    options.setdefault("messages", QUESTION)
    options.setdefault("max_tokens", 24)
    options.setdefault("temperature", 0)
    return client.chat.completions.create(model=model, **options)


def test_an_answer_has_a_text_a_reason_and_a_usage(client, model):
    answer = ask(client, model)
    assert answer.object == "chat.completion"
    assert answer.model == model
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_repeated_prompt_reports_cached_tokens(client, model):
    messages = [{"role": "user", "content": "A prompt of more than one page. " * 30}]
    ask(client, model, messages=messages, max_tokens=2)
    again = ask(client, model, messages=messages, max_tokens=2)
    assert 0 < again.usage.prompt_tokens_details.cached_tokens < again.usage.prompt_tokens


def test_the_streamed_text_is_the_whole_text(client, model):
    whole = ask(client, model).choices[0].message.content
    stream = ask(client, model, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert len(pieces) > 2
    assert "".join(pieces) == whole


def test_a_stream_ends_with_its_usage_when_asked(client, model):
    chunks = list(ask(client, model, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert len({chunk.id for chunk in chunks}) == 1


def test_max_tokens_is_kept_under_both_names(client, model):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, extra_body={"ignore_eos": True}, **{name: 5}
        )
        assert answer.usage.completion_tokens == 5
        assert answer.choices[0].finish_reason == "length"


def test_a_stop_string_ends_the_text_and_is_not_in_it(client, model):
    whole = ask(client, model).choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    answer = ask(client, model, stop=[stop]).choices[0]
    assert answer.message.content == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"


def test_a_stop_string_holds_in_a_stream_too(client, model):
    whole = ask(client, model).choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    stream = ask(client, model, stop=stop, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole[: whole.index(stop)]


def test_logprobs_name_each_token_and_its_runners_up(client, model):
    answer = ask(client, model, logprobs=True, top_logprobs=3, max_tokens=6)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert bytes(token.bytes).decode(errors="replace") == token.token
        assert len(token.top_logprobs) == 3
        # Greedy: the chosen token is the likeliest.
        assert token.top_logprobs[0].token == token.token


def test_n_choices_differ_and_are_numbered(client, model):
    answer = ask(client, model, n=4, temperature=1.2, seed=7)
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2, 3]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_n_choices_stream_interleaved(client, model):
    text = ["", ""]
    for chunk in ask(client, model, n=2, temperature=1.2, seed=7, stream=True):
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
    assert all(text)
    whole = ask(client, model, n=2, temperature=1.2, seed=7)
    assert [choice.message.content for choice in sorted(whole.choices, key=lambda c: c.index)] == text


def test_a_seed_repeats_the_answer(client, model):
    texts = [
        ask(client, model, temperature=1.0, seed=seed).choices[0].message.content for seed in (11, 11, 12)
    ]
    assert texts[0] == texts[1] != texts[2]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "legs": {"type": "integer", "minimum": 0, "maximum": 8},
        "kind": {"enum": ["fish", "bird"]},
    },
    "required": ["name", "legs", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_json_schema_is_followed(client, model, stream):
    answer = ask(
        client,
        model,
        messages=[{"role": "user", "content": "Describe an animal as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA}},
        max_tokens=120,
        stream=stream,
    )
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        assert answer.choices[0].finish_reason == "stop"
        text = answer.choices[0].message.content
    value = json.loads(text)
    assert set(value) == {"name", "legs", "kind"}
    assert isinstance(value["name"], str) and len(value["name"]) <= 12
    assert 0 <= value["legs"] <= 8
    assert value["kind"] in ("fish", "bird")


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


def test_a_required_tool_is_called_with_arguments_of_its_schema(client, model):
    answer = ask(
        client,
        model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=TOOLS,
        tool_choice="required",
        max_tokens=120,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.id and call.type == "function"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_a_named_tool_is_called_in_a_stream(client, model):
    stream = ask(
        client,
        model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=120,
        stream=True,
    )
    name, arguments = "", ""
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert isinstance(json.loads(arguments)["city"], str)


def test_tool_choice_none_answers_in_text(client, model):
    choice = ask(client, model, tools=TOOLS, tool_choice="none").choices[0]
    assert not choice.message.tool_calls
    assert choice.message.content


def test_a_tool_result_is_accepted_as_a_message(client, model):
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert ask(client, model, messages=messages, tools=TOOLS).choices[0].finish_reason
