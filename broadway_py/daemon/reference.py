"""Makes ``config/reference.yaml``: every setting with its default, read from the models that check them.

``python -m broadway_py.daemon.reference config/reference.yaml`` writes the file again.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from broadway_py.daemon.settings.settings import Http, Log, Top
from broadway_py.options import Batcher, FailurePolicy, PlainOptions, Processors, RateLimit
from broadway_py.producers.queue import QueueOptions
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.sqs.settings.options import SQSOptions

__all__ = ["reference_text"]

_HEAD: Final = """\
# Every setting, with what it is when you leave it out. Do not edit: it is made from the code by
#   python -m broadway_py.daemon.reference config/reference.yaml
#
# Durations are seconds, or text such as 500ms, 2s, 1m, 1h. ${VAR} and ${VAR:-default} in a value are replaced from the
# environment. A setting x of a producer can also be given as x_file: the name of a file that holds the value.
# What wins: --set path=value, then the environment (BROADWAY_HTTP__PORT=9090), then later files, then earlier ones.
"""

# These settings are code, so a file cannot give them.
_CODE: Final = frozenset({"partition_by", "after_connect", "merge_options"})

# These values are shown instead of a default that means nothing by itself or that forbids another setting.
_SHOWN: Final[Mapping[str, Any]] = {
    "queue": "shipments",
    "path": "var/queue.db",
    "declare": "active",
    "queue_url": "shipments",
    "allowed_messages": 1000,
    "interval": 1.0,
}

_COMMENT: Final = re.compile(r"\s*#: ?(.*)")
_FIELD: Final = re.compile(r"    (\w+):")


def reference_text() -> str:
    """Returns the text of the whole file."""
    return "\n".join(
        [_HEAD, *_pipelines(), *_model(Top, 0), "", *_section("http", Http, 0), "", *_section("log", Log, 0), ""]
    )


def _pipelines() -> Iterator[str]:
    yield "pipelines:"
    yield "  shipments:"
    yield "    # Required: the class, as module:Class. The current directory is searched first."
    yield "    class: broadway_py.examples.shipments:Shipments"
    yield "    # The name in logs and metrics. Default: the key above."
    yield "    name: shipments"
    yield "    # One source, or a list of them. Default: what the class says."
    yield "    producer:"
    yield "      # A durable queue in a file; needs no broker."
    yield "      - kind: queue"
    yield from _model(QueueOptions, 8)
    yield "      # A queue of RabbitMQ; needs the extra broadway-py[rabbitmq]."
    yield "      - kind: rabbitmq"
    yield from _model(RabbitMQOptions, 8)
    yield "      # A queue of SQS; needs the extra broadway-py[sqs]."
    yield "      - kind: sqs"
    yield from _model(SQSOptions, 8)
    yield from _section("processors", Processors, 4)
    yield "    # By name; default: what the class says. null removes one of the class's."
    yield "    batchers:"
    yield from _section("default", Batcher, 6)
    yield "    # Default: null, no limit."
    yield from _section("rate_limit", RateLimit, 4)
    yield from _section("failure", FailurePolicy, 4)
    yield from _model(PlainOptions, 4)
    yield "    # Anything; the callbacks read it as self.context."
    yield "    context: null"
    yield ""


def _section(name: str, model: type[BaseModel], indent: int) -> Iterator[str]:
    pad = " " * indent
    yield f"{pad}# {_first_line(model)}"
    yield f"{pad}{name}:"
    yield from _model(model, indent + 2)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0].replace("``", "").replace("None:", "null:")


def _model(model: type[BaseModel], indent: int) -> Iterator[str]:
    comments = _comments(model)
    pad = " " * indent
    for name, field in model.model_fields.items():
        if name in _CODE:
            continue
        for line in _described(name, field, comments.get(name, [])):
            yield f"{pad}# {line}"
        nested = _section_of(field)
        if nested is not None and _default(field) is None:
            # Without the section the setting is None, which differs from a section of defaults. So the section is
            # commented out.
            yield f"{pad}# {name}:"
            yield from (f"{pad}#{line.removeprefix(pad)}" for line in _model(nested, indent + 3))
        elif nested is not None:
            yield f"{pad}{name}:"
            yield from _model(nested, indent + 2)
        elif field.default_factory is not None and _default(field) is PydanticUndefined:
            yield f"{pad}# {name}: …"
        else:
            yield f"{pad}{name}: {_value(_SHOWN.get(name, _default(field)))}"


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Returns the model of a field whose value is a section, or a section or null. Returns None for other fields."""
    annotation: Any = field.annotation
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _described(name: str, field: FieldInfo, comment: list[str]) -> Iterator[str]:
    yield from (line.replace("``", "").replace("None:", "null:") for line in comment)
    if field.is_required():
        yield "Required."
    elif name in _SHOWN:
        yield f"Default: {_value(_default(field))}."


def _default(field: FieldInfo) -> Any:
    if field.default_factory is None:
        return field.default
    made = field.get_default(call_default_factory=True, validated_data={})
    # A number that depends on the machine is not written down as a default.
    return PydanticUndefined if isinstance(made, int) else made


def _value(value: object) -> str:
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n")
    return text.strip()


def _comments(model: type[BaseModel]) -> dict[str, list[str]]:
    """Returns the ``#:`` lines above each field, by field name. Fields of base classes are included."""
    found: dict[str, list[str]] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        pending: list[str] = []
        for line in inspect.getsource(base).splitlines():
            if comment := _COMMENT.fullmatch(line):
                pending.append(comment[1])
            elif field := _FIELD.match(line):
                found.setdefault(field[1], pending)
                pending = []
            else:
                pending = []
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference_text(), encoding="utf-8")
