"""Asks the sources now and then how many messages they hold, and keeps what they said last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from broadway_py.error_text import name_of, text_of
from broadway_py.errors import ProducerError
from broadway_py.foreign import article, foreign_errors, is_a
from broadway_py.log import logger
from broadway_py.pipeline.stages.services import Services
from broadway_py.pipeline.stages.source import Source
from broadway_py.pipeline.stats import SourceStats
from broadway_py.producer import Producer, SourceMessages
from broadway_py.stage import first_completed

__all__ = ["SourceCounts"]

log = logger("broadway_py.pipeline")

#: Seconds from one question to the next.
_EVERY_S: Final = 10.0
#: Seconds that a source may take for its answer.
_ANSWER_S: Final = 5.0
#: A source that takes long to count is asked less often: it counts for at most this share of the time, but is asked
#: every so many seconds at least.
_SHARE: Final = 0.01
_LONGEST_S: Final = 300.0


class _Counted:
    """What is known of one producer, whose copies all read the same messages."""

    def __init__(self, copies: Sequence[Source]) -> None:
        self.copies = copies
        #: The last answer, and when it came. None: the source cannot tell, or was not asked yet.
        self.said: SourceMessages | None = None
        self.said_at = 0.0
        #: When it is asked next.
        self.next_at = 0.0
        #: The question that is not answered yet. It may outlive its time-out, if the producer ignores a cancellation.
        self.asking: asyncio.Task[None] | None = None


class SourceCounts:
    """Asks one copy of each producer, every ten seconds. Nothing else of the pipeline waits for the answers.

    Args:
        services: the services of the pipeline.
        sources: the copies of all producers.
    """

    def __init__(self, services: Services, sources: Iterable[Source]) -> None:
        by_name: dict[str, list[Source]] = {}
        for source in sources:
            by_name.setdefault(source.ledger.producer, []).append(source)
        self._of = {name: _Counted(copies) for name, copies in by_name.items()}
        self._clock = services.clock
        self._log = log.bind(pipeline=services.name)

    def of(self, producer: str) -> SourceStats | None:
        """Returns what *producer* said last. None: it cannot tell, or it was not asked yet."""
        counted = self._of.get(producer)
        if counted is None or counted.said is None:
            return None
        ready, delayed, dead, trouble = counted.said
        return SourceStats(ready, delayed, dead, self._clock.monotonic() - counted.said_at, trouble)

    async def run(self) -> None:
        """Asks until it is cancelled. Then it forgets the answers, because nobody renews them."""
        if not self._of:
            return
        try:
            # Otherwise the first answers would come only after the next ten seconds.
            await first_completed(self._until_opened(), self._clock.sleep(_EVERY_S))
            while True:
                await self._ask_those_that_are_due()
                next_at = min(one.next_at for one in self._of.values())
                await self._clock.sleep(max(0.0, next_at - self._clock.monotonic()))
        finally:
            for one in self._of.values():
                one.said = None
                if one.asking is not None:
                    one.asking.cancel()

    async def _until_opened(self) -> None:
        for one in self._of.values():
            for source in one.copies:
                await source.live.opened.wait()

    async def _ask_those_that_are_due(self) -> None:
        now = self._clock.monotonic()
        asking: dict[str, asyncio.Task[None]] = {}
        for name, one in self._of.items():
            if one.next_at > now:
                continue
            one.next_at = now + _EVERY_S
            if one.asking is not None and not one.asking.done():
                continue
            copy = next((each.live.copy for each in one.copies if each.live.connected), None)
            if copy is not None and type(copy).source_messages is not Producer.source_messages:
                one.asking = asking[name] = asyncio.ensure_future(self._ask(name, one, copy))
            elif copy is not None:
                one.said = None
            elif one.said is not None:
                trouble = next((why for each in one.copies if (why := each.live.trouble)), "it is closed")
                self._note(name, one, SourceMessages(trouble=f"not connected: {trouble}"))
        if not asking:
            return
        await first_completed(asyncio.wait(asking.values()), self._clock.sleep(_ANSWER_S))
        for name, task in asking.items():
            if not task.done():
                task.cancel()
                self._note(name, self._of[name], SourceMessages(trouble=f"no answer within {_ANSWER_S:g} s"))

    async def _ask(self, name: str, one: _Counted, copy: Producer) -> None:
        began = self._clock.monotonic()
        said: SourceMessages | None
        try:
            said = await copy.source_messages()
        except ProducerError as error:
            said = SourceMessages(trouble=text_of(error))
        except foreign_errors(cancellations=True) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # The text of such an error may quote a message or a password.
            said = SourceMessages(trouble=f"source_messages() raised {name_of(error)}")
        if said is not None and not is_a(said, SourceMessages):
            said = SourceMessages(trouble=f"source_messages() returned {article(said)}, not SourceMessages")
        now = self._clock.monotonic()
        one.next_at = max(one.next_at, now + min(_LONGEST_S, (now - began) / _SHARE))
        self._note(name, one, said)

    def _note(self, name: str, one: _Counted, said: SourceMessages | None) -> None:
        before = None if one.said is None else one.said.trouble
        one.said, one.said_at = said, self._clock.monotonic()
        if said is not None and said.trouble is not None and said.trouble != before:
            self._log.info("how many messages the source holds is not known", producer=name, reason=said.trouble)
