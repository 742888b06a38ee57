"""Makes the vectors in tests/vectors/envelope again: python -m tests.envelope.generate_vectors.

keys.json is the only input; it was made once. The same files come out every time.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING

from . import VECTORS, cases_malformed, cases_refused, cases_success

if TYPE_CHECKING:
    from .cases import Case

CASES = VECTORS / "cases"


def all_cases() -> list[Case]:
    """Return every case, in the order in which they are explained."""
    return list(chain(cases_success.cases(), cases_refused.cases(), cases_malformed.cases()))


def files() -> dict[str, str]:
    """Return the text of every case's file, by its name."""
    made = all_cases()
    found = {
        f"{case.name}.json": json.dumps(case.document(), indent=1, ensure_ascii=True) + "\n"
        for case in made
    }
    assert len(found) == len(made), "two cases have one name"
    return found


def main() -> None:
    """Write all files, and remove what no case is called any more."""
    CASES.mkdir(exist_ok=True)
    made = files()
    for path in CASES.iterdir():
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (CASES / name).write_text(content, encoding="ascii")
    print(f"{len(made)} cases in {CASES}")


if __name__ == "__main__":
    main()
