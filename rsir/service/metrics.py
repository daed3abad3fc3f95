"""What a service counts, as Prometheus reads it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from rsir.service.served import Served

__all__ = ["Metrics"]

_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """Requests by path and status, and how long they took."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._places: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def add(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests[path, status] += 1
        places = self._places.setdefault(path, [0] * (len(_BOUNDS) + 1))
        places[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[path] += seconds  # type: ignore[assignment]

    def text(self, served: Served) -> str:
        """The exposition format of Prometheus."""
        lines = ["# TYPE rsir_requests_total counter"]
        for (path, status), count in sorted(self._requests.items()):
            lines.append(f'rsir_requests_total{{path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE rsir_request_seconds histogram")
        for path, places in sorted(self._places.items()):
            total = 0
            for bound, count in zip((*_BOUNDS, "+Inf"), places, strict=True):
                total += count
                lines.append(f'rsir_request_seconds_bucket{{path="{path}",le="{bound}"}} {total}')
            lines.append(f'rsir_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            lines.append(f'rsir_request_seconds_count{{path="{path}"}} {total}')
        for name, kind, value in (
            ("reloads_total", "counter", served.reloads),
            ("reload_failures_total", "counter", served.failures),
            ("loaded_timestamp_seconds", "gauge", round(served.loaded, 3)),
            ("round", "gauge", served.run.best),
            ("items", "gauge", served.run.data.num_items),
            ("users", "gauge", served.run.data.num_real),
        ):
            lines += [f"# TYPE rsir_{name} {kind}", f"rsir_{name} {value}"]
        return "\n".join(lines) + "\n"
