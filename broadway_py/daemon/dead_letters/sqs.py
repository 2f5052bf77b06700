"""The dead letters of an SQS queue.

SQS cannot show a message without hiding it from others for a while. So every letter that was received and was not put
back or removed is shown to others again at the end. SQS hands out letters in no certain order, and its numbers are
approximate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.daemon.dead_letters.letters import Head, PartlyReplayed, counted, printable
from broadway_py.daemon.dead_letters.sqs_messages import entry_of, failed_in, head_of
from broadway_py.errors import ProducerError
from broadway_py.producers.sqs.dead_letters.letters import portions
from broadway_py.producers.sqs.requests.batch_entries import MOST_ENTRIES
from broadway_py.producers.sqs.requests.client import READY, REDRIVE, Client
from broadway_py.producers.sqs.requests.errors import Trouble
from broadway_py.producers.sqs.requests.log_filter import hush
from broadway_py.producers.sqs.requests.patient import Failure, Requests, why
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.request_counts import RequestCounts

__all__ = ["NotRemoved", "SQSLetters", "at_same_place", "opened", "to_look"]


#: Seconds for which a letter that we look at is hidden from others. Also those until it comes back after a kill.
_HIDDEN_S: Final = 120
#: After so many seconds the letter is hidden anew before something is done with it.
_FRESH_S: Final = 60.0
#: Seconds that a look at the whole queue may take. Letters that were received first are hidden for longer.
_LOOK_S: Final = 90.0
#: A receive asks all servers of SQS only if it may wait for a message.
_WAIT_S: Final = 1
#: The queue counts as looked through after so many receives in a row without anything new.
_EMPTY: Final = 2
#: Seconds that a receive may take after the command was interrupted.
_LAST_RECEIVE_S: Final = 5.0
#: Seconds that giving the letters back may take.
_GIVE_BACK_S: Final = 30.0


@dataclass(slots=True)
class _Taken:
    head: Head
    #: The message as SQS describes it.
    message: Mapping[str, Any]
    #: Until when it is hidden, on the clock that only goes forward.
    until_s: float


class SQSLetters:
    """The dead letters in one queue.

    Args:
        name: the name of the queue that holds the dead letters.
        dead: receives and removes the letters.
        url: the URL of that queue.
        home: sends letters back, and the URL of the queue to which they go.
        is_sure: True if all letters go there, also those that say that they failed in another queue.
        clock: tells the time.
    """

    is_approximate: Final = True

    def __init__(
        self,
        name: str,
        dead: Client,
        url: str,
        home: tuple[Client, str],
        *,
        is_sure: bool,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self._dead = dead
        self._url = url
        self._home = home
        self._is_sure = is_sure
        self._clock = clock
        self._requests = Requests(clock)
        self._held: dict[str, _Taken] = {}
        self._is_cut_short = False

    async def count(self) -> int:
        """Returns about how many there are, without looking at any. Letters that others look at do not count."""
        said = (await self._requests.tried(lambda: self._dead.counts(self._url))).get(READY, "")
        return int(said) if said.isdecimal() else 0

    async def note(self) -> str | None:
        """Returns what somebody who has seen a list must know: SQS does not promise that it is complete."""
        told = [f"SQS counts about {counted(await self.count() + len(self._held))} that nobody else looks at"]
        if self.name.endswith(".fifo"):
            told.append("of each group of a FIFO queue it hands out at most ten at a time")
        if self._is_cut_short:
            told.append(f"the look ended after {_LOOK_S:.0f} s, and there may be more")
        return "; ".join(told)

    async def portions(self, most: int | None = None) -> AsyncGenerator[Sequence[Head], None]:
        """Yields what SQS hands out, in portions of at most ten, until it hands out nothing new, or *most* at least."""
        began = self._clock.monotonic()
        known: set[str] = set()
        empty = 0
        self._is_cut_short = False
        while empty < _EMPTY and (most is None or len(known) < most):
            if self._clock.monotonic() - began > _LOOK_S and self._held:
                # What is held since the beginning would come again.
                self._is_cut_short = True
                return
            new: list[Head] = []
            for taken in await self._received():
                if taken.head.id not in known:
                    known.add(taken.head.id)
                    new.append(taken.head)
            empty = 0 if new else empty + 1
            if new:
                yield new

    async def _received(self) -> list[_Taken]:
        """Receives at most ten, and holds them. A receive is waited for also when this is cancelled.

        What it brings would else be hidden from everybody for a while.
        """
        until = self._clock.monotonic() + _HIDDEN_S
        receiving = asyncio.ensure_future(self._requests.tried(lambda: self._dead.receive(MOST_ENTRIES)))
        try:
            messages = await asyncio.shield(receiving)
        except asyncio.CancelledError:
            await asyncio.wait({receiving}, timeout=_LAST_RECEIVE_S)
            if receiving.done() and not receiving.cancelled() and receiving.exception() is None:
                self._hold(receiving.result(), until)
            receiving.cancel()
            raise
        return self._hold(messages, until)

    def _hold(self, messages: Sequence[Mapping[str, Any]], until: float) -> list[_Taken]:
        found = [_Taken(head_of(message), message, until) for message in messages]
        # The receipt of the last receive is the one that counts.
        self._held.update((taken.head.id, taken) for taken in found)
        return found

    async def payload(self, letter: str) -> bytes:
        """Returns the payload of *letter*, which was yielded before."""
        return str(self._held[letter].message["Body"]).encode()

    async def replay(self, letters: Sequence[str]) -> int:
        """Sends *letters* to the queue in which they failed, and removes those that it has confirmed. Returns how many.

        On a FIFO queue the group stays. The deduplication id is made from the letter: with the old one SQS would drop
        what failed within five minutes, and a repeated replay would not be noticed.

        Raises:
            PartlyReplayed: some were not sent, or it is not known where they belong. They stay.
            ProducerError: some were sent and could not be removed.
        """
        taken = [self._held[letter] for letter in letters]
        reasons = [why for why in map(self._strange, taken) if why is not None]
        fit = [one for one in taken if self._strange(one) is None]
        moved = 0
        client, url = self._home
        entries = [entry_of(one.message, is_fifo=url.endswith(".fifo")) for one in fit]
        for positions in portions(entries):
            some = [fit[at] for at in positions]
            await self._hide(some)
            failed = await self._requests.in_batch(partial(client.send, url), [entries[at] for at in positions])
            reasons += [_not_taken(url, one.head.id, failed[at]) for at, one in enumerate(some) if at in failed]
            moved += len(some) - len(failed)
            await self._remove_sent([one for at, one in enumerate(some) if at not in failed], url, moved)
        if reasons:
            raise PartlyReplayed(moved, len(letters) - moved, reasons[0])
        return moved

    async def discard(self, letters: Sequence[str]) -> int:
        """Removes *letters* for good. Returns how many.

        Raises:
            ProducerError: some could not be removed.
        """
        taken = [self._held[letter] for letter in letters]
        for start in range(0, len(taken), MOST_ENTRIES):
            some = taken[start : start + MOST_ENTRIES]
            await self._hide(some)
            failed = await self._removed(some)
            if failed:
                raise ProducerError(
                    f"{counted(len(failed))} in queue {self.name!r} could not be removed: {why(failed)}; run the "
                    "command again"
                )
        return len(taken)

    async def discard_all(self) -> int:
        """Removes all of them for good, also those that others look at. SQS does it. Returns about how many."""
        count = await self.count()
        await self._requests.tried(lambda: self._dead.purge(self._url))
        return count

    async def give_back(self) -> None:
        """Shows the letters that are still held to others again.

        Raises:
            ProducerError: SQS did not do so for some. They come back by themselves.
        """
        held, self._held = list(self._held.values()), {}
        changes = [(str(one.message["ReceiptHandle"]), 0) for one in held if one.until_s > self._clock.monotonic()]
        left: dict[int, Failure] = {}
        for start in range(0, len(changes), MOST_ENTRIES):
            part = changes[start : start + MOST_ENTRIES]
            failed = await self._requests.in_batch(partial(self._dead.change_visibility, self._url), part)
            # One whose receipt is not valid any more is not held by us.
            left |= {start + at: one for at, one in failed.items() if one != "stale"}
        if left:
            raise ProducerError(
                f"{counted(len(left))} in queue {self.name!r} could not be given back ({why(left)}); nobody sees them "
                f"for up to {_HIDDEN_S} s, and then they come back by themselves"
            )

    def _strange(self, taken: _Taken) -> ProducerError | None:
        """Returns why nobody has said where *taken* may go."""
        said = failed_in(taken.message)
        if self._is_sure or said is None or said == self._home[1].rpartition("/")[2]:
            return None
        return ProducerError(
            f"letter {taken.head.id} says that it failed in queue {printable(said)!r}, and not in that of --url or of "
            "the pipeline; name the queue to put it into with --to NAME"
        )

    async def _remove_sent(self, taken: Sequence[_Taken], url: str, moved: int) -> None:
        failed = await self._removed(taken)
        if failed:
            ids = [taken[at].head.id for at in failed]
            raise NotRemoved(moved, ids, url.rpartition("/")[2], self.name, why(failed))

    async def _removed(self, taken: Sequence[_Taken]) -> dict[int, Failure]:
        """Deletes at most ten. Returns those that SQS did not delete, and why, by position."""
        if not taken:
            return {}
        handles = [str(one.message["ReceiptHandle"]) for one in taken]
        failed = await self._requests.in_batch(partial(self._dead.delete, self._url), handles)
        for at, one in enumerate(taken):
            if at not in failed:
                self._held.pop(one.head.id, None)
        return failed

    async def _hide(self, taken: Sequence[_Taken]) -> None:
        """Makes sure that nobody else sees at most ten letters for a while."""
        now = self._clock.monotonic()
        old = [one for one in taken if one.until_s - now < _FRESH_S]
        if not old:
            return
        changes = [(str(one.message["ReceiptHandle"]), _HIDDEN_S) for one in old]
        failed = await self._requests.in_batch(partial(self._dead.change_visibility, self._url), changes)
        for at, one in enumerate(old):
            if at not in failed:
                one.until_s = now + _HIDDEN_S
        if failed:
            ids = ", ".join(old[at].head.id for at in failed)
            raise ProducerError(
                f"letter {ids} in queue {self.name!r} could not be kept hidden ({why(failed)}): somebody else may "
                "have it now; run the command again"
            )


class NotRemoved(PartlyReplayed):
    """Letters were put back, but could not be removed from among the dead letters."""

    def __init__(self, moved: int, ids: Sequence[str], home: str, dead: str, reason: str) -> None:
        super().__init__(moved, 0, ProducerError(""))
        text = (
            f"{counted(len(ids))} {'is' if len(ids) == 1 else 'are'} in queue {home!r} now, and could not be removed "
            f"from queue {dead!r}: {reason}; remove {'it' if len(ids) == 1 else 'them'} there with broadway dlq purge "
            f"{' '.join(ids)}"
        )
        self.args = (text,)


def at_same_place(options: SQSOptions, queue: str, **more: Any) -> SQSOptions:
    """Returns the options of another *queue*, by its name or URL, where *options* find theirs.

    Raises:
        OptionsError: no queue can have that name or URL.
    """
    return SQSOptions(
        queue_url=queue,
        region=options.region_name,
        endpoint_url=options.endpoint,
        profile=options.profile,
        **more,
    )


def to_look(options: SQSOptions, queue: str) -> SQSOptions:
    """Returns the options with which the letters in *queue* are received. Raises as :func:`at_same_place` does."""
    return at_same_place(
        options,
        queue,
        wait_time_seconds=_WAIT_S,
        visibility_timeout=_HIDDEN_S,
        attribute_names="all",
        message_attribute_names="all",
        on_success="noop",
        max_polls=1,
    )


@asynccontextmanager
async def opened(options: SQSOptions, dead: SQSOptions | None, to: SQSOptions | None) -> AsyncIterator[SQSLetters]:
    """Opens the dead letters of the queue of *options*.

    Args:
        options: the queue in which messages failed.
        dead: the queue that holds the dead letters. None: the redrive policy of the first one names it.
        to: the queue to which they go back. None: the first one.

    Raises:
        ProducerError: SQS or a queue cannot be reached, or the queue has no redrive policy.
    """
    hush()
    async with AsyncExitStack() as stack:

        def made(of: SQSOptions) -> Client:
            client = Client(of, RequestCounts(), SYSTEM_CLOCK)
            stack.push_async_callback(client.close)
            return client

        source = made(options)
        source_url = await source.connect()
        if dead is None:
            dead = to_look(options, await _by_redrive(source, source_url, options.queue_name))
        client = made(dead)
        url = (await client.open()).url
        home = (source, source_url)
        if to is not None:
            other = made(to)
            home = (other, await other.connect())
        letters = SQSLetters(dead.queue_name, client, url, home, is_sure=to is not None)
        try:
            yield letters
        except BaseException:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await _given_back(letters)
            raise
        await _given_back(letters)


async def _given_back(letters: SQSLetters) -> None:
    async with asyncio.timeout(_GIVE_BACK_S):
        await letters.give_back()


async def _by_redrive(source: Client, url: str, name: str) -> str:
    said = (await source.counts(url)).get(REDRIVE)
    arn: object = None
    if said is not None:
        with contextlib.suppress(ValueError, AttributeError):
            arn = json.loads(said).get("deadLetterTargetArn")
    if not isinstance(arn, str):
        raise ProducerError(
            f"SQS queue {name!r} has no redrive policy, so it does not say where its dead letters are: name the queue "
            "that holds them with --dead NAME, or dead_letter_queue in the settings"
        )
    return await source.url_of_arn(arn)


def _not_taken(url: str, letter: str, reason: Failure) -> ProducerError:
    if isinstance(reason, Trouble):
        return reason
    return ProducerError(f"SQS queue {url.rpartition('/')[2]!r} did not take letter {letter} ({reason})")
