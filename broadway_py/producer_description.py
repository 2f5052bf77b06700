"""What users write as ``producer=``: a description of a source, from which the pipeline creates what runs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final, Protocol, Self

from broadway_py.errors import OptionsError
from broadway_py.examination import Finding, not_examined
from broadway_py.producer import FailurePlan, Producer
from broadway_py.trace_place import TraceSource

__all__ = ["AnyProducer", "Delays", "ProducerDescription", "described", "one_reader_each"]


class Delays(Protocol):
    """Decides how long to wait between two tries."""

    def failed(self, lasted_s: float = 0.0, at_least_s: float = 0.0) -> float:
        """Returns the seconds to wait before the next try; ``math.inf`` means never.

        Args:
            lasted_s: how many seconds the last success lasted (0: there was none).
            at_least_s: the shortest wait, in seconds.
        """


class ProducerDescription(ABC):
    """Says what a pipeline must know about a source before it runs, and creates the producers that run.

    The pipeline asks a description in any order and any number of times, so it does not change after ``__init__``. What
    the producers learn and share is an object that the description makes in ``__init__`` and hands to each of them. All
    methods are plain functions that return at once, except :meth:`end_lost_copies`.
    """

    #: The name in metrics, logs and ``message.producer``. None: the name of the class (see :attr:`called`).
    name: str | None = None
    #: How many producers run side by side.
    concurrency: int = 1
    #: True: the source itself may deliver a message again. See :attr:`Producer.redelivers`.
    redelivers: bool = False
    #: True: only one producer or process at a time holds messages of a given key. See
    #: :attr:`Producer.keeps_keys_apart`.
    keeps_keys_apart: bool = False
    #: True: the source marks what it may have delivered before. See :attr:`Producer.marks_repeats`.
    marks_repeats: bool = False
    #: True: the messages of this source outlive the process. See :attr:`Producer.outlives_process`.
    outlives_process: bool = False
    #: True: the settings of this source say what happens to a failed message (``on_failure=``).
    on_failure_is_given: bool = False
    #: Into how many partitions the source is divided. Each key lies in exactly one of them, for ever. None: it is not
    #: divided. See :meth:`partition`.
    partitions: int | None = None

    _renew: Callable[[], ProducerDescription | None] | None = None

    @abstractmethod
    def create(self) -> Producer:
        """Returns a new producer, not yet opened. It is called before each connect, also after a loss.

        The pipeline binds the producer's context after the call. An error crashes the source.
        """

    @property
    def called(self) -> str:
        """The name if there is one, else the class's, in lower case and without ``Producer`` at its end."""
        return self.name or self._class_name.removesuffix("Producer").lower() or "producer"

    def for_order(self) -> Self:
        """Returns the description that an ``ordered`` pipeline, or one with aggregators, uses instead of this one.

        It is called once, when the pipeline is built. A source that can refuse other readers returns a changed copy
        (``copy.copy``) of this description that does so. By default it returns this description.
        """
        return self

    def partition(self, index: int) -> ProducerDescription:
        """Returns a new description that reads the partition *index* of this source, and nothing else.

        For pipelines. Each call returns another reader's description, with one copy, without partitions of its own, and
        with the name ``<name>.<index>``. If this description follows files, it does so too.

        Args:
            index: from 0 to one less than :attr:`partitions`.

        Raises:
            OptionsError: this source cannot be divided, or has several copies. The path is a setting of this producer.
            ValueError: there is no such partition.
        """
        if self.partitions is None:
            raise OptionsError(("partitions",), f"required to read a partition of {self._class_name}, but missing")
        if self.concurrency != 1:
            raise OptionsError(("concurrency",), one_reader_each(self.concurrency))
        if not 0 <= index < self.partitions:
            raise ValueError(f"there is no partition {index} of {self.partitions}; they count from 0")
        made = copy.copy(self.describe_partition(index))
        # This also works if the class is a frozen dataclass; see renew_by.
        for attribute, value in (
            ("name", f"{self.called}.{index}"),
            ("concurrency", 1),
            ("partitions", None),
            ("_renew", None if self._renew is None else partial(self._renewed_partition, index)),
        ):
            object.__setattr__(made, attribute, value)
        return made

    def _renewed_partition(self, index: int) -> ProducerDescription | None:
        whole = None if self._renew is None else self._renew()
        if whole is not None and whole.partitions != self.partitions:
            raise OptionsError(
                ("partitions",),
                f"expected {self.partitions}, as at the start of the pipeline, got {whole.partitions}; start it anew, "
                "because keys move to other partitions",
            )
        return None if whole is None else whole.partition(index)

    def describe_partition(self, index: int) -> ProducerDescription:
        """Returns a new description that reads the partition *index*. For sources that can be divided.

        :meth:`partition` calls it, and sets the name, ``concurrency`` and ``partitions`` of what it returns. A changed
        ``copy.copy`` of this description will do. After ``for_order`` it must refuse a second reader of the partition.

        Raises:
            OptionsError: this source cannot be divided.
        """
        raise OptionsError(
            ("partitions",),
            f"{self._class_name} cannot be divided into partitions; leave partitions out, or read a queue of RabbitMQ "
            "or an embedded queue",
        )

    def trace_source(self) -> TraceSource:
        """Returns where its messages come from, and where they have the headers that tell their trace.

        It is called when a pipeline with tracing starts. By default the system is named after the class, without
        ``Producer``, the place is the producer's name, and the headers are in ``metadata["headers"]``, or else in the
        metadata.
        """
        return TraceSource(self._class_name.removesuffix("Producer").lower(), self.called)

    def backoff(self) -> Delays | None:
        """Returns the delays between two connects, a new object for each call. None: the pipeline's own."""
        return None

    def most_in_flight(self, capacity: int) -> int | None:
        """Returns how many unsettled messages the source lets one producer hold (a prefetch); None: no limit.

        It is called before anything is opened. The pipeline logs a warning if its batches can never fill.

        Args:
            capacity: how many messages of each producer the pipeline can hold.
        """
        return None

    def returns_within(self, *, process_died: bool) -> float:
        """Returns the seconds after which the source has delivered again what a lost producer held; 0: at once.

        So long the watermark of an aggregator stands still after a loss.

        Args:
            process_died: True: the process of the producer has ended. False: the connection was lost.
        """
        return 0.0

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Checks that *plan* can be carried out. It is called when a pipeline is built with this description.

        Raises:
            OptionsError: it cannot. The path begins with ``failure`` or with a setting of this producer.
        """
        if plan is not None and plan.dead_letter is not None:
            raise OptionsError(
                ("failure", "dead_letter"),
                f"{self._class_name} has its own place for dead letters; leave dead_letter out",
            )

    def check_windows(self) -> None:  # noqa: B027  # most sources suit them
        """Checks that windows can be kept of these messages. It is called when a pipeline with aggregators is built.

        Raises:
            OptionsError: they cannot, because the source does not wait until a message is acked, for example. The path
                begins with a setting of this producer.
        """

    def examine(self, pipeline: str, plan: FailurePlan | None, *, timeout: float) -> AsyncGenerator[Finding, None]:
        """Yields what ``broadway check --connect`` finds out about the source, each finding as soon as it is known.

        It connects, and looks whether everything is there that a pipeline needs. It changes nothing: no message is
        taken or sent, nothing is declared. It may be cancelled at any time, and then closes its connections. By default
        it notes that the source was not examined.

        Args:
            pipeline: the name of the pipeline.
            plan: what the pipeline does with failed messages. None: it leaves them to the acknowledger's ``ack``.
            timeout: the most seconds that each step may take.
        """
        return not_examined(self)

    async def end_lost_copies(self) -> None:  # noqa: B027  # most sources have nothing to end
        """Ends what lost producers still do, such as settling the messages that they had handed over.

        It is called at the end of a stop, whether or not a producer was open: once for each of those that ran side by
        side, at the same time. It may wait, for the rest of the time that the stop may take. An error is logged, and
        the stop goes on.
        """

    def succeed(self, former: Any) -> None:  # noqa: B027  # most sources share nothing
        """Takes over from *former*, which the same settings have made when a file had another content.

        It is called once, before :meth:`create`. Take what producers share, so that nothing learned is forgotten and
        :meth:`end_lost_copies` ends the lost producers of *former* too. Take also what ``for_order`` has set.

        Args:
            former: it has the class of this description.
        """

    def renew_by(self, renew: Callable[[], ProducerDescription | None]) -> None:
        """Sets what reads again the settings that are given by file. For code that makes descriptions from settings.

        Args:
            renew: returns a new description, or None while the files hold what they held for this one.
        """
        # This also works if the class is a frozen dataclass, as suits something that does not change.
        object.__setattr__(self, "_renew", renew)

    def renewed(self) -> ProducerDescription:
        """Returns the description to use from now on. For pipelines and test kits, before each :meth:`create`.

        It is this description, unless the content of a file with a setting has changed.

        Raises:
            OptionsError: this is the description of a source with partitions, which is not read as a whole.
        """
        if self.partitions is not None:
            raise OptionsError(("partitions",), "each partition has a reader of its own, and nothing reads the whole")
        made = None if self._renew is None else self._renew()
        if made is None:
            return self
        made.succeed(self)
        return made

    @property
    def _class_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        # The constructor's arguments are not shown, because a URL may hold a password.
        return f"<{self._class_name} name={self.name!r}>"


def one_reader_each(copies: int) -> str:
    """Returns the problem of ``concurrency=copies`` together with ``partitions``."""
    return f"expected 1 with partitions, because each of them has one reader, got {copies}; leave concurrency out"


#: What ``producer=`` takes.
AnyProducer = Producer | ProducerDescription

#: What only a description can say. A producer may have a method ``succeed`` for its own purposes, such as a job's end.
_OF_A_DESCRIPTION: Final = (
    "backoff",
    "check_failure",
    "check_windows",
    "describe_partition",
    "end_lost_copies",
    "for_order",
    "most_in_flight",
    "on_failure_is_given",
    "trace_source",
)
#: What only a running producer can do. A description may have other methods with common names, such as ``close``.
_OF_A_PRODUCER: Final = ("open", "handle_demand")


def described(given: Any) -> ProducerDescription:
    """Returns the description of what the user gave: a description as it is, or a producer whose copies are to run.

    Raises:
        OptionsError: *given* is neither, or has a method of the other one, which would never be called. The error has
            no path.
    """
    if isinstance(given, ProducerDescription):
        misplaced = [name for name in _OF_A_PRODUCER if _defines(given, name)]
        if misplaced:
            raise OptionsError(
                (),
                f"{type(given).__name__} is a description and does not run, so its {misplaced[0]} would never be "
                "called; move it to the Producer that create() returns",
            )
        return given
    if not isinstance(given, Producer):
        raise OptionsError((), f"expected a Producer or a list of them, got {type(given).__name__}")
    misplaced = [name for name in _OF_A_DESCRIPTION if _defines(given, name)]
    if misplaced:
        raise OptionsError(
            (),
            f"{type(given).__name__} is a Producer, so its {misplaced[0]} would never be asked for; move it to a "
            "ProducerDescription whose create() returns the producer",
        )
    return _OfInstance(given)


def _defines(given: object, name: str) -> bool:
    """Returns whether *given* has *name*, other than by a ``__getattr__`` that passes on what another object has."""
    return name in vars(given) or hasattr(type(given), name)


class _OfInstance(ProducerDescription):
    """Describes a producer that the user has made, and may still change before the start. Shallow copies of it run."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.name = producer.name

    @property
    def concurrency(self) -> int:  # type: ignore[override]  # it is never set here
        return self._producer.concurrency

    @property
    def redelivers(self) -> bool:  # type: ignore[override]  # as above
        return self._producer.redelivers

    @property
    def keeps_keys_apart(self) -> bool:  # type: ignore[override]  # as above
        return self._producer.keeps_keys_apart

    def returns_within(self, *, process_died: bool) -> float:
        """Returns what the producer says."""
        return self._producer.returns_within(process_died=process_died)

    @property
    def marks_repeats(self) -> bool:  # type: ignore[override]  # as above
        return self._producer.marks_repeats

    @property
    def outlives_process(self) -> bool:  # type: ignore[override]  # as above
        return self._producer.outlives_process

    def create(self) -> Producer:
        """Returns a shallow copy."""
        return copy.copy(self._producer)

    @property
    def _class_name(self) -> str:
        return type(self._producer).__name__
