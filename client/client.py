"""Ask a server of an archive, TorchServe, its front door or Flask, from Python code.

    from client import Client

    with Client("http://127.0.0.1:8080") as client:
        print(client.predict("tests/images/2.png").label)

It needs httpx, and of this project nothing but the files beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

import httpx

from attempts import Answer, Attempts, Outcome, Picture, bytes_of, check_concurrency, check_settings
from client_errors import ClientError
from prediction import Explanation, Prediction, explanation_of, prediction_of
from retries import Retries

TIMEOUT = 30.0  # seconds for an answer; a 64-megapixel picture takes two
CONNECTING = 5.0  # seconds for a connection
CONCURRENCY = 8  # pictures under way at once
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

        Raises BadSetting.
        """
        check_settings(url, token)
        self._url, self._model, self._retries = url.rstrip("/"), model, retries
        self._http: Http = self._open(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout, connect=min(CONNECTING, timeout)),
        )

    def _request(self, kind: str, picture: Picture, top_k: int, *, show_input: bool) -> dict[str, Any]:
        """Return a request as httpx takes it. Raises BadPicture."""
        # By the header: unlike the query, a TorchServe without a front door understands it, too.
        wanted = "application/json" + (f"; top_k={top_k}" if top_k else "")
        wanted += "; show_input=true" if show_input else ""
        return {
            "method": "POST",
            "url": f"{self._url}/{kind}/{self._model}",
            "content": bytes_of(picture),
            "headers": {"Accept": wanted, "Content-Type": "application/octet-stream"},
        }


class Client(_Asking[httpx.Client]):
    """Asks one server; used in a `with`, it keeps its connections. Several threads may share it."""

    _open = httpx.Client

    def predict(self, picture: Picture, *, top_k: int = 0, show_input: bool = False) -> Prediction:
        """Return what a picture, its bytes or its file, shows. Raises ClientError."""
        request = self._request(PREDICTIONS, picture, top_k, show_input=show_input)
        return self._ask(request, prediction_of)

    def explain(self, picture: Picture) -> Explanation:
        """Return which pixels decided. Raises ClientError; Unavailable, status 501, where nobody can tell."""
        return self._ask(self._request(EXPLANATIONS, picture, 0, show_input=False), explanation_of)

    def predict_many(
        self, pictures: Iterable[Picture], *, concurrency: int = CONCURRENCY, top_k: int = 0
    ) -> Iterator[Prediction | ClientError]:
        """Yield an outcome for each picture, in their order: its prediction, or the error that it met."""
        check_concurrency(concurrency)

        def outcome(picture: Picture) -> Prediction | ClientError:
            try:
                return self.predict(picture, top_k=top_k)
            except ClientError as error:
                return error

        waiting: deque[Future[Prediction | ClientError]] = deque()
        with ThreadPoolExecutor(concurrency) as pool:
            try:
                for picture in pictures:
                    waiting.append(pool.submit(outcome, picture))
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
        attempts = Attempts(request["url"], self._retries)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.request(**request)
            except httpx.RequestError as error:
                outcome = error
            if (pause := attempts.pause_after(outcome)) is None:
                return attempts.answer(outcome, read)
            time.sleep(pause)


class AsyncClient(_Asking[httpx.AsyncClient]):
    """The same for asyncio, used in an `async with`."""

    _open = httpx.AsyncClient

    async def predict(
        self, picture: Picture, *, top_k: int = 0, show_input: bool = False
    ) -> Prediction:
        """Return what a picture, its bytes or its file, shows. Raises ClientError."""
        request = self._request(PREDICTIONS, picture, top_k, show_input=show_input)
        return await self._ask(request, prediction_of)

    async def explain(self, picture: Picture) -> Explanation:
        """Return which pixels decided. Raises ClientError; Unavailable, status 501, where nobody can tell."""
        request = self._request(EXPLANATIONS, picture, 0, show_input=False)
        return await self._ask(request, explanation_of)

    async def predict_many(
        self, pictures: Iterable[Picture], *, concurrency: int = CONCURRENCY, top_k: int = 0
    ) -> AsyncIterator[Prediction | ClientError]:
        """Yield an outcome for each picture, in their order: its prediction, or the error that it met."""
        check_concurrency(concurrency)
        turn = asyncio.Semaphore(concurrency)

        async def outcome(picture: Picture) -> Prediction | ClientError:
            async with turn:
                try:
                    return await self.predict(picture, top_k=top_k)
                except ClientError as error:
                    return error

        waiting: deque[asyncio.Task[Prediction | ClientError]] = deque()
        try:
            for picture in pictures:
                waiting.append(asyncio.create_task(outcome(picture)))
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
        attempts = Attempts(request["url"], self._retries)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.request(**request)
            except httpx.RequestError as error:
                outcome = error
            if (pause := attempts.pause_after(outcome)) is None:
                return attempts.answer(outcome, read)
            await asyncio.sleep(pause)
