"""Each class of error arrives as the SDK's own exception, with a message for people."""

import threading

import openai
import pytest

QUESTION = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("param", "options"),
    [
        ("temperature", {"temperature": -1}),
        ("top_p", {"top_p": 1.5}),
        ("n", {"n": 0}),
        ("max_tokens", {"max_tokens": 0}),
        ("messages", {"messages": []}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 1000}),
    ],
)
def test_a_bad_parameter_is_400_and_named(client, model, param, options):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": model, "messages": QUESTION, **options})
    assert caught.value.status_code == 400
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param
    assert param in caught.value.message


def test_a_prompt_longer_than_the_context_is_400(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt=[1000] * 20_000, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-17", messages=QUESTION)
    assert caught.value.code == "model_not_found"


def test_a_body_over_the_limit_is_413(client, model):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x" * (9 << 20)}])
    assert caught.value.status_code == 413


def test_one_request_too_many_is_429_with_retry_after(narrow, model):
    first = narrow.completions.create(
        model=model, prompt="Once", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(first))
    with pytest.raises(openai.RateLimitError) as caught:
        narrow.completions.create(model=model, prompt="Once", max_tokens=1)
    assert int(caught.value.response.headers["retry-after"]) >= 0
    first.close()


def test_waiting_makes_room_again(narrow, model):
    """The SDK's own retries are enough for a short overload."""
    patient = narrow.with_options(max_retries=20)
    answers = []

    def ask():
        answers.append(patient.completions.create(model=model, prompt="Once", max_tokens=2))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3


def test_without_engines_it_is_503_with_retry_after(empty, model):
    with pytest.raises(openai.InternalServerError) as caught:
        empty.chat.completions.create(model=model, messages=QUESTION)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 0
