"""A properties file keeps all it says, whichever ports it is moved to."""

import pytest

from marctl.errors import UserError
from marctl.serve.torchserve.settings import ANY_ADDRESS, PORT_KEYS, Settings, body_limit
from tests.conftest import ROOT

CONFIG = (ROOT / "config.properties").read_text()


def test_ports_are_those_of_the_file():
    """The five ports, and the addresses made of them."""
    settings = Settings.from_file(ROOT / "config.properties")
    assert settings.ports == [8080, 8081, 8082, 7070, 7071]
    assert settings.inference == "http://127.0.0.1:8080"
    assert settings.text == CONFIG


def test_moved_ports_change_nothing_else():
    """PORT counts the five ports up, and leaves every other line alone."""
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
    """In a container HTTP listens on all addresses; it is asked on loopback, on the same ports."""
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
    """Scheme, spaces and a slash at the end; all addresses of the machine are asked on loopback."""
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
    """As TorchServe reads its key; TOKENS decides otherwise, and changes no other line."""
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
    """The sentence quotes the line."""
    file = tmp_path / "a.properties"
    file.write_text(CONFIG.replace("http://127.0.0.1:8080", value))
    with pytest.raises(UserError, match=f"inference_address={value}: no port"):
        Settings.from_file(file)


@pytest.mark.parametrize("key", PORT_KEYS)
def test_missing_port_is_named(tmp_path, key):
    """Each of the five has to be there: TorchServe would open its own default in its place."""
    file = tmp_path / "a.properties"
    file.write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith(key)))
    with pytest.raises(UserError, match=f"sets no {key}"):
        Settings.from_file(file)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", "''"), ("max_request_size=many\n", "'many'"), ("max_request_size=-1\n", "'-1'")],
    ids=["missing", "word", "negative"],
)
def test_body_limit_that_is_none_is_refused(tmp_path, text, shown):
    """A file that does not say how large a request may be is named with what to write."""
    file = tmp_path / "mine.properties"
    file.write_text(text)
    with pytest.raises(UserError, match=f"sets max_request_size to {shown}; write the bytes"):
        body_limit(file)
    with pytest.raises(UserError, match="cannot read"):
        body_limit(tmp_path / "none")


def test_body_limit_is_that_of_the_file():
    """Read from the settings that TorchServe gets: one limit for all."""
    assert f"\nmax_request_size={body_limit(ROOT / 'config.properties')}\n" in CONFIG
