from __future__ import annotations

import gc

import pytest

from lwfm._common.imports import collection_paused


@pytest.mark.parametrize("before", [True, False], ids=["enabled", "disabled"])
def test_collection_is_as_before_after_an_error(before: bool) -> None:
    found = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ImportError), collection_paused():
            raise ImportError
        assert gc.isenabled() == before
    finally:
        (gc.enable if found else gc.disable)()
