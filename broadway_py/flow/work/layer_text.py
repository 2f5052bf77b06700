"""The source text of the function that a layer is: one or more lines for each operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from broadway_py.flow.description.operators import KeyedReduction, Operator, Reduction
from broadway_py.flow.work.calls import elements_of, gives_async_generator, gives_coroutine, merging

__all__ = ["LayerText"]

_INDENT: Final = "    "
#: The elements that a flat_map has returned.
_SEVERAL: Final = "several if type(several) is list else elements_of(several)"


class _Line(NamedTuple):
    text: str
    indent: int
    #: The operator that fails here, and what to say if only this line can be at fault.
    label: str | None = None
    problem: str | None = None


class LayerText:
    """Writes the function of a layer. The arguments are those of the :class:`LayerFunction`.

    Args:
        leaves_out: an element that an operator fails on is left out.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        reduction: Reduction | KeyedReduction | None,
        *,
        leaves_out: bool,
        merges_pairs: bool,
        counts: bool,
    ) -> None:
        #: The functions that the text calls, by name.
        self.functions: dict[str, Any] = {"elements_of": elements_of}
        self.is_async = False
        self.sets = 0
        self._leaves_out = leaves_out
        self._counts = counts
        self._prologue: list[_Line] = []
        self._body: list[_Line] = []
        self._undo: list[_Line] = []
        self._reset: list[_Line] = []
        self._value = "v0"
        self._indent = 3
        has_many = any(each.kind == "flat_map" for each in operators)
        last = operators[-1] if operators and reduction is None and _adds_to_list(operators[-1]) else None
        for number, operator in enumerate(operators if last is None else operators[:-1], 1):
            self._write_operator(number, operator)
        if reduction is not None:
            if leaves_out and has_many:
                self._write_parts()
            self._write_reduction(reduction, merges_pairs=merges_pairs)
            return
        if leaves_out and has_many:
            self._reset_line("mark = len(out)")
            self._undo_line("del out[mark:]")
        # Python calls the append of a list faster than a variable that stands for it.
        if last is None:
            self._write("out.append({v})")
        elif last.kind == "map":
            self._write(f"out.append({self._call('last', last.fn)})", last.label)
        else:
            self._write(f"several = {self._call('last', last.fn)}", last.label)
            self._write(f"out += {_SEVERAL}", last.label)

    def _write_parts(self) -> None:
        """Lets the parts of an element wait until all are there: it must not be reduced in part if one fails."""
        self._reset_line("parts = []")
        self._write("parts.append({v})")
        self._indent = 3
        self._value = "part"
        self._write("for part in parts:")
        self._indent += 1

    def written(self) -> str:
        """Returns the definition of the function."""
        return "".join(f"{_INDENT * line.indent}{line.text}\n" for line in self._lines())

    def operators_by_line(self) -> dict[int, tuple[str, str | None]]:
        """Returns the label of the operator by the number of the line, and what is wrong if it fails."""
        found: dict[int, tuple[str, str | None]] = {}
        label = "source"
        for number, line in enumerate(self._lines(), 1):
            label = line.label or label
            found[number] = label, line.problem
        return found

    def _lines(self) -> list[_Line]:
        head = f"{'async ' if self.is_async else ''}def layer(elements, out, accumulator, seen, stage):"
        first = [_Line(head, 0), *self._prologue, _Line("source = iter(elements)", 1), _Line("v0 = None", 1)]
        loop, guard = "for v0 in source:", "except errors_of_functions() as error:"
        report, last = "stage.failed(error, source, len(elements), v0)", [_Line("return accumulator", 1)]
        if self._counts:
            first.append(_Line("count = 0", 1))
            last.insert(0, _Line("stage.reduced += count", 1))
        if self._leaves_out:
            within = [_Line(loop, 1), *self._reset, _Line("try:", 2), *self._body, _Line(guard, 2), _Line(report, 3)]
            return [*first, *within, *self._undo, *last]
        return [*first, _Line("try:", 1), _Line(loop, 2), *self._body, _Line(guard, 1), _Line(report, 2), *last]

    def _write_operator(self, number: int, operator: Operator) -> None:
        label, value, name = operator.label, f"v{number}", f"f{number}"
        call = self._call(name, operator.fn) if operator.fn is not None else "{v}"
        match operator.kind:
            case "map":
                self._write(f"{value} = {call}", label)
                self._value = value
            case "filter":
                self._write(f"if not {call}: continue", label)
            case "reject":
                self._write(f"if {call}: continue", label)
            case "flat_map":
                is_generator = gives_async_generator(operator.fn)
                self.is_async |= is_generator
                if is_generator:
                    self._write(f"async for {value} in {call}:", label)
                else:
                    self._write(f"several = {call}", label)
                    self._write(f"for {value} in {_SEVERAL}:", label)
                self._indent += 1
                self._value = value
            case "map_values":
                problem = "expected pairs (key, value) as elements of map_values"
                self._write(f"k{number}, w{number} = {{v}}", label, problem)
                self._value = f"w{number}"
                self._write(f"{value} = k{number}, {self._call(name, operator.fn)}", label)
                self._value = value
            case "uniq":
                self._write_uniq(number, call, label)
            case "map_batch":
                raise TypeError("map_batch works on lists, not on elements")

    def _write_uniq(self, number: int, call: str, label: str) -> None:
        self._prologue_line(f"s{number} = seen[{self.sets}]")
        self._prologue_line(f"add{number} = s{number}.add")
        self.sets += 1
        self._write(f"k{number} = {call}", label)
        self._write(f"if k{number} in s{number}: continue", label)
        self._write(f"add{number}(k{number})", label)
        if self._leaves_out:
            # An element that fails further down counts as not seen.
            self._reset_line(f"new{number} = []")
            self._write(f"new{number}.append(k{number})")
            self._undo_line(f"s{number}.difference_update(new{number})")

    def _write_reduction(self, reduction: Reduction | KeyedReduction, *, merges_pairs: bool) -> None:
        label = reduction.label
        if isinstance(reduction, Reduction):
            reduced = self._call("reduced", reduction.fn, "accumulator, {v}")
            if not reduction.emits:
                self._write(f"accumulator = {reduced}", label)
                return
            self._write(f"pair = {reduced}", label)
            problem = f"expected (elements, accumulator) from the function of {reduction.kind}"
            self._write("emitted, next_accumulator = pair", label, problem)
            self._write("emitted = list(elements_of(emitted))", label)
            self._write("out += emitted", label)
            self._write("accumulator = next_accumulator", label)
            return
        self._prologue_line("get = accumulator.get")
        if merges_pairs:
            self._write("key, part_of_key = {v}", label)
            made = "part_of_key"
            reduced = self._call("combined", merging(_combine_of(reduction)), "found, part_of_key")
        else:
            self._write(f"key = {'{v}' if reduction.key is None else self._call('key_of', reduction.key)}", label)
            if reduction.kind == "count_by":
                self._write("accumulator[key] = get(key, 0) + 1", label)
                self._write_count()
                return
            made = self._call("reduced", reduction.fn, f"{self._call('initial', reduction.init, '')}, {{v}}")
            reduced = self._call("reduced", reduction.fn, "found, {v}")
        self._write("found = get(key, MISSING)", label)
        self._write(f"accumulator[key] = {made} if found is MISSING else {reduced}", label)
        self._write_count()

    def _write_count(self) -> None:
        if self._counts:
            self._write("count += 1")

    def _call(self, name: str, fn: Callable[..., Any] | None, arguments: str = "{v}") -> str:
        self.functions[name] = fn
        if gives_coroutine(fn):
            self.is_async = True
            return f"(await {name}({arguments}))"
        return f"{name}({arguments})"

    def _write(self, text: str, label: str | None = None, problem: str | None = None) -> None:
        # The name of a function may be any text.
        shown = "" if label is None else f"  # {ascii(label)[1:-1]}"
        self._body.append(_Line(text.replace("{v}", self._value) + shown, self._indent, label, problem))

    def _prologue_line(self, text: str) -> None:
        self._prologue.append(_Line(text, 1))

    def _reset_line(self, text: str) -> None:
        self._reset.append(_Line(text, 2))

    def _undo_line(self, text: str) -> None:
        self._undo.append(_Line(text, 3))


def _adds_to_list(operator: Operator) -> bool:
    """Returns True if what *operator* returns is added to the list of elements that come out."""
    return operator.kind == "map" or (operator.kind == "flat_map" and not gives_async_generator(operator.fn))


def _combine_of(reduction: KeyedReduction) -> Callable[[Any, Any], Any]:
    if reduction.combine is None:
        raise TypeError(f"{reduction.label} has no combine")
    return reduction.combine
