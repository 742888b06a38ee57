"""How long things took: a histogram of fixed size, however many they are."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

BOUNDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
)
"""Upper bounds of all buckets but the last, in seconds. A request is answered within 20."""


def _empty() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


@dataclass(slots=True)
class Latency:
    """Counts by bucket, and the sum of all, in seconds."""

    counts: list[int] = field(default_factory=_empty)
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """Return how many took at most as long as each bound, and at last how many in all."""
        return list(accumulate(self.counts))

    def quantile(self, share: float) -> float | None:
        """Estimate what this share of all took at most, evenly spread in its bucket; as PromQL."""
        wanted = share * self.count
        below = 0
        for bucket, count in enumerate(self.counts):
            if count and below + count >= wanted:
                low = BOUNDS[bucket - 1] if bucket else 0.0
                high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
                return low + max(high - low, 0.0) * (wanted - below) / count
            below += count
        return None

    def document(self) -> dict[str, Any]:
        """Return it as it is shown."""
        shown = {name: self.quantile(share) for name, share in (("p50", 0.5), ("p99", 0.99))}
        return {
            "count": self.count,
            **{f"{name}_ms": value and round(1000 * value, 3) for name, value in shown.items()},
        }
