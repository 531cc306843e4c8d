"""Checkpoint files: a tree of tensors and plain values in one safetensors file, so that reading one runs no code.

The tensors are stored under numbers; the tree, as JSON, and a SHA-256 of both stand in the file's header. A file is
written beside its place and renamed: a kill leaves the old one or the new one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from causcell._internal.files import new_file
from causcell.errors import RunError

_TREE, _DIGEST = "tree", "sha256"

_REMEDY = "put a copy of it in its place, or begin the run again with overwrite=True"


def write_checkpoint(tree: dict[str, Any], path: Path) -> None:
    """Write a tree of dicts, lists, tuples, tensors, numbers, texts and None; a file that is there is replaced.

    Raises
    ------
    RunError
        The tree holds anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_encode(tree, tensors, "checkpoint"))
    with new_file(path, overwrite=True) as staging:
        save_file(tensors, staging, {_TREE: text, _DIGEST: _compute_digest(text, tensors)})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of `write_checkpoint`, its tensors on the CPU. Nothing is unpickled.

    Raises
    ------
    RunError
        The file is missing, damaged, or of another form.
    """
    if not path.is_file():
        raise RunError(f"{path} is missing; {_REMEDY}")
    try:
        with safe_open(path, framework="pt") as file:  # checks the header against the file's size
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        text = header[_TREE]
        if header[_DIGEST] != _compute_digest(text, tensors):
            raise ValueError("it is not what was written")
        tree = _decode(json.loads(text), tensors)
        if not isinstance(tree, dict):
            raise ValueError("its tree is no table")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {str(error)[:200]}); {_REMEDY}") from error
    return tree


def _encode(value: Any, tensors: dict[str, torch.Tensor], place: str) -> Any:
    """Turn a value into JSON's, and put its tensors aside."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), tensors, place)
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):  # with keys of any plain type: optimisers number their parameters
        return {"table": [[_encode_key(k, place), _encode(v, tensors, f"{place}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_encode(each, tensors, f"{place}[{i}]") for i, each in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise RunError(
        f"{place} is a {type(value).__name__}, which no checkpoint can hold: state of callbacks and plans has to be of "
        "tensors, numbers, texts, lists and dicts"
    )


def _encode_key(key: Any, place: str) -> Any:
    if key is None or isinstance(key, bool | int | float | str):
        return key
    raise RunError(f"{place} has the key {key!r}, which no checkpoint can hold: keys have to be texts or numbers")


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "table":
        return {key: _decode(each, tensors) for key, each in content}
    if kind == "tuple":
        return tuple(_decode(each, tensors) for each in content)
    raise ValueError(f"{kind!r} is unknown")


def _compute_digest(text: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors, key=int):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
