import openai
import pytest


def test_the_served_model_is_listed(client, model):
    listed = client.models.list().data
    assert [entry.id for entry in listed] == [model]
    assert listed[0].object == "model"
    assert listed[0].created > 0


def test_a_model_is_found_by_its_name(client, model):
    assert client.models.retrieve(model).id == model


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-17")
    assert caught.value.code == "model_not_found"
