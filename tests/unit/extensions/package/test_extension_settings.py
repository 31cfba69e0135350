"""Settings: the subset of JSON Schema, values held against it, defaults and secrets."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import calm

from magmobo.extensions.package.errors import SettingsRefused
from magmobo.extensions.package.schemas import MAX_PROPERTIES, schema_problems
from magmobo.extensions.package.settings import MAX_SETTINGS_BYTES, check_settings, secret_paths
from magmobo.kernel.redact import Redactor

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["token"],
    "properties": {
        "token": {"type": "string", "x-secret": True, "minLength": 8},
        "limit": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "mode": {"type": "string", "enum": ["soft", "hard"]},
        "mail": {
            "type": "object",
            "properties": {
                "password": {"type": "string", "x-secret": True},
                "to": {"type": "array", "items": {"type": "string"}, "default": ["ops"]},
            },
        },
    },
}


def of(inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": inner}}


def test_defaults_are_filled_in_and_secrets_found() -> None:
    assert not list(schema_problems(SCHEMA, "$"))
    assert check_settings(SCHEMA, {"token": "longenough", "mail": {"password": "p"}}) == {
        "token": "longenough", "limit": 3, "mail": {"password": "p", "to": ["ops"]},
    }  # fmt: skip
    assert secret_paths(SCHEMA) == [("mail", "password"), ("token",)]


def test_every_problem_is_said_and_none_quotes_a_value() -> None:
    with pytest.raises(SettingsRefused) as caught:
        check_settings(SCHEMA, {"token": "hunter2", "limit": 77, "mode": "hunter3", "lmit": 1, "mail": {"port": 25}})
    said = [str(problem) for problem in caught.value.problems]
    assert said == [
        "$: there is no setting 'lmit'; did you mean limit?",
        "$.limit: does not satisfy maximum: 9",
        "$.mail: there is no setting 'port'",
        '$.mode: does not satisfy enum: ["soft","hard"]',
        "$.token: does not satisfy minLength: 8",
    ]
    assert "hunter" not in str(caught.value)


def test_what_is_missing_is_named_where_it_is_missing() -> None:
    inner = {"type": "object", "required": ["port", "to"], "properties": {"port": {"type": "integer"}, "to": {}}}
    schema = {"type": "object", "required": ["mail", "token"], "properties": {"mail": inner, "token": {}}}
    with pytest.raises(SettingsRefused) as caught:
        check_settings(schema, {"mail": {"port": 25}})
    assert str(caught.value) == "the settings are not valid: there must be token; there must be to (at $.mail)"


def test_a_message_about_a_secret_is_not_taken_for_one() -> None:
    with pytest.raises(SettingsRefused) as caught:
        check_settings(SCHEMA, {"token": "short", "mail": {"password": "p"}})
    assert Redactor().text(str(caught.value)) == str(caught.value)


def test_without_a_schema_there_are_no_settings() -> None:
    assert check_settings({}, {}) == {}
    with pytest.raises(SettingsRefused, match="no setting"):
        check_settings({}, {"x": 1})


def test_settings_are_bounded() -> None:
    with pytest.raises(SettingsRefused, match="more than"):
        check_settings(of({"type": "string"}), {"x": "y" * MAX_SETTINGS_BYTES})


@pytest.mark.parametrize("value", ["a\0b", ["\0"], {"a": {"b\0": 1}}])
def test_what_postgres_does_not_keep_is_refused(value: Any) -> None:
    kind = {str: "string", list: "array", dict: "object"}[type(value)]
    schema = of({"type": kind} | ({"additionalProperties": True} if kind == "object" else {}))
    with pytest.raises(SettingsRefused, match="NUL"):
        check_settings(schema, {"x": value})
    written = {"x": "the six characters \\u0000"}
    assert check_settings(of({"type": "string"}), written) == written


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (of({"type": "string", "pattern": "(a+)+$"}), "patterns"),
        ({"type": "object", "patternProperties": {"(a+)+$": {"type": "string"}}}, "patterns"),
        (of({"$ref": "http://127.0.0.1/x"}), "type is one of"),
        (of({"type": "string", "$ref": "http://127.0.0.1/x"}), "nothing is fetched"),
        (of({"type": "string", "$dynamicRef": "#x"}), "nothing is fetched"),
        ({"type": "object", "$schema": "http://127.0.0.1/meta"}, "dialect"),
        ({"type": "object", "$id": "http://127.0.0.1/x"}, "no keyword '$id'"),
        (of({"type": "string", "format": "regex"}), "no keyword 'format'"),
        (of({"type": "integer", "minmum": 3}), "did you mean minimum"),
        (of({"anyOf": [{"type": "string"}]}), "type is one of"),
        (of({"type": "string", "anyOf": [{"type": "string"}]}), "no keyword 'anyOf'"),
        (of({"type": ["string", "null"]}), "type is one of"),
        (of(True), "type is one of"),
        (of({"type": "array"}), "what its items are"),
        (of({"type": "string", "x-secret": "yes"}), "true or false"),
        (of({"type": "integer", "x-secret": True}), "no keyword 'x-secret'"),
        (of({"type": "string", "x-secret": True, "default": "s3cret"}), "no default"),
        (of({"type": "array", "items": {"type": "string", "x-secret": True}}), "not in a list"),
        (of({"type": "array", "items": of({"type": "string", "x-secret": True})}), "not in a list"),
        (of({"type": "string", "minLength": -1}), "whole number"),
        (of({"type": "string", "maxLength": True}), "whole number"),
        (of({"type": "number", "minimum": "1"}), "expected a number"),
        (of({"type": "string", "enum": []}), "list of 1 to"),
        (of({"type": "string", "enum": [{}]}), "list of 1 to"),
        (of({"type": "string", "title": 3}), "text of at most"),
        ({"type": "object", "properties": []}, "object of schemas"),
        ({"type": "object", "properties": {"A-b": {"type": "string"}}}, "name of a setting"),
        ({"type": "object", "required": ["x"]}, "not among the properties"),
        ({"type": "object", "required": "x"}, "list of names"),
        ({"type": "object", "required": [{}]}, "not among the properties"),
        (of(of(of(of(of(of({"type": "string"})))))), "deeper than"),
        ({"type": "object", "properties": {f"x{one}": {"type": "string"} for one in range(MAX_PROPERTIES)}}, "at most"),
    ],
)
def test_what_is_not_of_the_subset(schema: dict[str, Any], why: str) -> None:
    said = [str(problem) for problem in schema_problems(schema, "$")]
    assert any(why in one for one in said), said


keywords = st.sampled_from(
    [
        "type",
        "properties",
        "items",
        "required",
        "enum",
        "default",
        "minimum",
        "maxLength",
        "pattern",
        "$ref",
        "x-secret",
        "title",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["object", "string", "array", "integer", "x", "http://127.0.0.1/"])
)
schemas = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=5), max_leaves=25
)


@calm
@given(st.dictionaries(keywords, schemas, max_size=5))
def test_any_schema_is_of_the_subset_and_usable_or_told_why_not(schema: dict[str, Any]) -> None:
    schema = {"type": "object"} | schema
    if not list(schema_problems(schema, "$")):
        secret_paths(schema)
        with suppress(SettingsRefused):
            check_settings(schema, {"x": 1})
