"""Carries out settlements. Only this module calls acknowledgers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from broadway_py import forks
from broadway_py._core.ledger import OUTCOMES
from broadway_py._core.settlement import Round, claim, record
from broadway_py.abilities import abilities_of
from broadway_py.acknowledger import Acknowledger
from broadway_py.clock import Clock
from broadway_py.error_text import name_of, place_of, text_of
from broadway_py.errors import SettleError
from broadway_py.foreign import article, foreign_errors
from broadway_py.log import logger
from broadway_py.message import Failed, Message, Outcome, Plain
from broadway_py.pipeline.settlement.failure_log import Fate
from broadway_py.pipeline.settlement.failure_router import Decided, FailureRouter
from broadway_py.pipeline.settlement.fates import fate_of

__all__ = ["Settler", "ack_immediately", "by_outcome"]

log = logger("broadway_py.pipeline")


class Ids(Protocol):
    """What stores the ids of messages with ``deduplicate_by``."""

    async def store(self, messages: Sequence[Message[Any]]) -> Sequence[Message[Any]]:
        """Store the ids of *messages*, which were handled. Returns those whose ids are not on the disk afterwards."""

    def note_stored_by_aggregator(self, messages: Sequence[Message[Any]]) -> None:
        """Note that the ids of *messages* need not be stored."""

    def ended(self, messages: Sequence[Message[Any]], outcome: Outcome) -> None:
        """Note that *messages* have an outcome."""


class Settler:
    """Settles the messages of one pipeline. An acknowledger that raises or hangs does not delay the others.

    Args:
        pipeline: the pipeline's name, for the log.
        clock: the clock for the ledgers.
        failures: decides what happens to failed messages; None leaves that to their acknowledgers.
    """

    def __init__(self, pipeline: str, clock: Clock, failures: FailureRouter | None) -> None:
        self._log = log.bind(pipeline=pipeline)
        self._clock = clock
        self._failures = failures
        #: Called after each outcome is recorded, to wake sources that wait for room; None if none do.
        self.settled: Callable[[], None] | None = None
        #: Stores the ids of messages before they are acked; None without ``deduplicate_by``.
        self.ids: Ids | None = None
        #: Settlements that run in their own tasks. The code that ends the pipeline cancels them.
        self.aside: set[asyncio.Task[list[BaseException]]] = set()

    async def settle(
        self,
        successful: Sequence[Message[Any]],
        failed: Sequence[Message[Any]] = (),
        *,
        of_children: bool = False,
        decided: Callable[[Fate], object] | None = None,
        stage: str = "",
    ) -> None:
        """Tell the acknowledgers, and record the outcomes. It never raises an acknowledger's error.

        With *of_children* the messages are parents, whose outcome is that of their children. *decided* is called with
        what happens to the failed messages, before it happens. *stage* is the layer in which they failed.
        """
        delays: Mapping[int, float] = {}
        if failed:
            rounds, delays = self._claim(successful, failed, of_children=of_children, decided=decided, stage=stage)
        else:
            rounds = self._claim_successful(successful, of_children=of_children)
        if len(rounds) == 1 and rounds[0].acknowledger is None and rounds[0].kind == "ack" and self.ids is None:
            self._record(rounds[0].successful, "acked")
            self._record(rounds[0].failed, "rejected")
        elif len(rounds) == 1:
            await self._attempt(rounds[0], delays)
        elif rounds:
            await self._carry_out(rounds, delays)

    async def settle_stored(self, messages: Sequence[Message[Any]]) -> None:
        """Settle *messages*, whose effect an aggregator has stored with its own identities, as successful."""
        if self.ids is not None:
            self.ids.note_stored_by_aggregator(messages)
        await self.settle(messages)

    def _claim_successful(self, messages: Sequence[Message[Any]], *, of_children: bool = False) -> list[Round]:
        if self._failures is not None and not of_children:
            self._failures.note_successes(len(messages))
        return claim(messages)

    def _claim(
        self,
        successful: Sequence[Message[Any]],
        failed: Sequence[Message[Any]],
        *,
        of_children: bool = False,
        decided: Callable[[Fate], object] | None = None,
        stage: str = "",
    ) -> tuple[list[Round], Mapping[int, float]]:
        if self._failures is None:
            if decided is not None:
                decided(lambda message: fate_of(message, "ack", None))
            return claim(successful, failed), {}
        verdicts = self._failures.decide(failed, len(successful), of_children=of_children, stage=stage)
        if decided is not None:
            decided(_fates(verdicts))
        rounds = claim(successful, verdicts.by_kind.pop("ack", ()))
        for kind, messages in verdicts.by_kind.items():
            rounds += claim(messages, (), kind)
        return rounds, verdicts.delays_s

    async def give_back(self, messages: Iterable[Message[Any]]) -> None:
        """Give *messages* back without a decision. If their source takes none back, they fail with ``stopped``."""
        rounds = claim(messages, (), "release")
        if rounds:
            await self._carry_out(rounds, {})

    async def give_back_aside(self, messages: Iterable[Message[Any]]) -> None:
        """Give *messages* back in a task of its own, and wait for it. For callers that are not stages.

        All *messages* must be such that can be given back. The task ends with the pipeline at the latest.
        """
        rounds = claim(messages, (), "release")
        if rounds:
            await asyncio.wait({self._aside(self._carry_out(rounds, {}), "give_back")})

    def _aside(self, work: Coroutine[Any, Any, list[BaseException]], name: str) -> asyncio.Task[list[BaseException]]:
        """Run *work* in its own task, so that it goes on if the caller is cancelled. :meth:`finish` waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.aside.add(task)
        task.add_done_callback(self.aside.discard)
        return task

    def give_back_soon(self, messages: Iterable[Message[Any]]) -> None:
        """Give *messages*, which can be given back, back without waiting. :meth:`finish` waits for it."""
        self._aside(self._carry_out(claim(messages, (), "release"), {}), "give_back")

    def settle_now(self, messages: Sequence[Message[Any]]) -> asyncio.Task[list[BaseException]]:
        """Settle *messages* by their status in a task of its own. The task returns the acknowledgers' errors."""
        successful, failed = [m for m in messages if m.ok], [m for m in messages if not m.ok]
        rounds, delays = self._claim(successful, failed) if failed else (self._claim_successful(successful), {})
        return self._aside(self._carry_out(rounds, delays), "ack_immediately")

    async def ack_repeats(self, messages: Sequence[Message[Any]]) -> None:
        """Ack *messages*, which repeat what was handled. They count as no success: no callback has seen them."""
        await self._carry_out(claim(messages), {})

    def ack_repeats_soon(self, messages: Sequence[Message[Any]]) -> None:
        """Do :meth:`ack_repeats` without waiting. :meth:`finish` waits for it."""
        self._aside(self._carry_out(claim(messages), {}), "ack_repeats")

    async def finish(self) -> None:
        """Wait for the settlements that run in their own tasks. Cancel them if this wait is cancelled."""
        if not self.aside:
            return
        try:
            await asyncio.wait(self.aside)
        finally:
            for task in self.aside:
                task.cancel()

    async def _carry_out(self, rounds: list[Round], delays_s: Mapping[int, float]) -> list[BaseException]:
        if len(rounds) == 1:
            error = await self._attempt(rounds[0], delays_s)
            return [] if error is None else [error]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._attempt(each, delays_s)) for each in rounds]
        return [error for task in tasks if (error := task.result()) is not None]

    async def _attempt(self, each: Round, delays_s: Mapping[int, float]) -> BaseException | None:
        """Carry out one round. Returns the error, if any. Each message has an outcome afterwards in any case."""
        forks.leave_if_forked()
        settled = False
        try:
            if self.ids is not None and each.kind == "ack" and each.successful:
                await self._store_ids(self.ids, each)
                if not (each.successful or each.failed):
                    settled = True
                    return None
            if each.kind == "ack" and each.acknowledger is not None:
                # Called directly for speed: almost every round is of this kind.
                await each.acknowledger.ack(each.ref, each.successful, each.failed)
            else:
                await self._tell(each, delays_s)
            self._record_round(each)
            settled = True
        except SettleError as partial:
            unsettled = _unsettled(each, partial)
            self._record_partial(each, unsettled)
            settled = True
            self._complain(each, len(unsettled), partial)
            return partial
        except foreign_errors() as error:
            # The acknowledger's code raised: the outcome of these messages is unknown, and the pipeline goes on.
            self._complain(each, len(each.successful) + len(each.failed), error)
            return error
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The pipeline did not ask for this. Client libraries cancel calls that wait on a connection that dies.
            self._complain(each, len(each.successful) + len(each.failed), cancelled)
            return cancelled
        finally:
            if not settled:
                self._record(each.successful, "unknown")
                self._record(each.failed, "unknown")
        return None

    async def _store_ids(self, ids: Ids, each: Round) -> None:
        """Store the ids of a round. Messages whose ids are not stored are not acked: they are left to the source."""
        unstored = await ids.store(each.successful)
        if unstored:
            gone = set(map(id, unstored))
            each.successful = [message for message in each.successful if id(message) not in gone]
            self._record(unstored, "unknown")

    async def _tell(self, each: Round, delays_s: Mapping[int, float]) -> None:
        to = each.acknowledger
        if each.kind == "release" and "release" not in abilities_of(to):
            _stop(each)
        if to is not None:
            if each.kind == "ack":
                await to.ack(each.ref, each.successful, each.failed)
            elif each.kind == "release":
                await to.release(each.ref, each.successful)
            elif each.kind == "retry":
                await to.retry(each.ref, [(message, delays_s[id(message)]) for message in each.successful])
            elif each.kind == "dead_letter":
                await to.dead_letter(each.ref, each.successful)
            else:
                await to.ack(each.ref, each.successful, [])

    def _record_round(self, each: Round) -> None:
        failed = by_outcome(each, each.failed) if each.failed else {}
        self._record(each.successful, each.given)
        if failed:
            self._record_all(failed)

    def _record(self, messages: Sequence[Message[Any]], outcome: Outcome) -> None:
        if messages:
            record(messages, outcome, self._clock.monotonic())
            if self.ids is not None:
                self.ids.ended(messages, outcome)
            if self.settled is not None:
                self.settled()

    def _record_all(self, outcomes: Mapping[Outcome, Sequence[Message[Any]]]) -> None:
        for outcome, messages in outcomes.items():
            self._record(messages, outcome)

    def _record_partial(self, each: Round, unsettled: set[int]) -> None:
        failed = by_outcome(each, [m for m in each.failed if id(m) not in unsettled])
        self._record([m for m in [*each.successful, *each.failed] if id(m) in unsettled], "unknown")
        self._record([m for m in each.successful if id(m) not in unsettled], each.given)
        self._record_all(failed)

    def _complain(self, each: Round, unknown: int, error: BaseException) -> None:
        self._log.error(
            "an acknowledger failed; the outcome of its messages is unknown and left to the source",
            acknowledger=type(each.acknowledger).__name__,
            messages=unknown,
            exception=name_of(error),
            reason=text_of(error) if isinstance(error, SettleError) else None,
            at=place_of(error),
        )


def _fates(verdicts: Decided) -> Fate:
    kinds = {id(message): kind for kind, messages in verdicts.by_kind.items() for message in messages}

    def fate(message: Message[Any]) -> tuple[str, str]:
        return fate_of(message, kinds[id(message)], verdicts.delays_s.get(id(message)))

    return fate


def by_outcome(each: Round, failed: Sequence[Message[Any]]) -> dict[Outcome, list[Message[Any]]]:
    """Returns the failed messages by outcome, as the acknowledger says: rejected, retried, dead-lettered, dropped."""
    if not isinstance(each.acknowledger, Acknowledger):
        return {"rejected": list(failed)}
    outcomes: dict[Outcome, list[Message[Any]]] = {}
    for message in failed:
        try:
            outcome = each.acknowledger.outcome_of_failed(message._acknowledgement[2])
        except foreign_errors() as error:
            # The acknowledger settled the message, but raised when it was asked how.
            log.warning(
                "an acknowledger raised an error when asked for the outcome of a message", exception=name_of(error)
            )
            outcome = "unknown"
        if outcome not in OUTCOMES:
            log.warning(
                "an acknowledger reported an unknown outcome for a message", expected=OUTCOMES, got=article(outcome)
            )
            outcome = "unknown"
        outcomes.setdefault(outcome, []).append(message)
    return outcomes


def _unsettled(each: Round, partial: SettleError) -> set[int]:
    """Returns the ``id()`` of each message that *partial* lists; those of all messages of *each* if it has no list."""
    try:
        return {id(message) for message in partial.unsettled}
    except foreign_errors():
        # The error of a user's acknowledger may lack the attribute.
        return {id(message) for message in [*each.successful, *each.failed]}


def _stop(each: Round) -> None:
    """Turn a release into a failure, because the source takes nothing back."""
    each.kind = "ack"
    each.successful, each.failed = [], each.successful
    for message in each.failed:
        if message.ok:
            message.status = Failed("stopped", Plain("the pipeline stopped before this message was finished"))


async def ack_immediately(messages: Message[Any] | Sequence[Message[Any]]) -> None:
    """Settle *messages* now, by each message's status, and only once.

    The messages go on through the pipeline. A later failure reaches ``handle_failed`` and the log, but never the
    acknowledger. A time-out of the handler does not interrupt the settlement.

    Raises:
        Exception: what the acknowledger raised; the outcome of those messages is unknown.
        ValueError: a message is in no pipeline.
    """
    given = [messages] if isinstance(messages, Message) else list(messages)
    settlers: dict[int, tuple[Any, list[Message[Any]]]] = {}
    for message in given:
        if message._ledger_entry is None:
            raise ValueError(f"ack_immediately: {message!r} is not in a pipeline; nothing can be settled")
        settler = message._ledger_entry.ledger.settler
        settlers.setdefault(id(settler), (settler, []))[1].append(message)
    for settler, own in settlers.values():
        errors = await asyncio.shield(settler.settle_now(own))
        if errors:
            raise errors[0]
