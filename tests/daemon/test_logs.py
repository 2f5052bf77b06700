from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import pytest

from broadway_py.daemon import logs
from broadway_py.daemon.loop_thread import LoopThread
from broadway_py.daemon.settings import Log
from broadway_py.error_text import described
from broadway_py.errors import ProducerError
from broadway_py.log import logger

CANARY = "canary-7f3a"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configured(stream: io.StringIO | None = None, worker: int | None = None, **settings: Any) -> io.StringIO:
    stream = stream or io.StringIO()
    logs.configure(Log(**settings), stream=stream, worker=worker)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_where_there_is_no_terminal_with_time_level_and_logger() -> None:
    stream = configured()
    logger("broadway_py.x").info("it began", pipeline="orders", message_id="5")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "it began",
        "level": "info",
        "logger": "broadway_py.x",
        "pipeline": "orders",
        "message_id": "5",
    }


def test_lines_for_people_on_a_terminal_with_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = configured(Terminal())
    logger("broadway_py.x").info("it began")
    assert "\x1b[" in coloured.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    plain = configured(Terminal())
    logger("broadway_py.x").info("it began", pipeline="orders")
    assert "\x1b[" not in plain.getvalue()
    assert "it began" in plain.getvalue()
    assert "pipeline=orders" in plain.getvalue()


def test_the_form_may_be_chosen() -> None:
    stream = configured(Terminal(), format="json")
    logger("broadway_py.x").info("it began")
    assert lines(stream)[0]["event"] == "it began"


def test_loggers_of_others_go_the_same_way_and_the_level_holds_for_all() -> None:
    stream = configured(level="warning", worker=3)
    logging.getLogger("aiormq").info("hidden")
    logging.getLogger("aiormq").warning("shown %d", 5)
    logger("broadway_py.x").info("hidden")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"], line["worker"]) == ("shown 5", "aiormq", "warning", 3)


def test_passwords_in_urls_are_masked_everywhere() -> None:
    stream = configured()
    logging.getLogger("aiormq").warning("cannot reach %s", f"amqp://user:{CANARY}@host/")
    logger("broadway_py.x").warning(f"amqps://user:{CANARY}@host/vhost", url=f"amqp://u:{CANARY}@h")
    assert CANARY not in stream.getvalue()
    assert "amqp://***@host/" in stream.getvalue()


def raised(text: str = CANARY) -> Exception:
    secret = CANARY  # a local variable that must not be shown
    try:
        try:
            raise KeyError(text)
        except KeyError as cause:
            raise ValueError(f"{text}{secret}") from cause
    except ValueError as error:
        return error


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "console"])
def test_errors_of_libraries_show_type_and_stack_but_neither_text_nor_variables(stream: io.StringIO) -> None:
    configured(stream)
    logger("broadway_py.x").error("it failed", exc_info=raised())
    logging.getLogger("asyncio").error("it failed", exc_info=raised())
    text = stream.getvalue()
    assert "ValueError" in text
    assert "KeyError" in text
    assert "test_logs.py" in text
    assert CANARY not in text


def test_our_own_errors_keep_their_text() -> None:
    stream = configured()
    logger("broadway_py.x").error("it failed", exc_info=ProducerError("the broker is away"))
    assert lines(stream)[0]["exception"] == "broadway_py.errors.ProducerError: the broker is away"


def test_what_users_log_themselves_keeps_its_text() -> None:
    stream = configured()
    logging.getLogger("orders").error("it failed", exc_info=ValueError("no such customer"))
    assert lines(stream)[0]["exception"] == "ValueError: no such customer"


def test_every_error_of_a_group_is_shown() -> None:
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("one", [KeyError("b")])])
    text = described(group, with_text=False)
    assert "ValueError" in text
    assert "KeyError" in text


def test_an_error_that_no_task_waited_for_is_logged_without_its_text() -> None:
    stream = configured()

    class Body:
        shutdown_timeout = 1.0

        async def run(self) -> int:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "nobody waited", "exception": raised(), "future": CANARY}
            )
            return 0

        def stop(self) -> None: ...
        def give_up(self) -> None: ...
        def log_state(self) -> None: ...
        def abandon(self) -> None: ...

    ended: list[object] = []
    thread = LoopThread(Body(), ended.append)
    thread.start()
    thread.join(10)
    assert ended == [0]
    (line,) = lines(stream)
    assert line["event"] == "an error that no task waited for"
    assert line["reason"] == "nobody waited"
    assert "ValueError" in line["stack"]
    assert CANARY not in stream.getvalue()
