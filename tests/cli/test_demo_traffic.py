"""How the demo's clients read an answer, and how one's trouble reaches the door of `weir`."""

import asyncio
import json

import pytest

from weir_cli.demo_traffic import one_by_one, said
from weir_cli.errors import CommandError


def completion(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def test_intent_is_read_whatever_the_spacing():
    assert said(completion(' {"intent" :  "card_arrival"} ')) == "card_arrival"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"choices": []}',
        b'{"error": {"message": "no"}}',
        completion(None),
        completion(""),
        completion('{"intent": "card_arr'),
        completion('{"intent": null}'),
        completion('"card_arrival"'),
    ],
)
def test_what_names_no_intent_is_wrong(body):
    assert said(body) == ""


async def _fails(error):
    raise error


async def _all(*errors):
    async with asyncio.TaskGroup() as group:
        for error in errors:
            group.create_task(_fails(error))


def test_trouble_of_many_clients_is_told_once():
    with pytest.raises(CommandError, match="gone"), one_by_one():
        asyncio.run(_all(CommandError("gone"), CommandError("gone")))


def test_mistakes_of_our_own_are_not_hidden():
    with pytest.raises(ExceptionGroup), one_by_one():
        asyncio.run(_all(ZeroDivisionError()))
