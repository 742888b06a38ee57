"""Who encrypts: the policy, then the drive's ability; in doubt software."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.drivers.choose import Choice, choose
from hwkm.drivers.software import SoftwareDriver
from hwkm.errors import PolicyError
from hwkm.keys import Cipher, VolumeKey
from hwkm.policy import Delivery
from hwkm.scsi.ability import EncryptionAbility
from tests.drivers.bench import KEY, KEY_ID, VOLUME, Bench

if TYPE_CHECKING:
    from hwkm.drivers.base import EncryptionDriver

CAN = EncryptionAbility(True, "it can")
CANNOT = EncryptionAbility(False, "it is too old")


@pytest.mark.parametrize("ability", [CAN, CANNOT, None])
def test_software_is_software(ability: EncryptionAbility | None) -> None:
    expected = Choice(Delivery.SOFTWARE, "the policy wants software encryption")
    assert choose(Delivery.SOFTWARE, ability) == expected


def test_auto() -> None:
    assert choose(None, CAN) == Choice(Delivery.DRIVE, "the drive: it can")
    assert choose(None, CANNOT) == Choice(Delivery.SOFTWARE, "the drive: it is too old")
    assert choose(None, None) == Choice(Delivery.SOFTWARE, "no drive is named")


def test_the_drive_or_nothing() -> None:
    expected = Choice(Delivery.DRIVE, "the policy wants it; the drive: it can")
    assert choose(Delivery.DRIVE, CAN) == expected
    with pytest.raises(PolicyError, match="the drive: it is too old") as caught:
        choose(Delivery.DRIVE, CANNOT)
    assert "hwkm drive probe" in caught.value.hint
    with pytest.raises(PolicyError, match="no drive is named"):
        choose(Delivery.DRIVE, None)


def test_both_drivers_have_one_interface(bench: Bench) -> None:
    xts = VolumeKey(Cipher.AES_256_XTS, bytes(range(64)))
    drivers: list[tuple[EncryptionDriver, VolumeKey, VolumeKey]] = [
        (SoftwareDriver(), xts, KEY),
        (bench.driver, KEY, xts),
    ]
    for driver, own, other in drivers:
        assert driver.ability().can_encrypt
        report = driver.load(own, KEY_ID, VOLUME)
        assert (report is not None) is (driver.delivery is Delivery.DRIVE)
        with pytest.raises(PolicyError, match="not for delivery"):
            driver.load(other, KEY_ID, VOLUME)
