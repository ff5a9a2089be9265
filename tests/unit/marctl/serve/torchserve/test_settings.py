"""A properties file keeps all its settings, whichever ports it is moved to."""

import pytest

from marctl.errors import UserError
from marctl.serve.torchserve.settings import ANY_ADDRESS, PORT_KEYS, Settings, body_limit
from tests.conftest import ROOT

CONFIG = (ROOT / "config.properties").read_text()


def test_ports_are_those_of_the_file():
    """The five ports, and the addresses made from them, are read from the file."""
    settings = Settings.from_file(ROOT / "config.properties")
    assert settings.ports == [8080, 8081, 8082, 7070, 7071]
    assert settings.inference == "http://127.0.0.1:8080"
    assert settings.text == CONFIG


def test_moved_ports_change_nothing_else():
    """PORT is the first of the five ports; every other line stays the same."""
    moved = Settings.from_file(ROOT / "config.properties", 9080).text.splitlines()
    changed = [new for old, new in zip(CONFIG.splitlines(), moved, strict=True) if old != new]
    assert changed == [
        "inference_address=http://127.0.0.1:9080",
        "management_address=http://127.0.0.1:9081",
        "metrics_address=http://127.0.0.1:9082",
        "grpc_inference_port=9083",
        "grpc_management_port=9084",
    ]


def test_host_moves_the_http_addresses_alone():
    """In a container HTTP listens on all addresses; clients use loopback, with the same ports."""
    moved = Settings.from_file(ROOT / "config.properties").on_host(ANY_ADDRESS)
    lines = moved.text.splitlines()
    changed = [new for old, new in zip(CONFIG.splitlines(), lines, strict=True) if old != new]
    assert changed == [
        "inference_address=http://0.0.0.0:8080",
        "management_address=http://0.0.0.0:8081",
        "metrics_address=http://0.0.0.0:8082",
    ]
    assert moved.inference == "http://127.0.0.1:8080"
    assert moved.ports == [8080, 8081, 8082, 7070, 7071]


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("inference_address=https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("inference_address = http://0.0.0.0:8080/", "http://127.0.0.1:8080"),
    ],
)
def test_addresses_are_read_as_they_are_written(tmp_path, line, address):
    """Scheme, spaces and a trailing slash are understood; 0.0.0.0 is reached on loopback."""
    file = tmp_path / "a.properties"
    file.write_text(CONFIG.replace("inference_address=http://127.0.0.1:8080", line))
    assert Settings.from_file(file).inference == address
    assert Settings.from_file(file, 9080).ports[0] == 9080


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("disable_token_authorization=true", False),
        ("disable_token_authorization = TRUE", False),
        ("disable_token_authorization=false", True),
        ("disable_token_authorization=yes", True),
        ("", True),
    ],
    ids=["true", "upper-case", "false", "another-word", "nothing"],
)
def test_tokens_are_on_unless_they_are_turned_off(tmp_path, line, wanted):
    """The key is read as TorchServe reads it; TOKENS overrides it and changes no other line."""
    file = tmp_path / "a.properties"
    file.write_text(CONFIG.replace("disable_token_authorization=true", line))
    settings = Settings.from_file(file)
    assert settings.tokens is wanted
    for word, said in (("on", "false"), ("off", "true")):
        changed = settings.with_tokens(word).moved_to(9080)
        assert changed.tokens is (word == "on")
        assert changed.text.count("disable_token_authorization") == 1
        assert f"disable_token_authorization={said}\n" in changed.text


@pytest.mark.parametrize("value", ["http://127.0.0.1", "http://127.0.0.1:99999", "http://127.0.0.1:x", "0"])
def test_address_without_a_port_is_refused(tmp_path, value):
    """The error quotes the line."""
    file = tmp_path / "a.properties"
    file.write_text(CONFIG.replace("http://127.0.0.1:8080", value))
    with pytest.raises(UserError, match=f"inference_address={value}: no port"):
        Settings.from_file(file)


@pytest.mark.parametrize("key", PORT_KEYS)
def test_missing_port_is_named(tmp_path, key):
    """All five must be set: TorchServe would open its default port instead of a missing one."""
    file = tmp_path / "a.properties"
    file.write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith(key)))
    with pytest.raises(UserError, match=f"does not set {key}"):
        Settings.from_file(file)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", "''"), ("max_request_size=many\n", "'many'"), ("max_request_size=-1\n", "'-1'")],
    ids=["missing", "word", "negative"],
)
def test_body_limit_that_is_none_is_refused(tmp_path, text, shown):
    """The error names a file that sets no valid limit, and says what to write."""
    file = tmp_path / "mine.properties"
    file.write_text(text)
    with pytest.raises(UserError, match=f"sets max_request_size to {shown}; set it to a number of bytes"):
        body_limit(file)
    with pytest.raises(UserError, match="cannot read"):
        body_limit(tmp_path / "none")


def test_body_limit_is_that_of_the_file():
    """It is read from TorchServe's settings: one limit for all servers."""
    assert f"\nmax_request_size={body_limit(ROOT / 'config.properties')}\n" in CONFIG
