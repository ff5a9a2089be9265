"""Clients, synchronous and for asyncio, of an archive's server: TorchServe, its reverse proxy or Flask."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from tenacity import AsyncRetrying, Retrying

from .connection import Proxy, certificates, check_token, server_address, shown
from .errors import BadImage, ClientError
from .exchange import Answer, Exchange
from .prediction import Explanation, Prediction, explanation_of, prediction_of
from .retries import Kind, Retries

Image = bytes | str | os.PathLike[str]

TIMEOUT = 30.0  # seconds for an answer; a 64-megapixel image takes two
CONNECTING = 5.0  # seconds for a connection
CONCURRENCY = 8  # requests in flight at once
AHEAD = 4  # pending requests per one in flight: answers come in order, and a slow one must not stall the rest
PREDICTIONS, EXPLANATIONS = "predictions", "explanations"

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class _BaseClient(Generic[Http]):
    """What both clients share: everything except the waiting."""

    _open: type[Http]

    def __init__(
        self,
        url: str,
        *,
        model: str = "convnet",
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008 it is immutable
    ) -> None:
        """Create a client for a server's address, without a path; `timeout` is in seconds, per attempt.

        Raises BadSetting, also for proxies or certificates in the environment that cannot be used.
        """
        address = server_address(url)
        check_token(token)
        self._shown, self._model, self._retries = shown(address).rstrip("/"), model, retries
        self._proxy = proxy = Proxy.to(address)
        trusted = certificates(address, proxy.url if proxy else None)
        try:
            self._http: Http = self._open(
                base_url=address,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(timeout, connect=min(CONNECTING, timeout)),
                proxy=proxy.for_httpx(trusted) if proxy else None,
                verify=trusted,
                trust_env=False,  # the environment is read above
            )
        except (ImportError, ValueError) as error:  # a scheme that httpx, as installed, cannot use
            if proxy is None:
                raise
            raise proxy.unusable(error) from error

    def _request(self, kind: str, image: Image, top_k: int, *, show_input: bool) -> dict[str, Any]:
        """Return the arguments of httpx's `request`. Raises BadImage."""
        # In a header: TorchServe without the reverse proxy does not understand the query.
        accept = "application/json" + (f"; top_k={top_k}" if top_k else "")
        accept += "; show_input=true" if show_input else ""
        return {
            "method": "POST",
            "url": f"/{kind}/{quote(self._model)}",
            "content": _bytes_of(image),
            "headers": {"Accept": accept, "Content-Type": "application/octet-stream"},
        }

    def _exchange(self, request: dict[str, Any], kind: type[Kind]) -> Exchange[Kind]:
        return Exchange(self._shown + request["url"], self._proxy, self._retries, kind)


class Client(_BaseClient[httpx.Client]):
    """A client of one server, with a connection pool. Use it in a `with`; threads may share it."""

    _open = httpx.Client

    def predict(self, image: Image, *, top_k: int = 0, show_input: bool = False) -> Prediction:
        """Classify an image, given as bytes or as a file name. Raises ClientError."""
        request = self._request(PREDICTIONS, image, top_k, show_input=show_input)
        return self._send(request, prediction_of)

    def explain(self, image: Image) -> Explanation:
        """Return each pixel's contribution. Raises ClientError; Unavailable with 501 if the server cannot."""
        return self._send(self._request(EXPLANATIONS, image, 0, show_input=False), explanation_of)

    def predict_many(
        self, images: Iterable[Image], *, concurrency: int = CONCURRENCY, top_k: int = 0
    ) -> Iterator[Prediction | ClientError]:
        """Yield one outcome per image, in order: its prediction, or the error that it met."""
        _check_concurrency(concurrency)

        def outcome(image: Image) -> Prediction | ClientError:
            try:
                return self.predict(image, top_k=top_k)
            except ClientError as error:
                return error

        waiting: deque[Future[Prediction | ClientError]] = deque()
        with ThreadPoolExecutor(concurrency) as pool:
            try:
                for image in images:
                    waiting.append(pool.submit(outcome, image))
                    if len(waiting) >= concurrency * AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
        exchange = self._exchange(request, Retrying)
        try:
            response = exchange.send(self._http.request, **request)
        except Exception as error:
            raise exchange.unanswered(error) from error
        return exchange.answer(response, read)


class AsyncClient(_BaseClient[httpx.AsyncClient]):
    """The same client for asyncio; use it in an `async with`."""

    _open = httpx.AsyncClient

    async def predict(self, image: Image, *, top_k: int = 0, show_input: bool = False) -> Prediction:
        """Classify an image, given as bytes or as a file name. Raises ClientError."""
        request = self._request(PREDICTIONS, image, top_k, show_input=show_input)
        return await self._send(request, prediction_of)

    async def explain(self, image: Image) -> Explanation:
        """Return each pixel's contribution. Raises ClientError; Unavailable with 501 if the server cannot."""
        request = self._request(EXPLANATIONS, image, 0, show_input=False)
        return await self._send(request, explanation_of)

    async def predict_many(
        self, images: Iterable[Image], *, concurrency: int = CONCURRENCY, top_k: int = 0
    ) -> AsyncIterator[Prediction | ClientError]:
        """Yield one outcome per image, in order: its prediction, or the error that it met."""
        _check_concurrency(concurrency)
        turn = asyncio.Semaphore(concurrency)

        async def outcome(image: Image) -> Prediction | ClientError:
            async with turn:
                try:
                    return await self.predict(image, top_k=top_k)
                except ClientError as error:
                    return error

        waiting: deque[asyncio.Task[Prediction | ClientError]] = deque()
        try:
            for image in images:
                waiting.append(asyncio.create_task(outcome(image)))
                if len(waiting) >= concurrency * AHEAD:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, request: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
        exchange = self._exchange(request, AsyncRetrying)
        try:
            response: httpx.Response = await exchange.send(self._http.request, **request)
        except Exception as error:
            raise exchange.unanswered(error) from error
        return exchange.answer(response, read)


def _check_concurrency(concurrency: int) -> None:
    """Raise ValueError if no request could ever be sent."""
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be at least 1")


def _bytes_of(image: Image) -> bytes:
    """Return an image's bytes, read from a file if it is a file name. Raises BadImage."""
    if isinstance(image, bytes):
        return image
    try:
        file = Path(image)
        if file.exists() and not file.is_file():  # a pipe or a device may have no end
            raise BadImage(f"{os.fspath(image)} is not a file; give an image file")
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: not a valid file name
        why = getattr(error, "strerror", None) or error
        raise BadImage(f"cannot read {os.fspath(image)}: {why}; give an image file") from error
