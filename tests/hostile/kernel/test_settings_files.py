"""Files of settings that somebody made to hurt: they are refused in a moment, and with a few lines."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from magmobo.contracts.errors import ConfigError
from magmobo.kernel.config import layers
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.layers import MAX_DEPTH, environment_layer, parsed_layer, read_value
from magmobo.kernel.config.loader import load_config
from magmobo.kernel.errors import ConfigFileError

MAIN = Path("mag.toml")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(CORE_SECTIONS, [parsed_layer(text.encode(), MAIN, "mag.toml")])
    return str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "kernel." + ".".join(["a"] * 900) + " = 1",
        "kernel." + " . ".join(['"a"', "'b'", "c"] * 300) + " = 1",
        "[" + ".".join(["a"] * 400_000) + "]",  # took three minutes to parse, and a RecursionError afterwards
        "[[" + ".".join(["a"] * 400_000) + "]]",
        "kernel = {" + ".".join(["a"] * 100_000) + " = 1}",
        "kernel = {a = 1, " + ".".join(["b"] * 100_000) + " = 1}",
        "kernel.a = " + "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "kernel.a = " + "{a = " * MAX_DEPTH + "1" + "}" * MAX_DEPTH,
        f"[{'.'.join(['a'] * MAX_DEPTH)}]\n{'.'.join(['b'] * MAX_DEPTH)} = 1",
    ],
    ids=range(9),
)
def test_what_is_nested_too_deep_is_refused_before_it_costs_anything(text: str) -> None:
    assert refusal(text) == "mag.toml: is not valid TOML: nested too deep"


@pytest.mark.parametrize(
    "number", ["9" * 30, "-" + "9" * 19, "0x" + "f" * 1_000_000, "0b" + "1" * 64, "[9223372036854775808]"]
)
def test_a_number_of_more_bits_than_toml_has_is_refused(number: str) -> None:
    assert refusal(f"health.failures = {number}") == "mag.toml: is not valid TOML: a number is too long"


def test_what_only_looks_deep_is_text() -> None:
    many = "a." * 1_000
    text = f"kernel.environment = 'test'\n[logging]\nlevel = 'debug' # {many}\n[admin]\nhost = 'a {many}'\n"
    config = load_config(CORE_SECTIONS, [parsed_layer(text.encode(), MAIN, "mag.toml")])
    assert config.section("admin").host == f"a {many}"


@pytest.mark.parametrize(
    "text",
    [
        "[kernel]\n" + "".join(f"k{n} = 1\n" for n in range(50_000)),
        "".join(f"[kernel.t{n}]\na = 1\n" for n in range(30_000)),
        "".join(f"[t{n}]\na = 1\n" for n in range(30_000)),
        "kernel.components = [" + "1," * 100_000 + "]",
    ],
    ids=["keys", "tables", "sections", "items"],
)
def test_ten_thousands_of_mistakes_are_told_as_a_hundred(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(CORE_SECTIONS, [parsed_layer(text.encode(), MAIN, "mag.toml")])
    assert len(refused.value.problems) == 101
    assert refused.value.problems[-1].startswith("and ")
    assert len(str(refused.value)) < 100_000


def test_all_of_a_hundred_mistakes_are_told() -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(
            CORE_SECTIONS, [parsed_layer(b"[kernel]\n" + b"".join(b"k%d = 1\n" % n for n in range(100)), MAIN, "m")]
        )
    assert len(refused.value.problems) == 100
    assert all("is unknown" in problem for problem in refused.value.problems)


def test_a_variable_that_goes_too_deep_is_refused() -> None:
    with pytest.raises(ConfigFileError, match="is nested too deep"):
        environment_layer({"MAG_KERNEL" + "__A" * 10_000: "1"})


def test_a_file_that_becomes_a_pipe_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("s")
    regular = file.stat()
    file.unlink()
    os.mkfifo(file)
    monkeypatch.setattr(layers.Path, "stat", lambda self: regular)  # what it was a moment ago
    reading = threading.Thread(target=lambda: read_value(file), daemon=True)
    reading.start()
    reading.join(10)
    assert not reading.is_alive()
