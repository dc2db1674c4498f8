"""What holds of every corpus adapter."""

import re

import pytest
import yaml
from pydantic import TypeAdapter

from data.config import CorpusConfig
from data.corpus.adapters.base import KINDS, adapter_class, split_of
from data.corpus.config import BroughtCorpus


def test_every_kind_has_a_licence_a_layout_and_a_configuration() -> None:
    for kind in KINDS:
        adapter = adapter_class(kind)
        assert adapter.kind == kind
        assert adapter.licence
        assert adapter.layout
        key = "manifest" if kind == "manifest" else "path"
        made = TypeAdapter(CorpusConfig).validate_python({"kind": kind, key: "x"})
        assert isinstance(made, BroughtCorpus)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_block_of_every_docstring_is_one(kind: str) -> None:
    block = re.search(r"`(corpus: \{.*\})`", adapter_class(kind).__doc__ or "")
    assert block
    made = TypeAdapter(CorpusConfig).validate_python(yaml.safe_load(block[1])["corpus"])
    assert made.kind == kind


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test-clean", "test"),
        ("validation", "dev"),
        ("train-other-500", "train"),
        ("evaluation", "test"),
        ("XL", "train"),
    ],
)
def test_published_names_say_the_split(name: str, split: str) -> None:
    assert split_of(name) == split
