"""JSON of files: what is no strict JSON, and entries of another type, are refused with a sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lwfm._common.records import build_record, parse_json, read_json
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError
from lwfm.model import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[NaN]", "NaN is not a finite number"),
        ("[-Infinity]", "-Infinity is not a finite number"),
        ("[1e999]", "1e999 is not a finite number"),
        ("[" + "9" * 10_000 + "]", "does not fit into 64 bits"),
        ("[9223372036854775808]", "9223372036854775808 does not fit into 64 bits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"way": ', "Expecting value"),
        ("", "Expecting value"),
    ],
    ids=["nan", "infinity", "1e999", "digits", "2**63", "deep", "cut", "empty"],
)
def test_what_is_no_json_of_finite_numbers_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_the_largest_numbers_are_read() -> None:
    numbers = [-(2**63), 2**63 - 1, 1.7e308, 5e-324]
    assert parse_json(json.dumps(numbers)) == numbers


@pytest.mark.parametrize("content", [None, b"\xff{}", b"{"], ids=["missing", "latin-1", "cut"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_record_of_what_it_was_written_from() -> None:
    config = ModelConfig(layers=(7, 8), feature_size=(6, 3), top_k=None, attention_temperature=2)
    plain = json.loads(json.dumps(vars(config)))
    assert build_record(ModelConfig, plain) == config
    assert build_record(ModelConfig, plain | {"version": 3}, others=True) == config


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ModelConfig, [1], r"expected entries by name, got '\[1\]'"),
        (ModelConfig, {"backbone": None}, "backbone must not be null"),
        (ModelConfig, {"backbone": 3}, '"backbone".*str.*3'),
        (ModelConfig, {"layers": [7, "x"]}, '"layers"'),
        (ModelConfig, {"embedding": "x"}, '"embedding"'),
        (ModelConfig, {"novelty": 1}, "novelty"),
        (Normalization, {"mean": [0, 0, 0]}, "std"),
        (Normalization, {"mean": [0, 0], "std": [1, 1, 1]}, "3 elements"),
        (Normalization, {"mean": [0, 0, 0], "std": [1, 0, 1]}, "must be positive"),
        (Normalization, {"mean": {"class_path": "os.system"}, "std": [1, 1, 1]}, '"mean"'),
    ],
    ids=["list", "null", "number", "item", "bool", "unknown", "missing", "short", "zero", "class"],
)
def test_the_first_wrong_entry_is_named(kind: type[Any], values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_record(kind, values)
