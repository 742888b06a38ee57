"""The drives that mhvtl plays, as they were measured: what each of them answers and refuses."""

from __future__ import annotations

from dataclasses import dataclass

U_KAD, A_KAD = 0, 1
NO_LIMITS = (0, 0)


@dataclass(frozen=True, slots=True)
class Model:
    """One of mhvtl's drives.

    ``empty`` and ``loaded`` are byte 4 and the descriptor of page 0010h without and with a
    cartridge that can be encrypted; "" for a drive that knows no encryption. ``limits`` are the
    longest U-KAD and A-KAD that it takes, which may differ from what ``empty`` says.
    """

    name: str
    vendor: str
    product: str
    revision: str
    empty: str = ""
    loaded: str = ""
    limits: tuple[int, int] = NO_LIMITS
    kad_without_encryption: bool = False
    kad_must_match: bool = False
    first_block_is_plain: bool = False

    @property
    def encrypts(self) -> bool:
        """Whether it knows of encryption."""
        return bool(self.empty)

    def capabilities(self, *, mounted: bool, suits: bool) -> bytes:
        """Return page 0010h; ``suits`` says whether the cartridge can be encrypted."""
        one = bytes.fromhex(self.loaded if mounted and suits else self.empty)
        return bytes.fromhex("0010 0028") + one[:1] + bytes(15) + one[1:]


_LTO_EMPTY = "01 01000014 3a100020 000c0020 0900000000000000 00010014"
_LTO_LOADED = "01 01000014 ba100020 000c0020 0900000000000000 00010014"
_LTO_LIMITS = (32, 12)

TD3 = Model("td3", "IBM", "ULT3580-TD3", "93G0")
TD5 = Model("td5", "IBM", "ULT3580-TD5", "D8D5", _LTO_EMPTY, _LTO_LOADED, _LTO_LIMITS)
HP6 = Model("hp6", "HP", "Ultrium 6-SCSI", "35GD", _LTO_EMPTY, _LTO_LOADED, _LTO_LIMITS)
T10000B = Model(
    "t10000b", "STK", "T10000B", "1.44",
    "01 01000014 3a100020 000c0020 0100000000000000 00010014",
    "01 01000014 ba10001e 00000020 4300000000000000 80010010",
    (30, 0), kad_without_encryption=True, kad_must_match=True,
)  # fmt: skip
E06 = Model(
    "03592e06", "IBM", "03592E06", "26E8",
    "00 01000014 3a100020 000c0020 0100000000000000 00010014",
    "00 01000014 ba100000 000c0020 0f00000000000000 00010014",
    (0, 12), first_block_is_plain=True,
)  # fmt: skip

MODELS = (TD3, TD5, HP6, T10000B, E06)


def model_of(vendor: str, product: str) -> Model | None:
    """Return the model that a drive of mhvtl's behaves as, by INQUIRY; None if it was not measured.

    All LTO drives from generation 4 on answer byte for byte the same, whoever makes them.
    """
    if "03592" in product:
        return E06 if product == E06.product else None
    if product.startswith("T10000"):
        return T10000B if product == T10000B.product else None
    generation = _lto_generation(product)
    if generation is None:
        return None
    if generation < 4:
        return TD3
    return HP6 if vendor == HP6.vendor else TD5


def _lto_generation(product: str) -> int | None:
    for head in ("ULT3580-TD", "ULT3580-HH", "Ultrium "):
        if product.startswith(head) and product[len(head) : len(head) + 1].isdigit():
            return int(product[len(head)])
    return None
