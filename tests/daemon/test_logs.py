from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
import time
import warnings
from typing import Any

import pytest

from broadway_py.daemon.logs import logs
from broadway_py.daemon.process.loop_thread import LoopThread
from broadway_py.daemon.settings.settings import Log
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
    logging.getLogger("orders").warning("cannot reach %s", f"amqp://user:{CANARY}@host/")
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
        def reload(self) -> None: ...
        def log_state(self) -> None: ...
        def abandon(self) -> None: ...

    ended: list[object] = []
    thread = LoopThread(Body(), ended.append)
    thread.start()
    thread.join(10)
    assert ended == [0]
    (line,) = lines(stream)
    assert line["event"] == "an error came to the event loop, because no task waited for it"
    assert line["reason"] == "nobody waited"
    assert "ValueError" in line["stack"]
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "amqp://" + "a:" * 20_000,
        "://a:" * 20_000,
        "amqp://u:p@" * 20_000,
    ],
)
def test_looking_for_passwords_takes_no_longer_than_reading(text: str) -> None:
    began = time.thread_time()
    logs.mask_credentials(text)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://user:secret@host/v", "amqp://***@host/v"),
        ("amqp://user:se:c@ret@host", "amqp://***@host"),
        ("amqp://:secret@host", "amqp://***@host"),
        ("amqp://user@host:5672/", "amqp://user@host:5672/"),
        ("such as amqp://user:password@host", "such as amqp://user:password@host"),
        ("two: http://a:b@c, http://d:e@f", "two: http://***@c, http://***@f"),
    ],
)
def test_the_login_of_a_url_is_masked(text: str, shown: str) -> None:
    assert logs.mask_credentials(text) == shown


def test_what_a_library_says_is_shown_without_texts_that_may_be_of_a_message() -> None:
    stream = configured()
    logging.getLogger("boto3.x").error("unroutable %r after %d of %.1f s", CANARY.encode(), 3, 0.5)
    logging.getLogger("botocore.x").warning("%(body)s", {"body": CANARY})
    logging.getLogger("asyncio").warning("%d things", CANARY)
    assert [line["event"] for line in lines(stream)] == ["unroutable (bytes) after 3 of 0.5 s", "(str)", "%d things"]


def test_texts_are_shown_where_they_were_asked_for() -> None:
    stream = configured(errors="text")
    logging.getLogger("aiormq").warning("unroutable %s", CANARY)
    logger("broadway_py.x").error("it failed", exc_info=ValueError(CANARY))
    assert [CANARY in line for line in stream.getvalue().splitlines()] == [True, True]


def test_a_warning_says_its_kind_and_place_and_its_text_only_where_it_speaks_of_code() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._log_warning
        warnings.warn(f"odd value {CANARY}", UserWarning, stacklevel=1)
        warnings.warn("use other() instead", DeprecationWarning, stacklevel=1)
    first, second = lines(stream)
    assert first["event"] == "UserWarning: not shown, it may quote the message; log.errors: text shows it"
    assert "test_logs.py:" in first["at"]
    assert second["event"] == "DeprecationWarning: use other() instead"


def test_a_library_that_says_the_same_for_each_request_is_limited_and_summed_up() -> None:
    stream = configured()
    for number in range(500):
        logging.getLogger("aiohttp.server").error("Error handling request", exc_info=ValueError(number))
        logging.getLogger("orders").error("of the user")
    said = [line["event"] for line in lines(stream)]
    assert said.count("Error handling request") == 20
    assert said.count("of the user") == 500
    logs.flush()
    (last,) = [line for line in lines(stream) if "not_shown" in line]
    assert (last["event"], last["line"], last["not_shown"], last["logger"]) == (
        "more lines of this kind were left out",
        "Error handling request",
        480,
        "aiohttp.server",
    )


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "console"])
def test_no_line_is_longer_than_it_may_be(stream: io.StringIO) -> None:
    configured(stream)
    big = "\x01\x1b" * 1_000_000
    logging.getLogger("orders").warning(big)
    logging.getLogger("orders").error("it failed", exc_info=ValueError(big))
    logger("broadway_py.x").warning("it failed", **{f"field {number}": big for number in range(100)})
    assert len(stream.getvalue()) < 3 * 17_000
    assert "\x1b[2" not in stream.getvalue().replace("\x1b[2m", "")


def test_a_line_on_a_terminal_cannot_move_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = configured(Terminal())
    logger("broadway_py.x").warning("a message failed", message_id="\x1b[2J\x07")
    assert "\x1b" not in stream.getvalue()
    assert r"\x1b[2J\x07" in stream.getvalue()


def test_what_threads_finalizers_and_the_program_let_out_is_logged_without_text() -> None:
    stream = configured()
    thread = threading.Thread(target=lambda: raise_(ValueError(CANARY)), name="mine")
    thread.start()
    thread.join()

    class Final:
        def __del__(self) -> None:
            raise ValueError(CANARY)

    made = Final()
    del made
    error = raised()
    sys.excepthook(type(error), error, None)
    assert [line["event"] for line in lines(stream)] == [
        "an error ended a thread",
        "an error was ignored, because no code could catch it",
        "an error ended the program",
    ]
    assert CANARY not in stream.getvalue()


def raise_(error: Exception) -> None:
    raise error
