"""Check of a Triton configuration: it may say how a graph is served, and name no code."""

from __future__ import annotations

import re

from causcell.errors import CorruptFileError, format_list

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\\n]++|\\.)*+"|'(?:[^'\\\n]++|\\.)*+')|(?P<word>[A-Za-z_]\w*)|(?P<other>[:#])"""
)
_BACKENDS = ("onnxruntime", "pytorch")

_FIELDS = frozenset(
    {
        "name",
        "backend",
        "max_batch_size",
        "input",
        "output",
        "data_type",
        "dims",
        "version_policy",
        "latest",
        "num_versions",
        "instance_group",
        "count",
        "kind",
        "gpus",
        "dynamic_batching",
        "max_queue_delay_microseconds",
        "preferred_batch_size",
        "default_queue_policy",
        "timeout_action",
        "default_timeout_microseconds",
        "allow_timeout_override",
        "max_queue_size",
        "preserve_ordering",
        "model_warmup",
        "batch_size",
        "inputs",
        "key",
        "value",
        "zero_data",
        "random_data",
        "parameters",
        "string_value",
        "optimization",
        "execution_accelerators",
        "cpu_execution_accelerator",
        "gpu_execution_accelerator",
        "priority",
        "rate_limiter",
        "response_cache",
        "enable",
        "true",
        "false",
    }
)
"""Fields that a configuration may have; not those that name files, libraries or agents."""

_VALUES = re.compile(r"TYPE_\w+|KIND_\w+|PRIORITY_\w+|REJECT|DELAY")


def check_config(content: bytes, source: str) -> None:
    """Refuse a configuration that names another backend than the graphs', a library or another file.

    Parameters
    ----------
    content
        Bytes of ``config.pbtxt``.
    source
        Name of the file, for messages.

    Raises
    ------
    CorruptFileError
        It is no configuration that export writes.

    Examples
    --------
    >>> check_config(b'name: "scm" backend: "onnxruntime" max_batch_size: 8', "config.pbtxt")
    >>> check_config(b'name: "scm" backend: "python"', "config.pbtxt")
    Traceback (most recent call last):
        ...
    causcell.errors.CorruptFileError: config.pbtxt does not name one backend, 'onnxruntime' or 'pytorch'; export again
    """
    tokens = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(content.decode(errors="replace"))]
    foreign = {
        word
        for kind, word in tokens
        if (kind == "word" and word not in _FIELDS and not _VALUES.fullmatch(word)) or word == "#"
    }
    if foreign:
        raise CorruptFileError(
            f"{source} has {format_list(sorted(foreign))}, which export does not write: such fields make a server load "
            "other files; export again"
        )
    backends = [tokens[place + 1 : place + 4] for place, token in enumerate(tokens) if token == ("word", "backend")]
    named = [
        colon == ("other", ":") and value[1].strip("'\"") in _BACKENDS and kind != "text"
        for colon, value, (kind, _) in (each + [("end", "")] * (3 - len(each)) for each in backends)
    ]
    if named != [True]:
        raise CorruptFileError(f"{source} does not name one backend, 'onnxruntime' or 'pytorch'; export again")
