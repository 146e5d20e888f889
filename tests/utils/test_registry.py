"""Registries: registration, look-up, and what they say about unknown names."""

import pytest

from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry, locate


def test_registration_as_decorator_and_as_call():
    registry = Registry("THING")

    @registry.register()
    class First:
        pass

    def second():
        pass

    assert registry.register(second) is second
    assert registry.get("First") is First and registry.get("second") is second
    assert "First" in registry and "Other" not in registry
    assert [name for name, _ in registry] == ["First", "second"]
    assert "First" in repr(registry) and "THING" in repr(registry)


def test_duplicates_are_rejected():
    registry = Registry("THING")
    registry.register(dict)
    with pytest.raises(AssertionError, match="'dict' was already registered in 'THING' registry!"):
        registry.register(dict)


def test_unknown_names_say_what_is_near_or_there():
    registry = Registry("ENCODER")
    registry.register(type("UpDownEncoder", (), {}))
    with pytest.raises(KeyError) as caught:
        registry.get("UpdownEncoder")
    assert str(caught.value) == (
        "No object named 'UpdownEncoder' found in 'ENCODER' registry; did you mean 'UpDownEncoder'?"
    )
    assert isinstance(caught.value, UserError)
    with pytest.raises(KeyError, match="Registered: UpDownEncoder"):
        registry.get("")
    with pytest.raises(KeyError, match="nothing yet"):
        Registry("EMPTY").get("x")


def test_dotted_names_reach_classes_that_are_not_registered(tmp_path, monkeypatch):
    (tmp_path / "my_parts_for_registry.py").write_text(
        "class Mine:\n    class Inner:\n        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("PART")
    assert registry.get("my_parts_for_registry.Mine").__name__ == "Mine"
    assert locate("my_parts_for_registry.Mine.Inner").__name__ == "Inner"
    for wrong in ("my_parts_for_registry.Nope", "no_such_package.Mine", "a..b", "a.1b"):
        with pytest.raises(KeyError, match="importable"):
            registry.get(wrong)


def test_an_error_inside_a_named_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        locate("broken_part.Thing")
