"""A session on a token: opened once, dropped after an error, opened again at the next use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pkcs11
import pytest
from pkcs11 import ObjectClass

from hwkm.envelope import Scheme
from hwkm.errors import TokenError
from hwkm.token import master, p11
from hwkm.token.master import NoMasterKeyError
from hwkm.token.module import loaded
from tests.modules import LIBRARIES, p11kit, softhsm

from .sites import KEY_ID, Site, decrypt_rubbish, login, make_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.token.session import TokenSession

    from .spy import Spied


@pytest.fixture
def opened(site: Site) -> Iterator[TokenSession]:
    """A session on a token with one master key in it."""
    with site.session() as token:
        master.generate(token, Scheme.GCM, KEY_ID, "key")
        yield token


# --- one login, many uses ---


def test_what_a_token_says_of_itself(any_site: Site) -> None:
    with any_site.session() as token:
        info = token.info
    assert (info.label, info.serial) == (any_site.token.token_label, any_site.token.serial)
    assert info.initialized


def test_nothing_is_asked_of_the_token_before_the_first_use(spied: Spied) -> None:
    with spied.site.session():
        pass
    assert spied.calls("C_Initialize") == 0


def test_one_login_serves_every_use_until_the_end(spied: Spied) -> None:
    with spied.site.session() as token:
        for _ in range(5):
            with token.use("asking for random bytes") as session:
                assert len(session.generate_random(256)) == 32
    calls = {name: spied.calls(name) for name in ("C_Initialize", "C_Login", "C_Finalize")}
    assert calls == {"C_Initialize": 1, "C_Login": 1, "C_Finalize": 1}


def test_closing_twice_is_allowed_and_a_closed_session_opens_again(spied: Spied) -> None:
    token = spied.site.session()
    assert token.info.initialized
    token.close()
    token.close()
    assert token.info.initialized
    token.close()
    assert spied.calls("C_Login") == 2


def test_keys_are_found_by_class_and_id_and_label(any_site: Site) -> None:
    with any_site.session() as token:
        try:
            master.generate(token, Scheme.OAEP, KEY_ID, "right")
            with token.use("looking") as session:
                found = master.find_one(session, Scheme.OAEP, KEY_ID, "right")
                assert (found.id, found.label) == (KEY_ID, "right")
                assert p11.find(session, ObjectClass.SECRET_KEY, id=KEY_ID) == []
                with pytest.raises(NoMasterKeyError, match="no master key 0001ff"):
                    master.find_one(session, Scheme.OAEP, KEY_ID, "wrong")
                with pytest.raises(NoMasterKeyError, match="no master key 0001fe"):
                    master.find_one(session, Scheme.OAEP, b"\x00\x01\xfe")
        finally:
            master.remove(token, Scheme.OAEP, KEY_ID)


def test_two_keys_with_one_id_are_told_apart_by_label_or_refused(opened: TokenSession) -> None:
    master.generate(opened, Scheme.GCM, KEY_ID, "other")
    with opened.use("looking") as session:
        assert master.find_one(session, Scheme.GCM, KEY_ID, "other").label == "other"
        with pytest.raises(TokenError, match="holds 2 master keys 0001ff"):
            master.find_one(session, Scheme.GCM, KEY_ID)


# --- errors ---


def fail(token: TokenSession) -> str:
    """Make one call fail and return the error's text."""
    with pytest.raises(TokenError) as caught:
        decrypt_rubbish(token)
    return str(caught.value)


def test_an_error_is_in_words_with_name_and_number(opened: TokenSession) -> None:
    assert fail(opened) == (
        "decrypting rubbish failed: the module failed without saying why (CKR_GENERAL_ERROR, 0x5)"
    )


def test_after_an_error_the_module_is_unloaded_and_the_next_use_loads_it_again(
    spied: Spied,
) -> None:
    with spied.site.session() as token:
        master.generate(token, Scheme.GCM, KEY_ID, "key")
        fail(token)
        assert pkcs11._loaded == {}
        assert master.look_at(token, Scheme.GCM, KEY_ID).label == "key"
        fail(token)
        assert master.look_at(token, Scheme.GCM, KEY_ID).label == "key"
    assert spied.calls("C_Login") == spied.calls("C_Finalize") == 3


def test_the_tpm_and_the_others_work_again_after_a_failed_decryption(any_site: Site) -> None:
    # tpm2-pkcs11 answers every further call on that session with CKR_OPERATION_ACTIVE.
    with any_site.session() as token:
        try:
            master.generate(token, Scheme.OAEP, KEY_ID, "key")
            for _ in range(2):
                with pytest.raises(TokenError):
                    decrypt_rubbish(token, Scheme.OAEP)
                assert master.look_at(token, Scheme.OAEP, KEY_ID).label == "key"
        finally:
            master.remove(token, Scheme.OAEP, KEY_ID)


def test_an_error_of_the_callers_own_leaves_the_session_open(spied: Spied) -> None:
    with spied.site.session() as token:
        with pytest.raises(ZeroDivisionError), token.use("dividing"):
            raise ZeroDivisionError
        with pytest.raises(NoMasterKeyError), token.use("looking") as session:
            master.find_one(session, Scheme.GCM, KEY_ID)
        assert token.info.initialized
    assert spied.calls("C_Login") == 1


# --- a token that goes away and comes back ---


def test_a_key_handle_that_was_lost_is_said_in_words(site: Site, tmp_path: Path) -> None:
    with site.session() as token:
        master.generate(token, Scheme.GCM, KEY_ID, "key")
        with pytest.raises(TokenError, match=r"\(CKR_OBJECT_HANDLE_INVALID, 0x82\)"):
            use_key_while_it_goes(token, tmp_path)
        (tmp_path / "away").rename(tmp_path / "tokens")
        assert master.look_at(token, Scheme.GCM, KEY_ID).label == "key"


def use_key_while_it_goes(token: TokenSession, tmp_path: Path) -> None:
    with token.use("decrypting") as session:
        key = master.find_one(session, Scheme.GCM, KEY_ID)
        (tmp_path / "tokens").rename(tmp_path / "away")
        p11.gcm_decrypt(key, bytes(12), b"", bytes(40))


def test_a_token_that_went_away_is_not_taken_for_one_without_the_key(
    opened: TokenSession, tmp_path: Path
) -> None:
    (tmp_path / "tokens").rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(TokenError, match=r"\(CKR_GENERAL_ERROR, 0x5\)"):
            master.look_at(opened, Scheme.GCM, KEY_ID)
    (tmp_path / "away").rename(tmp_path / "tokens")
    assert master.look_at(opened, Scheme.GCM, KEY_ID).label == "key"


# python-pkcs11 says on standard error that it could not end a search.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_ends_and_comes_back(tmp_path: Path) -> None:
    with softhsm.running(tmp_path) as behind:
        with p11kit.serving(behind, tmp_path) as token:
            session = make_site(token, tmp_path).session()
            master.generate(session, Scheme.HMAC_KDF, KEY_ID, "key")
        with pytest.raises(TokenError, match=r"\(CKR_DEVICE_ERROR, 0x30\)"):
            master.look_at(session, Scheme.HMAC_KDF, KEY_ID)
        with pytest.raises(TokenError, match="no token behind"):
            master.look_at(session, Scheme.HMAC_KDF, KEY_ID)
        with p11kit.serving(behind, tmp_path):
            assert master.look_at(session, Scheme.HMAC_KDF, KEY_ID).label == "key"
            session.close()


# --- the URI ---


def error_of(site: Site) -> TokenError:
    with pytest.raises(TokenError) as caught:
        login(site)
    return caught.value


def test_a_uri_that_matches_nothing_names_the_tokens_seen(site: Site) -> None:
    second = softhsm.add_token(site.token.env, "second")
    error = error_of(site.with_uri(token="absent", serial=None))
    assert "no token behind" in str(error)
    assert f"'{site.token.token_label}'" in error.hint
    assert f"'{second.token_label}'" in error.hint


@pytest.mark.parametrize(
    "wrong", [{"serial": "00"}, {"manufacturer": "X"}, {"model": "X"}, {"slot_id": 2**40}]
)
def test_every_attribute_of_the_uri_counts(site: Site, wrong: dict[str, Any]) -> None:
    assert "no token behind" in str(error_of(site.with_uri(**wrong)))


def test_two_tokens_with_one_label_ask_for_the_serial(site: Site) -> None:
    softhsm.add_token(site.token.env, site.token.token_label)
    error = error_of(site.with_uri(serial=None))
    assert "2 tokens behind" in str(error)
    assert "serial=" in error.hint


def test_a_serial_chooses_between_two_tokens_with_one_label(site: Site) -> None:
    softhsm.add_token(site.token.env, site.token.token_label)
    with loaded(site.settings.module_path, site.settings.environment) as module:
        serials = [info.serial for info, _ in module.tokens() if info.initialized]
    assert len(set(serials)) == 2
    for serial in serials:
        with site.with_uri(serial=serial).session() as token:
            assert token.info.serial == serial


# --- the module ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.so", "there is no PKCS#11 module"),
        (".", "there is no PKCS#11 module"),
        ("text.so", "loading the PKCS#11 module"),
    ],
)
def test_a_module_that_is_none(site: Site, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "text.so").write_text("not a library")
    assert words in str(error_of(with_module(site, str(tmp_path / name))))


def test_a_library_that_is_no_pkcs11_module(site: Site) -> None:
    library = next(iter(sorted(LIBRARIES.glob("libz.so.*"))))
    assert "loading the PKCS#11 module" in str(error_of(with_module(site, str(library))))


def test_a_module_without_its_configuration(site: Site, tmp_path: Path) -> None:
    (tmp_path / "softhsm2.conf").unlink()
    error = error_of(site)
    assert "(CKR_GENERAL_ERROR, 0x5)" in str(error)
    assert "SOFTHSM2_CONF" in error.hint


def test_after_a_failed_load_the_right_module_still_works(site: Site, tmp_path: Path) -> None:
    error_of(with_module(site, str(tmp_path / "absent.so")))
    login(site)


def with_module(site: Site, path: str) -> Site:
    uri = replace(site.settings.uri, module_path=path)
    return replace(site, settings=replace(site.settings, uri=uri, module_path=path))
