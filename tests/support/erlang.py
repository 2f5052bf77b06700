"""A conversation with a RabbitMQ node over Erlang's own wire: exact, at once, and a millisecond per question.

``rabbitmqctl`` needs a second per call, and the management API shows numbers that are seconds old.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["DISTRIBUTION", "ErlangShell", "NodeRefusedError", "binary"]

# Reads one line with an expression, has the *broker's* node evaluate it, answers one line. When its input ends, the
# tests were killed: then nobody else would end the node and its epmd.
_LOOP: Final = """
Node = list_to_atom(os:getenv("ASKED_NODE")),
Loop = fun Loop() ->
  case io:get_line("") of
    eof ->
      rpc:call(Node, erlang, halt, [], 5000),
      os:cmd("epmd -kill"),
      halt();
    Line ->
      {ok, Tokens, _} = erl_scan:string(Line),
      {ok, Exprs} = erl_parse:parse_exprs(Tokens),
      case rpc:call(Node, erl_eval, exprs, [Exprs, erl_eval:new_bindings()]) of
        {value, Value, _} -> io:format("ok ~0tp~n", [Value]);
        Other -> io:format("no ~0tp~n", [Other])
      end,
      Loop()
  end
end,
Loop().
"""

#: Options of Erlang without which the port of its distribution is open to the network.
DISTRIBUTION: Final = ("-kernel", "inet_dist_use_interface", "{127,0,0,1}")


class NodeRefusedError(Exception):
    """The node is not running, or the expression failed in it."""


def binary(text: str) -> str:
    """*text* as an Erlang binary."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}">>'


class ErlangShell:
    """A small Erlang process of our own beside the node, by the command *erl*; close it with :meth:`close`."""

    def __init__(self, erl: Sequence[str], node: str, environment: Mapping[str, str], log: Path) -> None:
        self._lock = threading.Lock()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(*erl, "-noshell", "-sname", f"asks_{os.getpid()}@localhost", *DISTRIBUTION),
                    *("-eval", " ".join(_LOOP.split())),
                ],
                env={**environment, "ASKED_NODE": node},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the tests, which then end it in order
            )

    def ask(self, expression: str) -> str:
        """What the node made of *expression*, as Erlang prints it.

        Raises:
            NodeRefusedError: no node there, or the expression failed.
        """
        talk_in, talk_out = self._process.stdin, self._process.stdout
        assert talk_in is not None
        assert talk_out is not None
        with self._lock:
            try:
                talk_in.write(" ".join(expression.split()).rstrip(".") + ".\n")
                talk_in.flush()
            except BrokenPipeError:
                raise NodeRefusedError(f"asked for {expression!r}, but the process that asks has ended") from None
            answer = talk_out.readline()
        verdict, _, value = answer.rstrip("\n").partition(" ")
        if verdict != "ok":
            raise NodeRefusedError(f"asked for {expression!r}, the node answered {value or 'nothing'}")
        return value

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what was not written when it ended
                if pipe is not None:
                    pipe.close()
