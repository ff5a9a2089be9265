"""How a server is reached: its address, the proxy on the way, and which certificates are believed."""

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
# What OpenSSL and httpx take certificates from, and where Python's ssl writes keys to.
FILE, FOLDER, KEY_LOG = "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"


@dataclass(frozen=True)
class Proxy:
    """A proxy that the environment names for an address."""

    url: httpx.URL
    variable: str  # that names it
    host: str  # of the server that is asked through it

    @classmethod
    def to(cls, server: httpx.URL) -> Self | None:
        """Return the proxy through which a server is asked; None where it is asked directly.

        The environment is read as by Python's urllib: HTTP_PROXY or HTTPS_PROXY by the server's scheme, else
        ALL_PROXY; the name in small letters first; none of them for what NO_PROXY holds. httpx would do so
        by itself, but fails at entries such as [::1], and does not tell which proxy it took.

        Raises BadSetting.
        """
        proxies = getproxies()
        scheme = next((scheme for scheme in (server.scheme, "all") if proxies.get(scheme)), None)
        if scheme is None or proxy_bypass(server.host) or proxy_bypass(server.netloc.decode()):
            return None
        named = proxies[scheme]
        found = (
            name for name, value in os.environ.items() if value == named and name.lower() == f"{scheme}_proxy"
        )
        variable = next(found, "the system's settings")
        try:
            url = _address(named if "://" in named else f"http://{named}")
        except (httpx.InvalidURL, UnicodeError):
            url = httpx.URL()
        if not url.host:  # the value is not shown: it may hold a password
            raise BadSetting(
                f"{variable} holds no address of a proxy; correct it; {_without(variable, server.host)}"
            )
        return cls(url, variable, server.host)

    def __str__(self) -> str:
        return f"the proxy {shown(self.url)}, named by {self.variable}"

    @property
    def without(self) -> str:
        """How the server is asked directly."""
        return _without(self.variable, self.host)

    def for_httpx(self, believed: ssl.SSLContext) -> httpx.Proxy:
        """Return the same as httpx takes it, with the certificates that are believed."""
        return httpx.Proxy(self.url, ssl_context=believed if self.url.scheme == "https" else None)

    def unusable(self, error: Exception) -> BadSetting:
        """Return the error of a proxy that httpx cannot use."""
        return BadSetting(f"{self}, cannot be used ({str(error).rstrip('.')}); {self.without}")


def server_address(url: str) -> httpx.URL:
    """Return a server's address. Raises BadSetting where no request can be sent to it."""
    try:
        address = _address(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadSetting(f"{url!r} is no address ({error}); {ADDRESS}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise BadSetting(f"{url!r} is no address of a server; {ADDRESS}")
    return address


def check_token(token: str | None) -> None:
    """Raise BadSetting for a token that no header can hold."""
    if token and not (token.isascii() and token.isprintable()):
        raise BadSetting("the token holds what no header may; give the one that `make token` prints")


def certificates(*urls: httpx.URL | None) -> ssl.SSLContext:
    """Return which certificates are believed on connections to these addresses: none where none is https.

    They are certifi's, or those of SSL_CERT_FILE or SSL_CERT_DIR. Raises BadSetting.
    """
    if not any(url is not None and url.scheme == "https" for url in urls):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = os.environ.get(FILE), os.environ.get(FOLDER)
    if folder and not file and not Path(folder).is_dir():  # OpenSSL would say nothing, and believe nobody
        raise _unread(FOLDER, folder, "it is no folder")
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one, too
        log = os.environ.get(KEY_LOG)
        if log and error.filename == log:
            raise BadSetting(
                f"{KEY_LOG}={log} cannot be written ({error.strerror}); correct it, or unset it"
            ) from error
        raise _unread(FILE, file or "", error.strerror or str(error)) from error


def shown(url: httpx.URL) -> str:
    """Return an address without the name and the password in it."""
    return str(url.copy_with(userinfo=b""))


def _address(text: str) -> httpx.URL:
    """Return an address. Raises InvalidURL, or UnicodeError for a host that no resolver takes."""
    url = httpx.URL(text)
    url.raw_host.decode("ascii").encode("idna")  # which the resolver does, only later
    if url.port is not None and url.port > LAST_PORT:
        raise httpx.InvalidURL(f"the port {url.port} is above {LAST_PORT}")
    return url


def _without(variable: str, host: str) -> str:
    return f"to go without a proxy, unset {variable} or add {host} to NO_PROXY"


def _unread(variable: str, value: str, why: str) -> BadSetting:
    return BadSetting(
        f"{variable}={value} cannot be read ({why}); name certificates in PEM form, or unset it"
    )
