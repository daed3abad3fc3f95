"""What every test runs under."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.objects import server

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported

# the same examples on every run, and no deadline: compilation and a busy machine would trip it
settings.register_profile("rsir", deadline=None, derandomize=True)
settings.load_profile("rsir")


@pytest.fixture(autouse=True, scope="session")
def _uninitialised_memory_is_nan() -> Iterator[None]:
    """A place of an output that nobody wrote shows as nan, and not now and then as a plausible number."""

    def filled(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def wrapper(*arguments: Any, **options: Any) -> torch.Tensor:
            tensor = make(*arguments, **options)
            if tensor.is_floating_point():
                with torch.no_grad():
                    tensor.fill_(float("nan"))
            return tensor

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", filled(torch.empty))
        patch.setattr(torch, "empty_like", filled(torch.empty_like))
        yield


@pytest.fixture(scope="session")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto", reason="a server of S3 to test with: pip install 'moto[s3]' flask flask-cors")
    pytest.importorskip("flask_cors", reason="moto's server mode: pip install flask flask-cors")
    with server.serving(tmp_path_factory.mktemp("s3") / "log") as address:
        yield address


@pytest.fixture
def s3(_s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server of S3 with a bucket, which the process is told of."""
    for name, value in server.environment(_s3).items():
        monkeypatch.setenv(name, value)
    return _s3
