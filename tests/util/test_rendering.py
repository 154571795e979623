# SPDX-License-Identifier: LGPL-2.1-or-later

"""A result gets its text from whoever registered for it, which is imported when it is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drgn_zonedev.util.rendering import rendered_by, text_of


def test_module_that_renders_is_imported_when_something_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_result.py").write_text("class Result: pass\n")
    (tmp_path / "some_renderer.py").write_text(
        "from drgn_zonedev.util.rendering import result_text\n"
        "from some_result import Result\n"
        "result_text.register(Result, lambda result: 'as text')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from some_result import Result  # type: ignore[import-not-found]

    rendered_by("some_renderer")
    assert "some_renderer" not in sys.modules
    assert text_of(Result()) == "as text"
    assert "some_renderer" in sys.modules


def test_what_has_no_text_says_so() -> None:
    with pytest.raises(TypeError, match="complex has no renderer"):
        text_of(1j)
