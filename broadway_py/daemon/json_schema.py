"""Makes the JSON Schema of settings files for editors, from the models that check the settings.

The schema is for one file. What is missing in it may be in another file, in the environment or in the class, so nothing
is required. Settings that contradict each other are not noticed either: ``broadway check`` notices both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import CoreSchema, core_schema

from broadway_py._core.window.spec import UNSET
from broadway_py.aggregator import AggregatorSettings, State
from broadway_py.daemon.settings.descriptions import section_text, setting_texts
from broadway_py.daemon.settings.settings import Http, Log, Top
from broadway_py.errors import OptionsError
from broadway_py.options import INHERIT, Batcher, FailurePolicy, PlainOptions, Processors, RateLimit
from broadway_py.producers.kinds import kinds, producer_class
from broadway_py.producers.sections import parameters_of, takes_any_argument
from broadway_py.producers.sink_kinds import SINK_KINDS, sink_class

__all__ = ["settings_schema"]

_Node = dict[str, Any]

#: The module and the name of the model of each kind. The module of a kind whose library is missing cannot be imported.
_PRODUCERS: Final[Mapping[str, tuple[str, str]]] = {
    "queue": ("broadway_py.producers.queue", "QueueOptions"),
    "rabbitmq": ("broadway_py.producers.rabbitmq.settings.options", "RabbitMQOptions"),
    "sqs": ("broadway_py.producers.sqs.settings.options", "SQSOptions"),
}
_SINKS: Final[Mapping[str, tuple[str, str]]] = {
    "queue": ("broadway_py.producers.queue_sink", "QueueSinkOptions"),
    "rabbitmq": ("broadway_py.producers.rabbitmq.settings.sink_options", "RabbitMQSinkOptions"),
    "sqs": ("broadway_py.producers.sqs.settings.queue_options", "SQSQueueOptions"),
}
_SECTIONS: Final = (
    Processors,
    Batcher,
    FailurePolicy,
    RateLimit,
    PlainOptions,
    AggregatorSettings,
    State,
    Top,
    Http,
    Log,
)

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: Where a value may stand, text with a variable may stand: it is replaced before the value is checked.
_VARIABLE: Final = r"\$\{"
_OR_VARIABLE: Final[_Node] = {"type": "string", "pattern": _VARIABLE}
_NULL: Final[_Node] = {"type": "null"}
_NUMBER: Final = r"^[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$"
#: The names that pydantic gives bounds of a value whose type it does not know.
_BOUNDS: Final = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
#: What pydantic reads as a switch, besides true and false, where it is not strict.
_SWITCHES: Final = ("0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes")


def settings_schema() -> dict[str, Any]:
    """Returns the schema of settings files (JSON Schema, 2020-12), with the kinds that are installed here."""
    defs = _definitions()
    top = defs.pop("Top")["properties"]
    plain = defs.pop("PlainOptions")["properties"]
    defs["AggregatorSettings"]["properties"]["emit_to"] |= _or_null(_ref("sink"))
    return {
        "$schema": _DIALECT,
        "title": "Settings of broadway",
        "type": ["object", "null"],
        "properties": {
            "pipelines": _section_by_name("The pipelines, by name. null removes one of an earlier file.", "pipeline"),
            **top,
            "http": _or_null(_ref("Http")),
            "log": _or_null(_ref("Log")),
        },
        "additionalProperties": False,
        "$defs": {
            "pipeline": _pipeline(plain),
            "producer": _with_kinds("The kind of source.", kinds(), _PRODUCERS, producer_class, defs),
            "sink": _with_kinds("The kind of queue that is published to.", list(SINK_KINDS), _SINKS, sink_class, defs),
            **defs,
        },
    }


def _pipeline(plain: Mapping[str, Any]) -> _Node:
    """Returns the schema of the section of a pipeline. *plain* are its options that are single values."""
    return _section(
        "A pipeline.",
        {
            "class": {
                "type": "string",
                "pattern": rf"^[^:]+:.+$|{_VARIABLE}",
                "description": "The class, as module:Class. The current directory is searched first. Required.",
            },
            "name": {
                "type": "string",
                "minLength": 1,
                "description": "The name in logs and metrics. Default: the key of the section.",
            },
            "producer": {
                "description": "One source, or a list of them. Default: what the class says.",
                "anyOf": [_ref("producer"), {"type": "array", "items": _ref("producer"), "minItems": 1}, _NULL],
            },
            "processors": _ref("Processors"),
            "batchers": _section_by_name(
                "By name; default: what the class says. null removes one of the class's.", "Batcher"
            ),
            "batch_defaults": _or_null(_ref("Batcher"), "What holds for all batchers that do not say it themselves."),
            "publishers": _section_by_name(
                "Where callbacks publish to, by name; default: what the class says. null removes one of the class's.",
                "sink",
            ),
            "aggregators": _section_by_name(
                "By name; they are in the class, and a file changes their settings. null removes one. Needs state.",
                "AggregatorSettings",
            ),
            "state": {
                "description": "Where aggregators keep their windows, and deduplicate_by the ids of handled messages. "
                "Text instead of the section is its path. Default: null.",
                "anyOf": [{"type": "string", "minLength": 1}, _ref("State"), _NULL],
            },
            "deduplicate_by": {
                "description": "id: a message whose id was handled before is acked, and not handled again. Needs "
                "state. Default: null, or the function of the class.",
                "anyOf": [{"const": "id"}, _NULL, _OR_VARIABLE],
            },
            "rate_limit": _or_null(_ref("RateLimit")),
            "failure": _or_null(_ref("FailurePolicy")),
            **plain,
            "context": {"description": "Any value; the callbacks read it as self.context."},
        },
    )


def _with_kinds(
    text: str,
    names: list[str],
    models: Mapping[str, tuple[str, str]],
    class_of: Callable[[str], type],
    defs: dict[str, _Node],
) -> _Node:
    """Returns the schema of a section whose ``kind`` is one of *names*. The section of each kind is added to *defs*."""
    kind: _Node = {"anyOf": [{"enum": names}, _OR_VARIABLE], "description": f"{text} Required."}
    rules: list[_Node] = []
    known: set[str] | None = {"kind"}
    for name in names:
        model = _model(*models[name]) if name in models else None
        described = None if model is None else (model, defs.pop(model.__name__))
        settings = _settings_of_kind(name, class_of, described)
        if settings is None:
            known = None  # nobody knows the names of its settings
            continue
        known = None if known is None else known | settings.keys()
        is_this: _Node = {"properties": {"kind": {"const": name}}, "required": ["kind"], "type": "object"}
        rules.append({"if": is_this, "then": {"properties": settings, "propertyNames": {"enum": ["kind", *settings]}}})
    if known is not None:
        # The kind may be in another file, or in a variable.
        rules.append({"propertyNames": {"enum": sorted(known)}})
    return {"type": ["object", "string"], "pattern": _VARIABLE, "properties": {"kind": kind}, "allOf": rules}


def _settings_of_kind(
    kind: str, class_of: Callable[[str], type], described: tuple[type[BaseModel], _Node] | None
) -> _Node | None:
    """Returns the schemas of the settings of *kind* by name. None: they are not known."""
    try:
        made = class_of(kind)
    except OptionsError:
        return None
    parameters = parameters_of(made)
    if described is None and takes_any_argument(made):
        return None
    settings: _Node = {name: {} for name in parameters} if described is None else dict(described[1]["properties"])
    for name, parameter in parameters.items():
        text = f"The name of a file that holds {name}. It is read again at each connect."
        settings.setdefault(f"{name}_file", {"type": "string", "description": text})
        if described is not None and parameter.default is None and not described[0].model_fields[name].is_required():
            settings[name] = _or_null(settings[name])
    return settings


def _model(module: str, name: str) -> type[BaseModel] | None:
    try:
        found: type[BaseModel] = getattr(import_module(module), name)
    except ImportError:
        return None
    return found


def _definitions() -> dict[str, _Node]:
    """Returns the schema of each section that has a model, and of the sections inside of it, by the model's name."""
    of_kinds = [_model(*place) for place in (*_PRODUCERS.values(), *_SINKS.values())]
    models: list[type[BaseModel]] = [*_SECTIONS, *(model for model in of_kinds if model is not None)]
    _, made = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_Generator, ref_template="#/$defs/{model}"
    )
    return {name: _finished(node) for name, node in made["$defs"].items()}


class _Generator(GenerateJsonSchema):
    """Describes models as settings files write them."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Returns the section of a model, with what the code says about it and its fields."""
        made = super().model_schema(schema)
        model = schema["cls"]
        texts = setting_texts(model)
        for name, field in model.model_fields.items():
            said = [*texts.get(name, []), *(["Required."] if field.is_required() else [])]
            if said:
                made["properties"][name]["description"] = " ".join(said)
        made["description"] = section_text(model)
        made.pop("required", None)
        made.pop("title", None)
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leaves titles away: they would only repeat the names."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leaves out a default that means "as another place says"."""
        if schema.get("default") in (UNSET, INHERIT):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """Returns what a switch takes. One that is not strict also takes words such as ``on``, in any case."""
        if schema.get("strict"):
            return {"type": "boolean"}
        words = "|".join("".join(f"[{one}{one.upper()}]" for one in word) for word in _SWITCHES)
        return {"type": ["boolean", "integer", "string"], "minimum": 0, "maximum": 1, "pattern": f"^({words})$"}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Returns what a number takes: one that is not strict also takes text with a number."""
        made = super().float_schema(schema)
        return made if schema.get("strict") else {**made, "type": ["number", "string"], "pattern": _NUMBER}

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> JsonSchemaValue:
        """Allows what is a section of its own, and is described elsewhere."""
        return {}


def _finished(node: _Node) -> _Node:
    """Returns the schema *node* with the names that JSON Schema has for bounds, and with variables allowed."""
    made = {_BOUNDS.get(name, name): value for name, value in node.items()}
    for name in ("properties", "patternProperties"):
        if name in made:
            made[name] = {key: _finished(inner) for key, inner in made[name].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = _finished(made[name])
    if "prefixItems" in made:
        made["prefixItems"] = [_finished(inner) for inner in made["prefixItems"]]
    if "anyOf" in made:
        return _finished_choice(made)
    return _or_variable(made)


def _finished_choice(node: _Node) -> _Node:
    """Returns a choice. One between a value and null becomes one schema, which editors explain better."""
    choices = [inner for inner in node["anyOf"] if inner != _NULL]
    is_nullable = len(choices) < len(node["anyOf"])
    rest = {name: value for name, value in node.items() if name != "anyOf"}
    if len(choices) == 1:
        one = _finished(choices[0])
        return {**_or_null(one), **rest} if is_nullable else {**one, **rest}
    found: list[_Node] = []
    for inner in map(_finished, choices):
        found += [branch for branch in inner.get("anyOf", [inner]) if branch not in found]
    return {**rest, "anyOf": [*found, *([_NULL] if is_nullable else [])]}


def _or_variable(node: _Node) -> _Node:
    """Returns *node*, which also allows text with a variable in it."""
    text: _Node = {name: node[name] for name in ("default", "description") if name in node}
    if "enum" in node or "const" in node:
        words = {name: value for name, value in node.items() if name in ("enum", "const")}
        return {**text, "anyOf": [words, _OR_VARIABLE]}
    types = node.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and "string" not in types:
        return {**node, "type": [*types, "string"], "pattern": _VARIABLE}
    if "pattern" in node:
        return {**node, "pattern": f"{node['pattern']}|{_VARIABLE}"}
    return node


def _or_null(node: _Node, text: str | None = None) -> _Node:
    """Returns *node*, which also allows null, with *text* as its description."""
    said = {} if text is None else {"description": text}
    if "anyOf" in node:
        return {**node, **said, "anyOf": [*(one for one in node["anyOf"] if one != _NULL), _NULL]}
    if "type" in node:
        types = [node["type"]] if isinstance(node["type"], str) else node["type"]
        return {**node, **said, "type": [*(one for one in types if one != "null"), "null"]}
    return {**said, "anyOf": [node, _NULL]}


def _ref(name: str) -> _Node:
    return {"$ref": f"#/$defs/{name}"}


def _section(text: str, properties: _Node) -> _Node:
    return {
        "type": ["object", "string"],
        "pattern": _VARIABLE,
        "description": text,
        "properties": properties,
        "additionalProperties": False,
    }


def _section_by_name(text: str, name: str) -> _Node:
    """Returns a section that has sections of one form by names of the user. null removes one."""
    return {
        "type": ["object", "string"],
        "pattern": _VARIABLE,
        "description": text,
        "additionalProperties": _or_null(_ref(name)),
    }
