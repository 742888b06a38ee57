"""The kinds of drives that can be emulated: who they say they are, and what they can do.

Values are those of published manuals and of captured pages where there are any. Where none is
known the profile takes the careful value (an A-KAD of twelve bytes, the plain key format only).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

AES_256_GCM = 0x0001_0014
AES_256_CCM = 0x0001_0010
ORACLE_CCM = 0x8001_0010
"""Oracle's own code for AES-256-CCM with a tag of 16 bytes."""

KEY_BYTES = 32
M_KAD_BYTES = 64

PLAIN = 0x00
WRAPPED = 0x02

STANDARD_PAGES = (0x0000, 0x0001, 0x0010, 0x0011, 0x0012, 0x0020, 0x0021)
RANDOM_NUMBER = 0x0030
WRAPPING_KEY = 0x0031


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm descriptor of page 0010h, by the standard's names of its fields.

    ``capable`` is the byte with MAC_C, DED_C, DECRYPT_C and ENCRYPT_C, without AVFMV;
    ``nonce_c``, ``dkad_c``, ``eemc_c`` and ``rdmc_c`` are values of these fields.
    """

    index: int = 1
    code: int = AES_256_GCM
    capable: int = 0x3A
    current_position: bool = True
    nonce_c: int = 1
    kadf_c: bool = False
    vcelb_c: bool = True
    ukadf: bool = False
    akadf: bool = False
    max_ukad: int = 32
    max_akad: int = 12
    dkad_c: int = 0
    eemc_c: int = 0
    rdmc_c: int = 4
    earem: bool = True

    def pack(self, *, mounted: bool, writable: bool) -> bytes:
        """Return the descriptor, 24 bytes: ``mounted`` is AVFMV, ``writable`` decides AVFCLP."""
        position = (0b10 if writable else 0b01) if self.current_position and mounted else 0
        flags = position << 6 | self.nonce_c << 4 | self.kadf_c << 3 | self.vcelb_c << 2
        flags |= self.ukadf << 1 | self.akadf
        decryption = self.dkad_c << 6 | self.eemc_c << 4 | self.rdmc_c << 1 | self.earem
        head = bytes((self.index, 0, 0, 0x14, mounted << 7 | self.capable, flags))
        sizes = self.max_ukad.to_bytes(2) + self.max_akad.to_bytes(2) + KEY_BYTES.to_bytes(2)
        return head + sizes + bytes((decryption,)) + bytes(7) + self.code.to_bytes(4)


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of drive.

    ``generation`` and ``family`` say which cartridges it takes. ``empty`` replaces
    ``algorithms`` while no cartridge is loaded. ``extdecc`` and ``cfg_p`` are fields of page 0010h,
    ``control`` is PARAMETERS CONTROL of page 0020h.
    """

    name: str
    vendor: str
    product: str
    revision: str
    serial: str
    family: str
    generation: int
    algorithms: tuple[Algorithm, ...] = (Algorithm(),)
    empty: tuple[Algorithm, ...] = ()
    extdecc: int = 0
    cfg_p: int = 1
    control: int = 1
    pages: tuple[int, ...] = STANDARD_PAGES
    key_formats: tuple[int, ...] = (PLAIN,)
    blank_is_an_error: bool = False
    fills_kads: bool = False
    kad_must_match: bool = False
    label_is_plain: bool = False
    method: int | None = None
    refuses_ckod: bool = False
    one_kad: bool = False
    late_capabilities: bool = False

    @property
    def encrypts(self) -> bool:
        """Whether the drive knows of encryption at all."""
        return bool(self.algorithms)

    @property
    def externally_managed(self) -> bool:
        """Whether hosts may not set keys (CFG_P)."""
        return self.cfg_p == 0b10


_WITH_RANDOM = (*STANDARD_PAGES, RANDOM_NUMBER)
_WITH_WRAPPING = (*STANDARD_PAGES, RANDOM_NUMBER, WRAPPING_KEY)
_APPLICATION, _LIBRARY = 0x03, 0x01
_APPLICATION_3592 = 0x50

# The two descriptors of a captured HP LTO-6 page; the second one's KADs have fixed lengths.
_HP_GCM = Algorithm(capable=0x0A, nonce_c=0, kadf_c=True, max_akad=60, dkad_c=3, eemc_c=2, rdmc_c=6)
_HP_CCM = replace(_HP_GCM, index=2, code=AES_256_CCM, ukadf=True, akadf=True, eemc_c=1, rdmc_c=4)
# A 3592's and a T10000's pages say other things with a cartridge in than without.
_VAGUE = Algorithm(current_position=False, vcelb_c=False, rdmc_c=0)

_IBM_LTO_8 = Profile(
    "ibm-lto-8", "IBM", "ULT3580-TD8", "N9M1", "10WT0A1B2C", "lto", 8,
    pages=_WITH_WRAPPING, method=_APPLICATION,
)  # fmt: skip
_HP_LTO_6 = Profile(
    "hp-lto-6", "HP", "Ultrium 6-SCSI", "35GD", "HU1234567X", "lto", 6,
    algorithms=(_HP_GCM, _HP_CCM), extdecc=2, pages=_WITH_WRAPPING, key_formats=(PLAIN, WRAPPED),
)  # fmt: skip

_PROFILES = (
    Profile(
        "ibm-lto-3", "IBM", "ULT3580-TD3", "93G0", "10WT000003", "lto", 3, algorithms=(),
    ),
    Profile(
        "ibm-lto-5", "IBM", "ULT3580-TD5", "D8D5", "10WT000005", "lto", 5,
        pages=_WITH_RANDOM, method=_APPLICATION,
    ),
    _IBM_LTO_8,
    Profile(
        "hp-lto-4", "HP", "Ultrium 4-SCSI", "H61W", "HU17450K4D", "lto", 4,
        extdecc=2, blank_is_an_error=True,
    ),
    _HP_LTO_6,
    replace(
        _HP_LTO_6, name="hpe-lto-9", vendor="HPE", product="Ultrium 9-SCSI", revision="S2S1",
        serial="8031BDC7DB", generation=9, algorithms=(_HP_GCM,),
    ),
    Profile(
        "quantum-lto-4", "QUANTUM", "ULTRIUM 4", "W65F", "QT10000004", "lto", 4,
        algorithms=(Algorithm(index=0, eemc_c=2),), pages=_WITH_WRAPPING, fills_kads=True,
    ),
    Profile(
        "t10000", "STK", "T10000B", "1.44", "531000123456", "t10000", 2,
        algorithms=(replace(_VAGUE, code=ORACLE_CCM, max_ukad=30, max_akad=0, dkad_c=1, rdmc_c=1),),
        empty=(_VAGUE,), fills_kads=True, kad_must_match=True,
    ),
    Profile(
        "ibm-3592", "IBM", "03592E06", "26E8", "000001365092", "3592", 3,
        algorithms=(replace(_VAGUE, max_ukad=0, rdmc_c=7),), empty=(_VAGUE,), cfg_p=0,
        label_is_plain=True, method=_APPLICATION_3592,
    ),
    replace(
        _IBM_LTO_8, name="library-managed", serial="10WT0A1B2D", extdecc=2, cfg_p=2, control=3,
        method=_LIBRARY,
    ),
)  # fmt: skip

PROFILES = {profile.name: profile for profile in _PROFILES}
"""The kinds of drives, by name."""

QUIRKS = frozenset({"no-ckod", "one-kad", "padded-ukad", "late-capabilities"})
"""Peculiarities that some drives of a kind have and others have not:

``no-ckod`` refuses the bit CKOD though page 0012h offers it, ``one-kad`` refuses more than one
KAD, ``padded-ukad`` wants U-KADs of exactly the maximum length, and ``late-capabilities`` can't
give page 0010h while no cartridge is loaded.
"""


def profile_with(name: str, quirks: tuple[str, ...]) -> Profile:
    """Return a profile with some of :data:`QUIRKS`.

    :raises KeyError: if there is no such profile.
    """
    profile = PROFILES[name]
    if "padded-ukad" in quirks:
        padded = tuple(replace(one, ukadf=True) for one in profile.algorithms)
        profile = replace(profile, algorithms=padded)
    return replace(
        profile,
        refuses_ckod="no-ckod" in quirks,
        one_kad="one-kad" in quirks,
        late_capabilities="late-capabilities" in quirks,
    )
