"""Every public name that a released version had is still found where it was, or an error says what took its place."""

import importlib
import json
import warnings
from pathlib import Path

import pytest

NAMES = {
    (file.parent.name, module): names
    for file in sorted(Path(__file__).parent.glob("*/public_names.json"))
    for module, names in json.loads(file.read_text()).items()
}


@pytest.mark.parametrize(("version", "module"), NAMES, ids=map("-".join, NAMES))
def test_public_names_of_a_module_are_found(version, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = importlib.import_module(module)
        lost = {name: message for name in NAMES[version, module] if (message := _lost(found, name))}
    assert all("use " in message for message in lost.values()), lost


def _lost(module, name):
    """Return the message for a name that is no longer there; it names what to use in its place."""
    try:
        getattr(module, name)
    except AttributeError as error:
        return str(error)
    return None
