"""Tracing is asked for, is not installed, has no SDK, or has code of the program that raises."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.context.context import Context
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator, default_getter, default_setter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

from broadway_py import Batcher, FailurePolicy, Message, OptionsError, Pipeline
from broadway_py.producers import DummyProducer, MemoryProducer
from tests.otel.pipelines import Traced
from tests.pipeline.support import finish, logged
from tests.support.traces import PARENT, SPAN, Traces

#: Runs a pipeline, and shows what it did.
PROGRAM = """
import asyncio, sys
{first}
from broadway_py import Batcher, Message, Pipeline
from broadway_py.errors import OptionsError
from broadway_py.producers import MemoryProducer

class Orders(Pipeline):
    batchers = {{"default": Batcher(batch_size=1)}}
    async def handle_message(self, message):
        {handle}
    async def handle_batch(self, messages, info):
        print(messages[0].data)

async def main():
    sent = Message("handled", {{"traceparent": "{parent}"}})
    async with Orders(producer=MemoryProducer([sent]), tracing={tracing}) as pipeline:
        await pipeline.wait()

try:
    asyncio.run(main())
except OptionsError as refused:
    print(refused)
print(not any(name.startswith(("opentelemetry", "broadway_py.otel")) for name in sys.modules))
"""


def ran(*, tracing: bool, first: str = "", handle: str = "pass") -> list[str]:
    program = PROGRAM.format(first=first, handle=handle, tracing=tracing, parent=PARENT)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_without_tracing_nothing_of_opentelemetry_is_loaded() -> None:
    assert ran(tracing=False) == ["handled", "True"]


def test_without_an_sdk_messages_are_handled_and_the_context_goes_on() -> None:
    handle = textwrap.dedent("""
        from opentelemetry import propagate
                carrier = {}
                propagate.inject(carrier)
                print(carrier)
    """).strip()

    assert ran(tracing=True, handle=handle) == [str({"traceparent": PARENT}), "handled", "False"]


def test_without_opentelemetry_tracing_is_refused_with_what_to_install() -> None:
    (refused, _) = ran(tracing=True, first='sys.modules["opentelemetry.propagate"] = None')

    assert refused == (
        "tracing: true needs OpenTelemetry (import of opentelemetry.propagate halted; None in sys.modules): "
        "pip install 'broadway-py[otel]', or leave tracing out"
    )


def test_tracing_takes_true_or_false() -> None:
    with pytest.raises(OptionsError) as refused:
        Traced(producer=DummyProducer(), tracing="yes")

    assert str(refused.value) == "tracing: expected true or false, got 'yes'"


def test_a_settings_file_turns_tracing_on() -> None:
    class Orders(Pipeline[Any]):
        async def handle_message(self, message: Message[Any]) -> None:
            pass

    assert Orders.from_settings({"tracing": True}, name="orders", producer=DummyProducer()).tracing


# --- code of the program that raises ----------------------------------------------------------------------------------


class Raising(TextMapPropagator):
    """Raises at each call."""

    def extract(self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter) -> Context:
        raise LookupError("a secret")

    def inject(self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter) -> None:
        raise LookupError("a secret")

    @property
    def fields(self) -> set[str]:
        return {"traceparent"}


class RaisingSampler(Sampler):
    def should_sample(self, *arguments: Any, **more: Any) -> SamplingResult:
        raise LookupError("a secret")

    def get_description(self) -> str:
        return "raises"


class RaisingProcessor(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        raise LookupError("a secret")

    def on_end(self, span: ReadableSpan) -> None:
        raise LookupError("a secret")


class EndingProcessor(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise LookupError("a secret")


async def run_all() -> dict[str, int]:
    class Dropping(Traced):
        failure = FailurePolicy(attempts=1, final="drop")
        batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "raise":
                raise ValueError

        async def handle_batch(self, messages: list[Message[Any]], info: Any) -> None:
            pass

    messages = [Message(data, {"traceparent": PARENT}) for data in ("a", "raise")]
    return await finish(Dropping(producer=MemoryProducer(messages, name="shop")))


@pytest.mark.parametrize("kind", ["sampler", "start", "end"])
async def test_errors_of_the_programs_own_code_do_not_reach_messages(
    traces: Traces, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    if kind == "sampler":
        with traces.sampled_by(RaisingSampler()):
            outcomes = await run_all()
    else:
        with traces.processed_by(RaisingProcessor() if kind == "start" else EndingProcessor()):
            outcomes = await run_all()

    assert outcomes == {"acked": 1, "dropped": 1}
    lines = [line for line in logged(caplog) if line["event"].startswith("tracing raised")]
    assert {line["event"] for line in lines} == {"tracing raised an error; the messages are handled all the same"}
    assert {line["exception"] for line in lines} == {"LookupError"}
    assert "secret" not in caplog.text


async def test_a_propagator_that_raises_lets_messages_begin_traces(traces: Traces) -> None:
    mine = propagate.get_global_textmap()
    propagate.set_global_textmap(Raising())
    try:
        outcomes = await run_all()
    finally:
        propagate.set_global_textmap(mine)

    assert outcomes == {"acked": 1, "dropped": 1}
    assert {span.parent for span in traces.spans().named("process shop")} == {""}


async def test_the_programs_own_propagator_is_used(traces: Traces) -> None:
    class Own(TextMapPropagator):
        def extract(
            self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter
        ) -> Context:
            parent = trace.SpanContext(
                int(carrier["x-trace"], 16), int(SPAN, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
            )
            return trace.set_span_in_context(trace.NonRecordingSpan(parent), context)

        def inject(self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter) -> None:
            raise NotImplementedError

        @property
        def fields(self) -> set[str]:
            return {"x-trace"}

    mine = propagate.get_global_textmap()
    propagate.set_global_textmap(Own())
    try:
        await finish(Traced(producer=MemoryProducer([Message("a", {"x-trace": "ab" * 16})], name="shop")))
    finally:
        propagate.set_global_textmap(mine)

    assert traces.spans().one("process shop").trace == "ab" * 16


# --- the log of the daemon --------------------------------------------------------------------------------------------


def logged_by_the_daemon(metadata: dict[str, str], handle: str) -> list[str]:
    program = textwrap.dedent(f"""
        import asyncio, logging
        from broadway_py import Message, Pipeline
        from broadway_py.daemon.logs.logs import configure, flush
        from broadway_py.daemon.settings.settings import Log
        from broadway_py.producers import MemoryProducer

        class Orders(Pipeline):
            tracing = True
            async def handle_message(self, message):
                {handle}

        async def main():
            async with Orders(producer=MemoryProducer([Message(1, {metadata!r})])) as pipeline:
                await pipeline.wait()

        configure(Log(format="json"))
        asyncio.run(main())
        logging.getLogger("shop").warning("outside")
        flush()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.splitlines()


def test_lines_of_a_handler_have_the_ids_of_its_span_in_the_daemons_log() -> None:
    handle = 'logging.getLogger("shop").warning("in the handler")'

    inside, outside = logged_by_the_daemon({"traceparent": PARENT}, handle)

    assert f'"trace_id": "{PARENT[3:35]}"' in inside
    assert f'"span_id": "{SPAN}"' in inside
    assert "trace_id" not in outside


def test_a_header_that_is_not_valid_is_not_shown_in_the_daemons_log() -> None:
    headers = {"baggage": "a secret of the sender", "traceparent": PARENT, "tracestate": "an=other,=secret"}

    lines = logged_by_the_daemon(headers, "pass")

    assert any('"logger": "opentelemetry' in line for line in lines)
    assert "secret" not in "".join(lines)
