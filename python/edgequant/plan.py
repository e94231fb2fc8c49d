"""Which format every tensor of a model will get, decided before any work is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

from edgequant import _core, presets
from edgequant._core import Error
from edgequant.formats import lookup


class TensorInfo(Protocol):
    """What planning needs to know of a tensor; `edgequant.models` provides more."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> str: ...


@dataclass(frozen=True)
class TensorPlan:
    """One tensor: from the format it has to the format it gets, and why."""

    name: str
    shape: tuple[int, ...]
    source: str
    target: str
    reason: str
    wanted: str | None = None  # the format that its rows do not divide
    kept: bool = False  # never quantized, whatever the preset

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return tensor_bytes(self.target, self.shape)


@dataclass(frozen=True)
class Rule:
    """REGEX=FORMAT: quantizable tensors whose GGUF name contains a match get the format; `keep` leaves them."""

    pattern: re.Pattern[str]
    format: str

    def __str__(self) -> str:
        return f"{self.pattern.pattern}={self.format}"


FLOATS = ("f32", "f16", "bf16")
_OTHER_BYTES = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "f64": 8}


def tensor_bytes(format: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor, GGUF's integer types included."""
    if format in _OTHER_BYTES:
        return prod(shape) * _OTHER_BYTES[format]
    f = lookup(format)
    return prod(shape) // f.block * f.bytes


def parse_rule(text: str) -> Rule:
    """Rule from 'REGEX=FORMAT'. The last = separates. Raises Error for a bad expression or format."""
    pattern, equals, name = text.rpartition("=")
    if not equals or not pattern:
        raise Error(f"rule '{text}': expected REGEX=FORMAT, such as 'ffn_down=q6_k'")
    name = name.strip().lower()
    if name != "keep" and not _core.can_quantize(lookup(name).name):
        raise Error(f"rule '{text}': {name} can be read but not written yet")
    try:
        return Rule(re.compile(pattern), name)
    except re.error as e:
        raise Error(f"rule '{text}': {e} in the regular expression") from None


def parse_rules(rules: Iterable[str | Rule] | Mapping[str, str] | None) -> list[Rule]:
    """Rules from strings, Rule objects or a mapping of regex to format, in order."""
    if isinstance(rules, str):
        rules = [rules]
    if isinstance(rules, Mapping):
        rules = [f"{pattern}={name}" for pattern, name in rules.items()]
    return [r if isinstance(r, Rule) else parse_rule(r) for r in rules or ()]


def make_plan(
    tensors: Sequence[TensorInfo],
    metadata: presets.Metadata,
    preset: presets.Preset,
    rules: Sequence[Rule] = (),
    *,
    importance: bool = False,
    floats_to_f32: bool = False,
) -> list[TensorPlan]:
    """Plans every tensor, in the order given.

    Args:
      tensors: name, row-major shape and format of each.
      metadata: the model's GGUF metadata.
      preset: from `presets.find_preset`.
      rules: the first rule that matches decides; else the preset does.
      importance: whether an importance matrix will be used; some presets then choose differently.
      floats_to_f32: tensors that are never quantized become f32 (for sources that hold them in 16 bits).

    Raises Error for a rule that matches no tensor.
    """
    facts = presets.facts_of(metadata, [t.name for t in tensors], importance)
    totals = {"attn_v": sum(presets.role_of(t.name) == "attn_v" for t in tensors)}
    counters: dict[str, int] = {}
    unused = set(rules)
    plans: dict[str, TensorPlan] = {}
    for t in sorted(tensors, key=lambda t: layer_order(t.name)):
        kept = presets.kept_because(t.name, t.shape)
        if kept or t.format in _OTHER_BYTES:
            target = "f32" if floats_to_f32 and t.format in FLOATS else t.format
            plans[t.name] = TensorPlan(t.name, t.shape, t.format, target, kept or "integers", kept=True)
            continue
        role = presets.role_of(t.name)
        i = counters.get(role, 0)
        counters[role] = i + 1
        if facts.experts > 1 and role.startswith("ffn_"):
            i = _layer_of(t.name, facts.layers)
        spot = presets.Spot(
            facts,
            i,
            totals.get(role, facts.layers),
            t.shape[-1] % _block(preset.default) != 0,
            stacked=len(t.shape) > 2 and t.shape[-3] > 1,
        )
        wanted, reason = presets.choose(preset, role, spot), "preset"
        rule = next((r for r in rules if r.pattern.search(t.name)), None)
        if rule:
            unused.discard(rule)
            wanted, reason = t.format if rule.format == "keep" else rule.format, f"rule {rule}"
        target = presets.fallback(wanted, t.shape[-1], _block)
        plans[t.name] = TensorPlan(
            t.name, t.shape, t.format, target, reason, wanted=None if target == wanted else wanted
        )
    for r in rules:
        if r in unused:
            raise Error(f"rule '{r}' decides no tensor: none matches, or earlier rules did")
    return [plans[t.name] for t in tensors]


def as_f16(plans: Sequence[TensorPlan]) -> list[TensorPlan]:
    """The same model under the preset f16."""
    return [p if p.kept else replace(p, target="f16") for p in plans]


def _block(format: str) -> int:
    return int(lookup(format).block)


def layer_order(name: str) -> tuple[int, bytes]:
    """Sort key: by layer, then by name. llama.cpp counts the tensors of a role, and writes files, in this order."""
    m = re.match(r"blk\.(\d+)\.", name)
    return (int(m[1]) if m else -1, name.encode())


def _layer_of(name: str, layers: int) -> int:
    layer = layer_order(name)[0]
    if not 0 <= layer < layers:
        raise Error(f"tensor '{name}': cannot tell which of {layers} layers it belongs to")
    return layer
