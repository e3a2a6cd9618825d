"""Clients of a running fleet. scripts/conformance.sh starts it and says where it is."""

import os

import openai
import pytest

MODEL = os.environ.get("SHOAL_MODEL", "smollm2")


def client_of(variable: str) -> openai.OpenAI:
    url = os.environ.get(variable)
    if not url:
        pytest.exit(f"{variable} is not set; run scripts/conformance.sh", returncode=2)
    # The suite looks at single answers, so the SDK must not hide one behind a retry.
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def client() -> openai.OpenAI:
    return client_of("SHOAL_URL")


@pytest.fixture(scope="session")
def narrow() -> openai.OpenAI:
    """A gateway that admits one request at a time."""
    return client_of("SHOAL_NARROW_URL")


@pytest.fixture(scope="session")
def empty() -> openai.OpenAI:
    """A gateway without engines."""
    return client_of("SHOAL_EMPTY_URL")


@pytest.fixture(scope="session")
def model() -> str:
    return MODEL
