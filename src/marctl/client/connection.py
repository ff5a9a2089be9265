"""How to reach a server: its address, the proxy in between, and the trusted certificates."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.request import getproxies, proxy_bypass

import httpx

from .errors import BadSetting

ADDRESS = "give one such as http://127.0.0.1:8080"
LAST_PORT = 65535
# Where OpenSSL and httpx read certificates from, and where Python's ssl writes TLS keys to.
FILE, FOLDER, KEY_LOG = "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"


@dataclass(frozen=True)
class Proxy:
    """The proxy that the environment sets for an address."""

    url: httpx.URL
    variable: str  # that sets it
    host: str  # of the server behind it

    @classmethod
    def to(cls, server: httpx.URL) -> Self | None:
        """Return the proxy for a server; None if it is contacted directly.

        The environment is read as in Python's urllib: HTTP_PROXY or HTTPS_PROXY, depending on the server's
        scheme, otherwise ALL_PROXY; lowercase names take precedence; servers in NO_PROXY have no proxy.
        httpx could do this, but fails on entries such as [::1] and does not report which proxy it took.

        Raises BadSetting.
        """
        proxies = getproxies()
        scheme = next((scheme for scheme in (server.scheme, "all") if proxies.get(scheme)), None)
        if scheme is None or proxy_bypass(server.host) or proxy_bypass(server.netloc.decode()):
            return None
        value = proxies[scheme]
        found = (
            name for name, other in os.environ.items() if other == value and name.lower() == f"{scheme}_proxy"
        )
        variable = next(found, "the system's proxy setting")
        try:
            url = _address(value if "://" in value else f"http://{value}")
        except (httpx.InvalidURL, UnicodeError):
            url = httpx.URL()
        if not url.host:  # the value is not shown: it may contain a password
            raise BadSetting(
                f"{variable} is not the address of a proxy; correct it; {_without(variable, server.host)}"
            )
        return cls(url, variable, server.host)

    def __str__(self) -> str:
        return f"the proxy {shown(self.url)}, set by {self.variable}"

    @property
    def without(self) -> str:
        """How to contact the server directly."""
        return _without(self.variable, self.host)

    def for_httpx(self, trusted: ssl.SSLContext) -> httpx.Proxy:
        """Return it as httpx takes it, with the trusted certificates."""
        return httpx.Proxy(self.url, ssl_context=trusted if self.url.scheme == "https" else None)

    def unusable(self, error: Exception) -> BadSetting:
        """Return the error for a proxy that httpx cannot use."""
        return BadSetting(f"{self}, cannot be used ({str(error).rstrip('.')}); {self.without}")


def server_address(url: str) -> httpx.URL:
    """Parse a server's address. Raises BadSetting if no request can be sent to it."""
    try:
        address = _address(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadSetting(f"{url!r} is not a valid address ({error}); {ADDRESS}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise BadSetting(f"{url!r} is not the address of a server; {ADDRESS}")
    return address


def check_token(token: str | None) -> None:
    """Raise BadSetting if a token cannot be sent in a header."""
    if token and not (token.isascii() and token.isprintable()):
        raise BadSetting(
            "the token has characters that a header cannot have; give the one that `make token` prints"
        )


def certificates(*urls: httpx.URL | None) -> ssl.SSLContext:
    """Return the certificates to trust on connections to these addresses; none if no address is https.

    They are certifi's, or those in SSL_CERT_FILE or SSL_CERT_DIR. Raises BadSetting.
    """
    if not any(url is not None and url.scheme == "https" for url in urls):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = os.environ.get(FILE), os.environ.get(FOLDER)
    if folder and not file and not Path(folder).is_dir():  # OpenSSL would silently trust nobody
        raise _unreadable(FOLDER, folder, "it is not a folder")
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is a subclass
        log = os.environ.get(KEY_LOG)
        if log and error.filename == log:
            raise BadSetting(
                f"{KEY_LOG}={log} cannot be written ({error.strerror}); correct it, or unset it"
            ) from error
        raise _unreadable(FILE, file or "", error.strerror or str(error)) from error


def shown(url: httpx.URL) -> str:
    """Return an address without its user name and password."""
    return str(url.copy_with(userinfo=b""))


def _address(text: str) -> httpx.URL:
    """Parse an address. Raises InvalidURL, or UnicodeError for a host that no resolver accepts."""
    url = httpx.URL(text)
    url.raw_host.decode("ascii").encode("idna")  # as the resolver does, only later
    if url.port is not None and url.port > LAST_PORT:
        raise httpx.InvalidURL(f"the port {url.port} is above {LAST_PORT}")
    return url


def _without(variable: str, host: str) -> str:
    return f"to go without a proxy, unset {variable} or add {host} to NO_PROXY"


def _unreadable(variable: str, value: str, why: str) -> BadSetting:
    return BadSetting(
        f"{variable}={value} cannot be read ({why}); give certificates in PEM format, or unset it"
    )
