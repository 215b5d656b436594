"""Counters of a server in Prometheus' text format."""

import threading
from bisect import bisect_left
from collections import Counter

from fastbert.serve.queue import BatchQueue

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Requests by path and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def count(self, path: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[path, status] += 1
            self._buckets.setdefault(path, [0] * (len(BUCKETS_S) + 1))[bisect_left(BUCKETS_S, seconds)] += 1
            self._seconds[path] += seconds  # type: ignore[assignment]

    def text(self, queue: BatchQueue) -> str:
        waiting_requests, waiting_tokens = queue.waiting
        lines = ["# TYPE fastbert_requests_total counter"]
        with self._lock:
            for (path, status), count in sorted(self._requests.items()):
                lines.append(f'fastbert_requests_total{{path="{path}",status="{status}"}} {count}')
            lines.append("# TYPE fastbert_request_seconds histogram")
            for path, counts in sorted(self._buckets.items()):
                total = 0
                for limit, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                    total += count
                    lines.append(f'fastbert_request_seconds_bucket{{path="{path}",le="{limit}"}} {total}')
                lines.append(f'fastbert_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}')
                lines.append(f'fastbert_request_seconds_count{{path="{path}"}} {total}')
        for name, kind, value in (
            ("waiting_requests", "gauge", waiting_requests),
            ("waiting_tokens", "gauge", waiting_tokens),
            ("batches_total", "counter", queue.batches),
            ("tokens_total", "counter", queue.tokens),
            ("cancelled_total", "counter", queue.cancelled),
            ("busy_seconds_total", "counter", round(queue.busy_s, 6)),
        ):
            lines += [f"# TYPE fastbert_{name} {kind}", f"fastbert_{name} {value}"]
        return "\n".join(lines) + "\n"
