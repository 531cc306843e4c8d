"""Every public name that a released version had is still found where it was, or the change log says that it went."""

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
        missing = [name for name in NAMES[version, module] if not hasattr(found, name)]
    assert not missing
