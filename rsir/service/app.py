"""The routes of the service: what they take, what they answer, and one sentence with a 4xx status for bad input."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from rsir.config.values import shown
from rsir.errors import RsirError
from rsir.runs.results import Run
from rsir.service.metrics import Metrics
from rsir.service.served import Served
from rsir.serving.output import recommendations
from rsir.serving.recommender import Recommender

__all__ = ["application"]

_LARGEST = 1 << 20  # bytes of a request
_FOUND = 20  # names that a search gives
_PAGE = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
_ASKED = ("user", "history", "k", "candidates", "exclude", "repeats", "round")
_SIMILAR = ("item", "k", "by", "candidates", "exclude", "round")


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def application(served: Served, *, most: int = 1000, every: float = 5.0) -> FastAPI:
    """The service.

    Parameters
    ----------
    served : Served
    most : int
        The largest k, and the most items of a list, times 10, that a request may ask for.
    every : float
        Seconds between looks for a newer run; 0: none.
    """
    service = _Service(served, most)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(served, every)) if every > 0 else None
        yield
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    # no /docs: that page loads its script from elsewhere
    app = FastAPI(title="rsir", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    for path, methods, answer in (
        ("/recommend", ["GET", "POST"], service.recommend),
        ("/similar", ["GET", "POST"], service.similar),
        ("/user", ["GET"], service.user),
        ("/search", ["GET"], service.search),
        ("/health", ["GET"], service.health),
        ("/metrics", ["GET"], service.numbers),
        ("/", ["GET"], service.page),
    ):
        app.add_api_route(path, service.timed(path, answer), methods=methods, response_model=None)
    for status in (404, 405):
        app.add_exception_handler(status, _no_such_route)
    return app


async def _no_such_route(request: Request, error: Exception) -> Response:
    """Of a path that there is not, or a method that it does not take."""
    assert isinstance(error, HTTPException)
    sentence = (
        f"{request.method} {request.url.path[:80]}: expected GET or POST of /recommend or /similar, or GET of /user, "
        "/search, /health, /metrics or /"
    )
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _watch(served: Served, every: float) -> None:
    """Look for a newer run now and then; it is loaded beside the requests."""
    told = ""
    while True:
        await asyncio.sleep(every)
        if await asyncio.to_thread(served.reload):
            print(f"rsir: serving {served.run.path}, round {served.run.best}", file=sys.stderr, flush=True)
        elif served.failure and served.failure != told:
            print(f"rsir: note: still serving the run from before: {served.failure}", file=sys.stderr, flush=True)
        told = served.failure


class _Service:
    """Answers of one served run; each is computed at once, in the thread that all requests share."""

    def __init__(self, served: Served, most: int) -> None:
        self.served, self.most, self.metrics = served, most, Metrics()
        self._page = (Path(__file__).parent / "page.html").read_text("utf-8")

    def timed(self, path: str, answer: Callable[[Request], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        """A route: counted, and with a sentence in the place of an error."""

        async def route(request: Request) -> Response:
            began = time.perf_counter()
            try:
                response = await answer(request)
            except _Refused as error:
                response = JSONResponse({"error": str(error)}, error.status)
            except RsirError as error:
                response = JSONResponse({"error": str(error)}, 422)
            self.metrics.add(path, response.status_code, time.perf_counter() - began)
            return response

        route.__annotations__["request"] = Request  # by the class: FastAPI looks names up elsewhere
        return route

    async def recommend(self, request: Request) -> Response:
        asked = await _asked(request, _ASKED)
        run = self.served.run
        if ("user" in asked) == ("history" in asked):
            raise _Refused(422, "expected a user or a history, got " + ("both" if "user" in asked else "neither"))
        k = self._count(asked)
        recommender = run.recommender(_round(run, asked))
        if "user" in asked:
            found = recommender.histories_of([_known(recommender, "user", asked["user"])])
        else:
            history = self._list(asked, "history") or []
            if history and not recommender.items.ids(history).any():
                raise _Refused(404, f"history: none of its items, {shown(history[0])} for one, is in the catalogue")
            found = recommender.histories([history])
        offer = recommender.offer(self._list(asked, "candidates"), self._list(asked, "exclude"))
        best = recommendations(recommender, found, k, offer=offer, repeats=asked.get("repeats"))
        items = _titled(recommender, list(zip(best[0], best.scores[0], strict=True)))
        skipped = found.unknown_events + offer.unknown
        return JSONResponse({"items": items, "by": best.by[0], "skipped": skipped, "round": _round(run, asked)})

    async def similar(self, request: Request) -> Response:
        asked = await _asked(request, _SIMILAR)
        run = self.served.run
        if "item" not in asked:
            raise _Refused(422, "expected an item, got none")
        item = _known(run.recommender(), "item", asked["item"])
        found = run.similar(
            item,
            self._count(asked),
            by=asked.get("by", "vectors"),
            candidates=self._list(asked, "candidates"),
            exclude=self._list(asked, "exclude"),
            round_=_round(run, asked),
        )
        items = _titled(run.recommender(), found)
        return JSONResponse({"items": items, "by": asked.get("by", "vectors"), "round": _round(run, asked)})

    async def user(self, request: Request) -> Response:
        asked = await _asked(request, ("user",))
        recommender = self.served.run.recommender()
        if "user" not in asked:
            raise _Refused(422, "expected a user, got none")
        found = recommender.histories_of([_known(recommender, "user", asked["user"])]).lists[0]
        return JSONResponse({"user": asked["user"], "history": recommender.items.of(found.astype("int64")).to_pylist()})

    async def search(self, request: Request) -> Response:
        """The first names of items, or users, that hold a text."""
        asked = await _asked(request, ("q", "kind"))
        kind = asked.get("kind", "item")
        if kind not in ("item", "user"):
            raise _Refused(422, f"kind: expected item or user, got {shown(kind)}")
        recommender = self.served.run.recommender()
        labels = (recommender.items if kind == "item" else recommender.users).labels
        text = labels.cast(pa.large_string())
        places = pc.indices_nonzero(pc.match_substring(text, str(asked.get("q", "")), ignore_case=True))[:_FOUND]
        return JSONResponse({"names": labels.take(places).to_pylist()})

    async def health(self, request: Request) -> Response:
        run = self.served.run
        said = {
            "status": "ok",
            "run": None if run.path is None else run.path.name,
            "refit": run.refitted,
            "rounds": _rounds(run),
            "best": run.best,
            "users": run.data.num_real,
            "items": run.data.num_items,
            "loaded": self.served.loaded,
            "reload_failure": self.served.failure or None,
        }
        return JSONResponse(said)

    async def numbers(self, request: Request) -> Response:
        return PlainTextResponse(self.metrics.text(self.served), media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers=_PAGE)

    def _count(self, asked: dict[str, Any]) -> int:
        k = asked.get("k", 10)
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.most:
            raise _Refused(422, f"k: expected a whole number in 1..{self.most}, got {shown(k)}")
        return k

    def _list(self, asked: dict[str, Any], name: str) -> list[Any] | None:
        names = asked.get(name)
        if names is None and name != "history":
            return None
        if not isinstance(names, list):
            raise _Refused(422, f"{name}: expected a list of items, got {shown(names)}")
        if len(names) > 10 * self.most:
            raise _Refused(422, f"{name}: expected at most {10 * self.most:,} items, got {len(names):,}")
        return names


def _titled(recommender: Recommender, found: list[tuple[Any, float]]) -> list[dict[str, Any]]:
    """Items with their scores, and their titles where the run has some."""
    items: list[dict[str, Any]] = [{"item": item, "score": score} for item, score in found]
    if recommender.titles is not None:
        titles = recommender.titled(recommender.items.ids([item for item, _ in found]))
        for item, title in zip(items, titles.to_pylist() if titles is not None else [], strict=True):
            item["title"] = title
    return items


async def _asked(request: Request, known: tuple[str, ...]) -> dict[str, Any]:
    """What a request asks for by name, from its address or from its JSON."""
    if request.method == "GET":
        asked: Any = {}
        for name, value in request.query_params.multi_items():
            if name in ("history", "candidates", "exclude"):
                asked.setdefault(name, []).append(value)
            else:
                asked[name] = int(value) if name in ("k", "round") and _is_number(value) else value
    else:
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > _LARGEST:
                raise _Refused(413, f"expected at most {_LARGEST:,} bytes of JSON, got more")
        try:
            asked = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, f"expected JSON, got something else: {error}") from error
        if not isinstance(asked, dict):
            raise _Refused(422, f"expected a JSON object, got {shown(asked)}")
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise _Refused(422, f"{shown(unknown[0])}: unknown; expected some of {', '.join(known)}")
    return {name: value for name, value in asked.items() if value is not None}


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 19


def _rounds(run: Run) -> list[int]:
    """The rounds that can be asked for."""
    return [run.best] if run.refitted else list(range(len(run.rounds)))


def _round(run: Run, asked: dict[str, Any]) -> int:
    number = asked.get("round", run.best)
    rounds = _rounds(run)
    if isinstance(number, bool) or not isinstance(number, int) or number not in rounds:
        raise _Refused(422, f"round: expected one of {', '.join(map(str, rounds))}, got {shown(number)}")
    return number


def _known(recommender: Recommender, kind: str, name: Any) -> Any:
    """A user or item that is there."""
    names = recommender.users if kind == "user" else recommender.items
    if not names.ids([name])[0]:
        raise _Refused(404, f"{kind}: {shown(name)} is not in the run, which has {names.labels[0].as_py()!r} for one")
    return name
