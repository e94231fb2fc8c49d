"""Output formats, one module per ecosystem. `gguf` is the first."""

from edgequant._core import Error

TARGETS = ("gguf",)


def parse_target(text: str) -> tuple[str, str]:
    """('gguf', 'q4_k_m') of 'gguf:q4_k_m' or 'q4_k_m'. Raises Error for an unknown target."""
    target, colon, preset = text.rpartition(":")
    if not colon:
        return "gguf", preset
    if target.lower() not in TARGETS:
        raise Error(f"unknown target '{target}': known: {', '.join(TARGETS)}")
    return target.lower(), preset
