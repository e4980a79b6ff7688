"""What the engines take for a call, and what that costs. Core.

The engines serve all calls, so a request is charged to the call on whose behalf it is made: the task that asks has
the bill in a context variable, and tasks that it begins inherit it. No engine has to know of calls, and one that
wraps others has nothing to pass on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType

from ari_app.dialog.ports import EngineUsed
from ari_app.errors import EngineRejected, EngineUnreachable
from ari_app.prices import UNCOUNTED, Prices, cost_of


class Bill:
    """Adds up one call."""

    def __init__(self) -> None:
        self.requests = 0
        self.cost_usd: float | None = None
        """Of all whose cost is known; None: of none it is."""
        self.is_partial = False
        """The cost of something is not known: the call cost more."""
        self._open: set[Request] = set()
        self._closed = False

    def __str__(self) -> str:
        if self.cost_usd is None:
            return f"{self.requests} requests to engines"
        return f"{self.requests} requests to engines, {'at least ' * self.is_partial}{self.cost_usd:.4f} USD"

    def enter(
        self, turn: int, stage: str, model: str, amounts: Mapping[str, int], prices: Prices | None
    ) -> EngineUsed:
        """Add one request."""
        cost_usd = cost_of(amounts, prices)
        self.requests += 1
        if cost_usd is None:
            self.is_partial = True
        else:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        return EngineUsed(turn, stage, model, dict(amounts), cost_usd, self.cost_usd, self.is_partial)

    def charge(self, turn: int, report: Callable[[EngineUsed], None]) -> None:
        """From now on this task's requests are entered here and reported, and those of tasks that it begins."""
        _payer.set((self, turn, report))

    def open_request(self, request: Request) -> bool:
        """Know of a request that is on its way; False when the call is over."""
        if not self._closed:
            self._open.add(request)
        return not self._closed

    def close_request(self, request: Request) -> None:
        """It is not on its way any more."""
        self._open.discard(request)

    def close(self) -> bool:
        """The call is over: what is still on its way is not waited for, but entered as far as it is known.

        Returns:
            True when there is something on the bill that was not told before.
        """
        first, self._closed = not self._closed, True
        for request in tuple(self._open):
            request.end()
        return first and self.requests > 0


_payer: ContextVar[tuple[Bill, int, Callable[[EngineUsed], None]] | None] = ContextVar("payer", default=None)


class Request:
    """One request to an engine. What it took is entered once: when that is known, or when it never will be.

    As a context manager it ends with its block; what was refused, or never reached the server, costs nothing.
    """

    def __init__(self, stage: str, model: str, prices: Prices | None) -> None:
        self.answered = False
        """The server began to answer."""
        self._what = (stage, model)
        self._prices = prices
        self._amounts: dict[str, int] = {}
        self._payer = _payer.get()
        if self._payer and not self._payer[0].open_request(self):
            self._payer = None

    def took(self, **amounts: int) -> None:
        """What is known of it so far."""
        self._amounts.update(amounts)

    def end(self) -> None:
        """No more will be known."""
        if payer := self._take_payer():
            bill, turn, report = payer
            report(bill.enter(turn, *self._what, self._amounts or {UNCOUNTED: 1}, self._prices))

    def drop(self) -> None:
        """It cost nothing."""
        self._take_payer()

    def _take_payer(self) -> tuple[Bill, int, Callable[[EngineUsed], None]] | None:
        payer, self._payer = self._payer, None
        if payer:
            payer[0].close_request(self)
        return payer

    def __enter__(self) -> Request:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unanswered = isinstance(error, EngineUnreachable) and not self.answered
        if unanswered or isinstance(error, EngineRejected):
            self.drop()
        else:
            self.end()
