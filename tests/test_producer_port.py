"""The port for producers that fetch by themselves: handing over waits while the pipeline is full, and loses nothing."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py.errors import OptionsError, ProducerError
from broadway_py.message import Message
from broadway_py.pipeline import Pipeline
from broadway_py.producer import Producer
from broadway_py.producer_description import AnyProducer, ProducerDescription, described
from broadway_py.producers import MemoryProducer
from broadway_py.testing import FakeClock
from broadway_py.testing.driving import copy_of
from tests.support.eventually import eventually


class Fetching(Producer):
    """Fetches by itself: the tests call its ``push``."""

    def __init__(self, url: str = "") -> None:
        self.url = url


def opened() -> Fetching:
    copy: Fetching = copy_of(Fetching())
    return copy


def messages(*data: int) -> list[Message[int]]:
    return [Message(one) for one in data]


def told(came: Sequence[Message[Any]] | None) -> list[Any]:
    assert came is not None
    return [message.data for message in came]


async def others_have_run() -> None:
    """Every task has gone as far as it can."""
    await FakeClock().advance(0)


# --- demand and handing over ----------------------------------------------------------------------------------------


async def test_what_is_pushed_is_what_the_next_demand_gets() -> None:
    producer = opened()
    asked = asyncio.ensure_future(producer.handle_demand(10))
    assert await producer.wait_for_demand() == 10

    await producer.push(messages(1, 2, 3))

    assert told(await asked) == [1, 2, 3]
    assert producer.demand == 0


async def test_a_demand_takes_everything_that_was_pushed_before_it_woke() -> None:
    producer = opened()
    asked = asyncio.ensure_future(producer.handle_demand(10))
    await producer.wait_for_demand()

    await producer.push(messages(1))
    assert producer.demand == 9
    await producer.push(messages(2))

    assert told(await asked) == [1, 2]


async def test_a_push_waits_while_the_pipeline_is_full_and_nothing_is_dropped() -> None:
    producer = opened()
    pushing = asyncio.ensure_future(producer.push(messages(1, 2, 3, 4, 5)))
    await others_have_run()
    assert not pushing.done()

    assert told(await producer.handle_demand(2)) == [1, 2]
    await others_have_run()
    assert not pushing.done()
    assert told(await producer.handle_demand(2)) == [3, 4]
    assert told(await producer.handle_demand(2)) == [5]
    await pushing


async def test_those_who_push_are_served_first_come_first_served() -> None:
    producer = opened()
    first = asyncio.ensure_future(producer.push(messages(1, 2, 3)))
    second = asyncio.ensure_future(producer.push(messages(4, 5)))
    await others_have_run()

    assert told(await producer.handle_demand(2)) == [1, 2]
    assert told(await producer.handle_demand(2)) == [3, 4]
    await first
    assert not second.done()
    assert told(await producer.handle_demand(2)) == [5]
    await second


async def test_pushing_nothing_does_not_wait() -> None:
    await opened().push([])


async def test_the_list_that_was_pushed_stays_the_callers_own() -> None:
    producer = opened()
    mine = messages(1, 2)
    pushing = asyncio.ensure_future(producer.push(mine))
    await others_have_run()
    mine.clear()

    assert told(await producer.handle_demand(5)) == [1, 2]
    await pushing


async def test_a_demand_that_was_called_off_loses_nothing() -> None:
    producer = opened()
    asked = asyncio.ensure_future(producer.handle_demand(2))
    await producer.wait_for_demand()
    await producer.push(messages(1))

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    # Its place among what is asked for stays taken: one more is let in, not two.
    pushing = asyncio.ensure_future(producer.push(messages(2, 3, 4)))
    await others_have_run()
    assert told(await producer.handle_demand(2)) == [1, 2]
    assert not pushing.done()
    assert told(await producer.handle_demand(2)) == [3, 4]
    await pushing


# --- a push that is called off --------------------------------------------------------------------------------------


async def test_what_was_pushed_goes_in_even_when_the_wait_is_called_off() -> None:
    producer = opened()
    pushing = asyncio.ensure_future(producer.push(messages(1, 2, 3)))
    await others_have_run()
    assert told(await producer.handle_demand(1)) == [1]

    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    later = asyncio.ensure_future(producer.push(messages(4)))
    await others_have_run()

    assert told(await producer.handle_demand(5)) == [2, 3, 4]
    await later


async def test_waiting_for_demand_never_ends_with_none() -> None:
    producer = opened()
    waiting = asyncio.ensure_future(producer.wait_for_demand())
    await others_have_run()
    asked = asyncio.ensure_future(producer.handle_demand(2))
    await asyncio.sleep(0)  # the demand is there, and whoever waits for it is about to wake

    await producer.push(messages(1, 2))
    await others_have_run()

    assert told(await asked) == [1, 2]
    assert not waiting.done()
    waiting.cancel()


# --- draining -------------------------------------------------------------------------------------------------------


async def test_draining_lets_whoever_waits_through_in_order() -> None:
    producer = opened()
    pushing = [asyncio.ensure_future(producer.push(messages(place, place + 10))) for place in (1, 2)]
    await others_have_run()
    assert not producer.draining.is_set()

    producer.context.begin_draining()

    assert producer.draining.is_set()
    await asyncio.gather(*pushing)
    assert told(await producer.handle_demand(3)) == [1, 11, 2]
    assert told(await producer.handle_demand(3)) == [12]
    assert told(await producer.handle_demand(3)) == []


async def test_a_demand_that_waits_returns_when_draining_begins() -> None:
    producer = opened()
    asked = asyncio.ensure_future(producer.handle_demand(3))
    await producer.wait_for_demand()

    producer.context.begin_draining()

    assert told(await asked) == []


async def test_what_is_pushed_while_draining_does_not_wait_and_is_handed_back_at_the_end() -> None:
    producer = opened()
    producer.context.begin_draining()

    await producer.push(messages(1, 2))

    assert told(producer.context.end_draining()) == [1, 2]
    assert producer.context.end_draining() == []


async def test_the_end_of_draining_hands_back_what_still_waits() -> None:
    producer = opened()
    pushing = asyncio.ensure_future(producer.push(messages(1, 2)))
    await others_have_run()

    assert told(producer.context.end_draining()) == [1, 2]
    await pushing


@pytest.mark.parametrize("late", [[], messages(1)], ids=["nothing", "a message"])
async def test_after_draining_nothing_more_is_taken(late: list[Message[int]]) -> None:
    producer = opened()
    producer.context.begin_draining()
    producer.context.end_draining()

    with pytest.raises(ProducerError) as refused:
        await producer.push(late)

    assert str(refused.value) == "the pipeline takes no more messages; push none after draining"


# --- losses ---------------------------------------------------------------------------------------------------------


async def test_a_loss_ends_a_demand_that_waits() -> None:
    losses: list[ProducerError] = []
    copy = copy_of(Fetching(), lost=losses.append)
    asked = asyncio.ensure_future(copy.handle_demand(3))
    await others_have_run()
    error = ProducerError("gone")

    copy.context.lost(error)

    with pytest.raises(ProducerError) as lost:
        await asked
    assert lost.value is error
    assert losses == [error]


async def test_what_was_pushed_before_a_loss_is_handed_over_before_it() -> None:
    copy = opened()
    pushing = asyncio.ensure_future(copy.push(messages(1, 2, 3)))
    await others_have_run()

    copy.context.lost(ProducerError("gone"))

    assert told(await copy.handle_demand(2)) == [1, 2]
    assert told(await copy.handle_demand(2)) == [3]
    await pushing
    for _ in range(2):
        with pytest.raises(ProducerError, match="gone"):
            await copy.handle_demand(2)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 6)),
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("drain"), st.just(0)),
    ),
    max_size=15,
)


@given(steps)
async def test_whatever_is_pushed_comes_out_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    producer = opened()
    pushing: list[asyncio.Task[None]] = []
    came: list[Any] = []
    sent = 0
    asked: asyncio.Task[Sequence[Message[Any]] | None] | None = None

    for step, count in steps:
        if step == "push":
            pushing.append(asyncio.create_task(producer.push(messages(*range(sent, sent + count)))))
            sent += count
        elif step == "drain":
            producer.context.begin_draining()
        elif asked is None:
            asked = asyncio.create_task(producer.handle_demand(count))
            wanted = count
        await others_have_run()
        if asked is not None and asked.done():
            taken = told(asked.result())
            assert len(taken) <= wanted
            came += taken
            asked = None
        # Bounded: nothing is held but what was asked for (and, while draining, what was on its way).
        assert producer.draining.is_set() or len(producer.context.hand_over.ready) + producer.demand <= 6

    producer.context.begin_draining()
    if asked is not None:
        came += told(await asked)
    came += told(producer.context.end_draining())
    await asyncio.gather(*pushing)
    assert came == list(range(sent))


# --- copies ---------------------------------------------------------------------------------------------------------


async def test_copies_share_what_was_made_in_init_and_have_run_state_of_their_own() -> None:
    description = Fetching("amqp://guest:geheim@host/")
    lost: list[ProducerError] = []

    copies = [copy_of(description, index=index, capacity=30, pipeline="orders", lost=lost.append) for index in range(2)]

    told = [(copy.context.index, copy.context.capacity, copy.context.pipeline, copy.url) for copy in copies]
    assert told == [(0, 30, "orders", description.url), (1, 30, "orders", description.url)]
    copies[0].context.begin_draining()
    assert not copies[1].draining.is_set()
    assert not hasattr(description, "draining")
    error = ProducerError("gone")
    copies[1].context.lost(error)
    assert lost == [error]


async def test_a_producer_that_needs_nothing_else_opens_pauses_and_closes() -> None:
    producer = opened()

    await producer.open()
    await producer.pause()
    await producer.resume()
    await producer.prepare_for_draining()
    await producer.close()

    assert (producer.name, producer.concurrency) == (None, 1)


def test_no_text_about_a_producer_shows_what_it_was_made_with() -> None:
    assert repr(Fetching("amqp://guest:geheim@host/")) == "<Fetching name=None>"


def test_a_context_is_bound_once() -> None:
    copy = opened()

    with pytest.raises(RuntimeError) as refused:
        copy.bind(copy.context)

    assert str(refused.value) == (
        "<Fetching name=None> is in use already: create() must return a new producer each time"
    )


# --- descriptions ---------------------------------------------------------------------------------------------------


class Feed(ProducerDescription):
    """The least that a description has."""

    def create(self) -> Producer:
        return Fetching()


class Nameless(Producer):
    name = "given"
    concurrency = 3
    redelivers = True
    keeps_keys_apart = True
    marks_repeats = True


class Seeing(Pipeline[int]):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[int] = []

    async def handle_message(self, message: Message[int]) -> None:
        self.seen.append(message.data)


def test_a_producer_is_described_by_what_it_says_of_itself() -> None:
    description = described(Nameless())

    told = (description.redelivers, description.keeps_keys_apart, description.marks_repeats)
    assert (description.called, description.concurrency, *told) == ("given", 3, True, True, True)
    assert (repr(description), description.on_failure_is_given) == ("<Nameless name='given'>", False)


@pytest.mark.parametrize(
    ("given", "name"), [(Feed(), "feed"), (Fetching(), "fetching"), (MemoryProducer([]), "memory")]
)
def test_who_has_no_name_is_called_after_its_class(given: AnyProducer, name: str) -> None:
    assert described(given).called == name


class Doubled(MemoryProducer):
    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        came = await super().handle_demand(demand)
        for message in came or ():
            message.data *= 2
        return came


async def test_a_subclass_of_the_memory_producer_may_change_what_it_returns() -> None:
    async with Seeing(producer=Doubled([1, 2, 3])) as pipeline:
        await pipeline.wait()
    assert pipeline.seen == [2, 4, 6]


def test_a_description_is_its_own_description() -> None:
    feed = Feed()

    assert described(feed) is feed
    assert feed.renewed() is feed
    assert feed.for_order() is feed


class Impatient(Producer):
    def backoff(self) -> None:
        return None


class Restless(Feed):
    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        return []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (17, "expected a Producer or a list of them, got int"),
        (
            Impatient(),
            (
                "Impatient is a Producer, so its backoff would never be asked for; move it to a ProducerDescription "
                "whose create() returns the producer"
            ),
        ),
        (
            Restless(),
            (
                "Restless is a description and does not run, so its handle_demand would never be called; move it to "
                "the Producer that create() returns"
            ),
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(given: object, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        described(given)

    assert str(refused.value) == sentence


# --- partitions -------------------------------------------------------------------------------------------------------


class Divided(Feed):
    """A source whose partitions are numbers."""

    def __init__(self, partitions: int | None = 3, concurrency: int = 1) -> None:
        self.partitions = partitions
        self.concurrency = concurrency
        self.reads: int | None = None
        self.former: ProducerDescription | None = None

    def describe_partition(self, index: int) -> ProducerDescription:
        made = copy.copy(self)
        made.reads = index
        return made

    def succeed(self, former: ProducerDescription) -> None:
        self.former = former


def test_a_partition_is_a_source_of_its_own() -> None:
    whole = Divided()
    parts = [whole.partition(index) for index in range(3)]

    assert [part.called for part in parts] == ["divided.0", "divided.1", "divided.2"]
    assert [(part.partitions, part.concurrency, cast("Divided", part).reads) for part in parts] == [
        (None, 1, 0),
        (None, 1, 1),
        (None, 1, 2),
    ]
    assert (whole.partitions, whole.called, whole.reads) == (3, "divided", None)


def test_a_partition_of_a_named_source_has_its_name() -> None:
    whole = Divided()
    whole.name = "shipments"
    assert whole.partition(2).name == "shipments.2"


def test_a_partition_follows_the_files_of_the_whole() -> None:
    """Each of them reads the files by itself, at its own connect."""
    contents = ["first"]

    def made(found: str) -> Divided:
        description = Divided()
        description.name = found
        description.renew_by(lambda: None if contents[0] == found else made(contents[0]))
        return description

    whole = made("first")
    one, other = whole.partition(1), whole.partition(2)
    assert one.renewed() is one

    contents[0] = "second"
    second = one.renewed()
    assert isinstance(second, Divided)
    assert (second.name, second.reads, second.former) == ("second.1", 1, one)
    assert second.renewed() is second
    assert other.renewed().name == "second.2"

    contents[0] = "third"
    assert second.renewed().name == "third.1"


def test_a_file_that_changes_the_number_of_partitions_is_refused() -> None:
    whole = Divided(3)
    whole.renew_by(lambda: Divided(4))

    with pytest.raises(OptionsError) as refused:
        whole.partition(0).renewed()
    assert str(refused.value) == (
        "partitions: expected 3, as at the start of the pipeline, got 4; start it anew, because keys move to other "
        "partitions"
    )


class Undivided(Feed):
    partitions = 2


@pytest.mark.parametrize(
    ("whole", "sentence"),
    [
        (
            Undivided(),
            (
                "partitions: Undivided cannot be divided into partitions; leave partitions out, or read a queue of "
                "RabbitMQ or an embedded queue"
            ),
        ),
        (Feed(), "partitions: required to read a partition of Feed, but missing"),
        (
            Divided(concurrency=2),
            (
                "concurrency: expected 1 with partitions, because each of them has one reader, got 2; leave "
                "concurrency out"
            ),
        ),
    ],
)
def test_what_cannot_be_divided_says_so(whole: ProducerDescription, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        whole.partition(0)
    assert str(refused.value) == sentence


def test_a_source_with_partitions_is_not_read_as_a_whole() -> None:
    with pytest.raises(OptionsError) as refused:
        Divided().renewed()
    assert str(refused.value) == "partitions: each partition has a reader of its own, and nothing reads the whole"


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_partition_beyond_the_last(index: int) -> None:
    with pytest.raises(ValueError, match=f"there is no partition {index} of 3; they count from 0"):
        Divided().partition(index)


class Pushing(Producer):
    """Hands over one message, if it is what it was made to be."""

    async def open(self) -> None:
        self.pushing = asyncio.ensure_future(self.push(messages(1)))

    async def close(self) -> None:
        await self.pushing


class ContextFromInit(Pushing):
    def __init__(self) -> None:
        self.context: Any = "mine"


class ContextOfClass(Pushing):
    context: Any = "mine"


class ContextFromOpen(Pushing):
    async def open(self) -> None:
        self.context: Any = "mine"
        await super().open()


class ContextOfMemory(MemoryProducer):
    context: Any = "mine"


@pytest.mark.parametrize(
    "producer",
    [ContextFromInit(), ContextOfClass(), ContextFromOpen(), ContextOfMemory([1])],
    ids=["from init", "of the class", "from open", "of a memory producer"],
)
async def test_a_producer_may_have_a_context_of_its_own(producer: Producer) -> None:
    contexts: list[object] = []

    class Looking(Seeing):
        async def handle_message(self, message: Message[int]) -> None:
            await super().handle_message(message)
            self.request_stop()

    async with Looking(producer=producer, max_restarts=0) as pipeline:
        (source,) = pipeline._life_cycle.needs_run("test").stages.sources
        await pipeline.ready(None)
        contexts.append(getattr(source.live.copy, "context", None))
        await pipeline.wait()

    assert (pipeline.seen, contexts) == ([1], ["mine"])


async def test_a_producer_may_have_a_method_bind_and_make_an_event_draining_of_its_own() -> None:
    class Listening(MemoryProducer):
        def __init__(self) -> None:
            super().__init__([1, 2])
            self.draining = asyncio.Event()
            self.bound: list[str] = []

        def bind(self, address: str) -> None:  # type: ignore[override]  # its own method, which has the same name
            self.bound.append(address)

        async def open(self) -> None:
            await super().open()
            self.bind("127.0.0.1")

    producer = Listening()
    async with Seeing(producer=producer, max_restarts=0) as pipeline:
        await pipeline.wait()

    assert (pipeline.seen, producer.bound) == ([1, 2], ["127.0.0.1"])
    assert not producer.draining.is_set()


async def test_a_producer_may_have_a_method_succeed_for_its_jobs() -> None:
    class Jobs(MemoryProducer):
        async def succeed(self, job: int) -> None:
            raise NotImplementedError

    async with Seeing(producer=Jobs([1])) as pipeline:
        await pipeline.wait()
    assert pipeline.seen == [1]


async def test_a_producer_may_be_changed_until_the_pipeline_starts() -> None:
    producer = Pushing()
    pipeline = Seeing(producer=producer)
    producer.concurrency = 3

    async with pipeline:
        await eventually(lambda: pipeline.seen == [1, 1, 1], what="each of three copies has handed its message over")


async def test_a_producer_may_say_as_late_as_in_open_that_it_delivers_again() -> None:
    class Again(Producer):
        def __init__(self) -> None:
            self.ends: list[int] = []

        async def open(self) -> None:
            self.redelivers = True

        async def handle_demand(self, demand: int) -> None:
            self.ends.append(demand)

    producer = Again()
    async with Seeing(producer=producer) as pipeline:
        await pipeline.wait()
    assert len(producer.ends) == 2


def test_a_producer_may_pass_on_what_its_client_has() -> None:
    class Client:
        backoff = 2.0

    class Wrapping(Producer):
        def __getattr__(self, name: str) -> Any:
            return getattr(Client, name)

    assert described(Wrapping()).called == "wrapping"


def test_each_copy_is_what_the_description_creates() -> None:
    class Counting(Feed):
        def __init__(self) -> None:
            self.created: list[Producer] = []

        def create(self) -> Producer:
            self.created.append(Fetching())
            return self.created[-1]

    feed = Counting()
    copies = [copy_of(feed, index=index) for index in range(2)]

    assert all(copy is made for copy, made in zip(copies, feed.created, strict=True))
    assert [copy.context.index for copy in copies] == [0, 1]
