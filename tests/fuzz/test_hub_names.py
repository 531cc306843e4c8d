"""Names of models on hubs, and the front matter of cards: read, or refused by a message."""

import re

from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell.repository.hub import HubName, is_hub_name
from causcell.repository.model_card import card_license, check_license

PARTS = st.sampled_from(
    ["hf:", "/", "//", "lab", "kang", "@", "v1", "..", "--", "-", ".", ".git", " ", "%2e", "\n", "\\"]
)
WORDS = st.text("abAB01._-", min_size=1, max_size=4)
GOOD = st.builds("hf://{}/{}{}".format, WORDS, WORDS, st.just("") | WORDS.map("@{}".format))
NAMES = GOOD | st.lists(PARTS, max_size=9).map("".join) | st.text(max_size=20).map("hf://{}".format)
CARDS = st.lists(
    st.sampled_from(["---", "\n", "\r\n", "license:", " mit", "'", '"', "#", " ", "---\n", "tags:", "- x"]), max_size=14
).map("".join)


@inputs(1000)
@given(NAMES)
@example("hf://lab/kang@refs/pr/1")
@example("hf://lab/kang@v1\n")
def test_a_name_is_read_or_told(text: str) -> None:
    with tried("name of a model on a hub"):
        name = HubName.parse(text)
        assert is_hub_name(text)
        assert HubName.parse(str(name)) == name
        assert not {"", ".", ".."} & set(f"{name.repository}/{name.revision or 'main'}".split("/"))


@inputs(1000)
@given(CARDS | st.text(max_size=40))
@example("---\nlicense: mit\n---\n")
def test_the_licence_of_a_card_is_a_word_or_none(text: str) -> None:
    with tried("licence of a card"):
        found = card_license(text)
        assert found is None or re.fullmatch(r"\S+", found)
        check_license(found or "mit")
