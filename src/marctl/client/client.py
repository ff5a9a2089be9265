"""Ask a server of an archive, TorchServe, its reverse proxy or Flask: with asyncio or without."""

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
CONCURRENCY = 8  # images under way at once
AHEAD = 4  # times as many wait for their turn in the answers' order, so that a slow one holds up no other
PREDICTIONS, EXPLANATIONS = "predictions", "explanations"

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class _Asking(Generic[Http]):
    """What a synchronous and an asynchronous client have in common: everything but the waiting."""

    _open: type[Http]

    def __init__(
        self,
        url: str,
        *,
        model: str = "convnet",
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008 it cannot be changed
    ) -> None:
        """Take the server's address, without a path; `timeout` is in seconds, for each try.

        Raises BadSetting, also for what the environment says of proxies and certificates.
        """
        address = server_address(url)
        check_token(token)
        self._shown, self._model, self._retries = shown(address).rstrip("/"), model, retries
        self._proxy = proxy = Proxy.to(address)
        believed = certificates(address, proxy.url if proxy else None)
        try:
            self._http: Http = self._open(
                base_url=address,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(timeout, connect=min(CONNECTING, timeout)),
                proxy=proxy.for_httpx(believed) if proxy else None,
                verify=believed,
                trust_env=False,  # the environment is read above
            )
        except (ImportError, ValueError) as error:  # a kind of proxy that httpx knows not, or not here
            if proxy is None:
                raise
            raise proxy.unusable(error) from error

    def _request(self, kind: str, image: Image, top_k: int, *, show_input: bool) -> dict[str, Any]:
        """Return a request as httpx takes it. Raises BadImage."""
        # By the header: unlike the query, a TorchServe without a reverse proxy understands it, too.
        wanted = "application/json" + (f"; top_k={top_k}" if top_k else "")
        wanted += "; show_input=true" if show_input else ""
        return {
            "method": "POST",
            "url": f"/{kind}/{quote(self._model)}",
            "content": _bytes_of(image),
            "headers": {"Accept": wanted, "Content-Type": "application/octet-stream"},
        }

    def _exchange(self, request: dict[str, Any], kind: type[Kind]) -> Exchange[Kind]:
        return Exchange(self._shown + request["url"], self._proxy, self._retries, kind)


class Client(_Asking[httpx.Client]):
    """Asks one server; used in a `with`, it keeps its connections. Several threads may share it."""

    _open = httpx.Client

    def predict(self, image: Image, *, top_k: int = 0, show_input: bool = False) -> Prediction:
        """Return what an image, its bytes or its file, shows. Raises ClientError."""
        request = self._request(PREDICTIONS, image, top_k, show_input=show_input)
        return self._ask(request, prediction_of)

    def explain(self, image: Image) -> Explanation:
        """Return which pixels decided. Raises ClientError; Unavailable, status 501, where nobody can tell."""
        return self._ask(self._request(EXPLANATIONS, image, 0, show_input=False), explanation_of)

    def predict_many(
        self, images: Iterable[Image], *, concurrency: int = CONCURRENCY, top_k: int = 0
    ) -> Iterator[Prediction | ClientError]:
        """Yield an outcome for each image, in their order: its prediction, or the error that it met."""
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

    def _ask(self, request: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
        exchange = self._exchange(request, Retrying)
        try:
            response = exchange.send(self._http.request, **request)
        except Exception as error:
            raise exchange.unanswered(error) from error
        return exchange.answer(response, read)


class AsyncClient(_Asking[httpx.AsyncClient]):
    """The same for asyncio, used in an `async with`."""

    _open = httpx.AsyncClient

    async def predict(self, image: Image, *, top_k: int = 0, show_input: bool = False) -> Prediction:
        """Return what an image, its bytes or its file, shows. Raises ClientError."""
        request = self._request(PREDICTIONS, image, top_k, show_input=show_input)
        return await self._ask(request, prediction_of)

    async def explain(self, image: Image) -> Explanation:
        """Return which pixels decided. Raises ClientError; Unavailable, status 501, where nobody can tell."""
        request = self._request(EXPLANATIONS, image, 0, show_input=False)
        return await self._ask(request, explanation_of)

    async def predict_many(
        self, images: Iterable[Image], *, concurrency: int = CONCURRENCY, top_k: int = 0
    ) -> AsyncIterator[Prediction | ClientError]:
        """Yield an outcome for each image, in their order: its prediction, or the error that it met."""
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

    async def _ask(self, request: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
        exchange = self._exchange(request, AsyncRetrying)
        try:
            response: httpx.Response = await exchange.send(self._http.request, **request)
        except Exception as error:
            raise exchange.unanswered(error) from error
        return exchange.answer(response, read)


def _check_concurrency(concurrency: int) -> None:
    """Raise ValueError where no image could ever be under way."""
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; 1 is the least")


def _bytes_of(image: Image) -> bytes:
    """Return an image's bytes, of a file where it is the name of one. Raises BadImage."""
    if isinstance(image, bytes):
        return image
    try:
        file = Path(image)
        if file.exists() and not file.is_file():  # a pipe or a device may have no end
            raise BadImage(f"{os.fspath(image)} is no file; name an image")
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        why = getattr(error, "strerror", None) or error
        raise BadImage(f"cannot read {os.fspath(image)}: {why}; name an image") from error
