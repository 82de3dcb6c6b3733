"""The public names of the client: listed, sorted, few, and each with a sentence of its own."""

import inspect
from types import ModuleType

import turnwire_client

NAMES_MAX = 20


def problems(module: ModuleType) -> list[str]:
    names = list(module.__all__)
    found = [f"{len(names)} names, more than {NAMES_MAX}"] if len(names) > NAMES_MAX else []
    found += [] if names == sorted(names) else ["not sorted"]
    for name in names:
        value = getattr(module, name, None)
        if value is None:
            found.append(f"{name} does not exist")
        elif not isinstance(value, ModuleType) and not _own_doc(value):
            found.append(f"{name} is not documented")
    public = [name for name in vars(module) if not name.startswith("_") and not inspect.ismodule(getattr(module, name))]
    return found + [f"{name} is public and not listed" for name in sorted(set(public) - set(names))]


def _own_doc(value: object) -> str:
    """The docstring that a class or function was given, not one that it inherits or that a dataclass makes up."""
    doc = vars(value).get("__doc__") if hasattr(value, "__dict__") else None
    return "" if not doc or doc.startswith(f"{getattr(value, '__name__', '')}(") else doc


def test_public_names() -> None:
    assert problems(turnwire_client) == []


def test_gate_fails() -> None:
    class Silent:
        pass

    module = ModuleType("seeded")
    vars(module).update(Silent=Silent, loud=len, __all__=["missing", "Silent", *("loud" for _ in range(NAMES_MAX))])
    assert problems(module)[:4] == [
        f"{NAMES_MAX + 2} names, more than {NAMES_MAX}",
        "not sorted",
        "missing does not exist",
        "Silent is not documented",
    ]
    module.__all__ = []
    assert problems(module) == ["Silent is public and not listed", "loud is public and not listed"]
