"""The envelope format: its vectors and their generator, properties, limits, and the document.

The vectors in ``tests/vectors/envelope`` are made by ``python -m tests.envelope.generate_vectors``
out of ``wire.py``, which follows docs/envelope-format.md and uses nothing of hwkm's.
"""

from __future__ import annotations

from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors" / "envelope"
DOCUMENT = Path(__file__).parents[2] / "docs" / "envelope-format.md"
DECODER = Path(__file__).parents[2] / "docs" / "open_envelope.py"
