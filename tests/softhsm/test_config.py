"""The configuration file: what is taken, and that every mistake is named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm import config as configuration
from hwkm.config import AgentSettings
from hwkm.errors import ConfigError, PolicyError
from hwkm.keys import Cipher
from hwkm.policy import Delivery
from hwkm.token.settings import locate_module
from hwkm.token.uri import TokenUri
from tests.modules import p11kit, softhsm

if TYPE_CHECKING:
    from hwkm.config import Config

PLACE = Path("/etc/hwkm/config.toml")
URI = "pkcs11:token=a?module-path=/lib/module.so"
TOP = 'keystore = "sqlite:////var/keystore.db"\nruntime_dir = "/run/hwkm"\n'
TOKEN = f'[token.main]\nuri = "{URI}"\n'
SPARE = f'[token.spare]\nuri = "{URI}"\n'
RULE = '[[policy]]\nvolumes = "Tape-.*"\n'


def parse(text: str) -> Config:
    return configuration.parse(text, PLACE)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(str(PLACE))
    return caught.value.diagnostics()


# --- what is taken ---


def test_the_least_that_is_enough() -> None:
    config = parse(TOP + TOKEN)
    assert (config.log, config.installation) == ("syslog", "")
    assert config.runtime_dir == Path("/run/hwkm")
    [token] = config.tokens
    assert (token.name, token.module_path, token.environment) == ("main", "/lib/module.so", {})
    rule = config.policy.rule_for("any volume")
    assert (rule.cipher, rule.delivery) == (Cipher.AES_256_XTS, Delivery.SOFTWARE)
    assert rule.recipients == ("main",)


def test_an_escrow_key() -> None:
    assert parse(TOP + TOKEN).escrow_key is None
    assert parse(TOP + f'escrow_key = "{"0f" * 32}"\n' + TOKEN).escrow_key == b"\x0f" * 32
    for wrong in ("0f" * 31, "0F" * 32, "0g" * 32, "0f" * 33, "key"):
        assert "escrow_key" in refusal(TOP + f'escrow_key = "{wrong}"\n' + TOKEN)


@pytest.mark.parametrize(
    ("said", "delivery"),
    [("software", Delivery.SOFTWARE), ("drive", Delivery.DRIVE), ("auto", None)],
)
def test_every_delivery(said: str, delivery: Delivery | None) -> None:
    config = parse(f'{TOP}{TOKEN}{RULE}cipher = "AES_128_XTS"\ndelivery = "{said}"\n')
    rule = config.policy.rule_for("Tape-1")
    assert (rule.delivery, rule.cipher) == (delivery, Cipher.AES_128_XTS)


@pytest.mark.parametrize(
    ("said", "delivery", "cipher"),
    [
        ("software", Delivery.SOFTWARE, Cipher.AES_128_XTS),
        ("drive", Delivery.DRIVE, Cipher.AES_256_GCM),
        ("auto", Delivery.SOFTWARE, Cipher.AES_128_XTS),
        ("auto", Delivery.DRIVE, Cipher.AES_256_GCM),
    ],
)
def test_a_new_key_has_the_cipher_of_its_delivery(
    said: str, delivery: Delivery, cipher: Cipher
) -> None:
    config = parse(f'{TOP}{TOKEN}{RULE}cipher = "AES_128_XTS"\ndelivery = "{said}"\n')
    rule = config.policy.rule_for("Tape-1")
    assert rule.cipher_for("Tape-1", delivery) is cipher
    assert Delivery.of(cipher) is delivery


@pytest.mark.parametrize(
    ("said", "delivery"), [("software", Delivery.DRIVE), ("drive", Delivery.SOFTWARE)]
)
def test_another_delivery_than_the_rules_is_refused(said: str, delivery: Delivery) -> None:
    rule = parse(f'{TOP}{TOKEN}{RULE}delivery = "{said}"\n').policy.rule_for("Tape-1")
    with pytest.raises(PolicyError, match="the policy wants volume 'Tape-1' encrypted by"):
        rule.cipher_for("Tape-1", delivery)


@pytest.mark.parametrize(
    ("delivery", "cipher"),
    [(Delivery.SOFTWARE, Cipher.AES_256_GCM), (Delivery.DRIVE, Cipher.AES_256_XTS)],
)
def test_a_cipher_is_for_one_delivery(delivery: Delivery, cipher: Cipher) -> None:
    rule = parse(f'{TOP}{TOKEN}{RULE}delivery = "auto"\n').policy.rule_for("Tape-1")
    with pytest.raises(PolicyError, match=f"{cipher.name} is not for encryption by"):
        rule.cipher_for("Tape-1", delivery, cipher)


def test_without_recipients_a_rule_has_all_tokens_in_their_order() -> None:
    config = parse(TOP + SPARE + TOKEN + RULE)
    assert config.policy.rule_for("Tape-1").recipients == ("spare", "main")


def test_all_that_can_be_said() -> None:
    config = parse(
        f'installation = "0123456789abcdef"\nlog = "/var/log/hwkm.log"\n{TOP}{TOKEN}'
        f'environment = {{ A = "1", B = "2" }}\n{RULE}cipher = "AES_128_XTS"\n'
        'delivery = "software"\nrecipients = ["main"]\n'
    )
    assert (config.installation, config.log) == ("0123456789abcdef", "/var/log/hwkm.log")
    assert config.tokens[0].environment == {"A": "1", "B": "2"}
    assert config.policy.rule_for("Tape-1").cipher is Cipher.AES_128_XTS


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(TOP + TOKEN)
    assert configuration.load(tmp_path / "config.toml").path == tmp_path / "config.toml"


def test_the_only_token_needs_no_name_and_several_do() -> None:
    assert parse(TOP + TOKEN).token(None).name == "main"
    both = parse(TOP + TOKEN + SPARE)
    assert both.token("spare").name == "spare"
    for name, words in ((None, "there are several tokens"), ("x", "there is no token 'x'")):
        with pytest.raises(ConfigError, match=words) as caught:
            both.token(name)
        assert caught.value.hint == "Choose one of: main, spare"


# --- mistakes ---


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (f'keyring = "x"\n{TOP}{TOKEN}', 1, "keyring"),
        (f'{TOP}\n# a comment\nkeyring = "x"\n{TOKEN}', 5, "keyring"),
        (f'{TOP}{TOKEN}pin = "4711"\n', 5, "pin"),
        (f"{TOP}{SPARE}{TOKEN}pin = 1\n", 7, "pin"),
        (f'{TOP}{TOKEN}{RULE}volume = "x"\n', 7, "volume"),
        (f'{TOP}{TOKEN}{RULE}{RULE}ciphers = "x"\n', 9, "ciphers"),
        (TOKEN + TOP, 3, "keystore"),  # it went into the token's table
        (f"{TOP}{TOKEN}[tokens.spare]\n", 5, "tokens"),
    ],
)
def test_an_unknown_key_is_named_with_its_line(text: str, line: int, key: str) -> None:
    said = refusal(text)
    assert f"{PLACE}, line {line}: " in said
    assert f"unknown key `{key}`" in said
    assert "4711" not in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'keystore = 5\nruntime_dir = "/run"\n{TOKEN}', 1),
        (f'{TOP}{TOKEN}environment = "A=1"\n', 5),
        (f'{TOP}{TOKEN}{RULE}cipher = "AES_256_GCM"\n', 7),
        (f'{TOP}{TOKEN}{RULE}cipher = "rot13"\n', 7),
        (f'{TOP}{TOKEN}{RULE}delivery = "pigeon"\n', 7),
        (f'{TOP}{TOKEN}{RULE}{RULE}recipients = "main"\n', 9),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_line(text: str, line: int) -> None:
    assert f"{PLACE}, line {line}: " in refusal(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing key `keystore`"),
        (TOP, "missing key `token`"),
        (f"{TOP}[token.main]\n", "missing key `uri`"),
        ("keystore = ", "is not valid TOML"),
        (f"{TOP}{TOKEN}{TOKEN}", "is not valid TOML"),
        (f'{TOP}log = "hwkm.log"\n{TOKEN}', "log = 'hwkm.log'"),
        (f'keystore = "x"\nruntime_dir = "run"\n{TOKEN}', "runtime_dir = 'run'"),
        (f'{TOP}[token.main]\nuri = "softhsm"\n', "not a PKCS#11 URI"),
        (f'{TOP}[token.main]\nuri = "pkcs11:token=a"\n', "names no PKCS#11 module"),
        (f"{TOP}[token]\n", "no recipient"),
        (f'{TOP}[token.main]\nuri = "{URI}&pin-source=secret"\n', "pin-source is not understood"),
    ],
)
def test_other_mistakes_are_named(text: str, words: str) -> None:
    assert words in refusal(text)


def test_a_pin_in_the_uri_is_refused_and_not_repeated() -> None:
    said = refusal(f'{TOP}[token.main]\nuri = "{URI}&pin-value=4711-secret"\n')
    assert "pin-value" in said
    assert "4711" not in said


@pytest.mark.parametrize("pattern", ["(", "[a-", "*", "a{2,1}"])
def test_a_pattern_that_is_none_is_found_when_the_file_is_read(pattern: str) -> None:
    said = refusal(f'{TOP}{TOKEN}[[policy]]\nvolumes = "{pattern}"\n')
    assert f"the volume pattern '{pattern}' is not a regular expression" in said


@pytest.mark.parametrize(
    ("recipients", "words"),
    [
        ('["main", "spair"]', "the unknown recipient 'spair'"),
        ('["Main"]', "the unknown recipient 'Main'"),
        ("[]", "names no recipient"),
        ('["main", "spare", "main"]', "the recipient 'main' twice"),
    ],
)
def test_a_recipient_that_is_none_is_found_when_the_file_is_read(
    recipients: str, words: str
) -> None:
    said = refusal(f"{TOP}{TOKEN}{SPARE}{RULE}recipients = {recipients}\n")
    assert words in said
    assert "these tokens: main, spare" in said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin1.toml").write_bytes(b"# \xfc\n")
    for name, words in (("absent", "No such file"), ("latin1.toml", "UTF-8"), (".", "directory")):
        with pytest.raises(ConfigError, match=words) as caught:
            configuration.load(tmp_path / name)
        assert "--config" in caught.value.hint


# --- the agent ---


def agent(text: str) -> AgentSettings:
    return parse(f"{TOP}{TOKEN}[agent]\n{text}").agent


def test_the_agent_needs_no_settings() -> None:
    expected = AgentSettings(Path("/run/hwkm/agent.sock"), 0o660, None, (), (), "")
    assert parse(TOP + TOKEN).agent == agent("") == expected


def test_all_that_can_be_said_of_the_agent() -> None:
    found = agent(
        'socket = "/run/other.sock"\nmode = "0600"\ngroup = "tape"\ngetkey = ["bacula", "@tape"]\n'
        'admin = ["@hwkm"]\nmetrics = "/var/lib/node/hwkm.prom"\n'
    )
    assert found == AgentSettings(
        Path("/run/other.sock"),
        0o600,
        "tape",
        ("bacula", "@tape"),
        ("@hwkm",),
        "/var/lib/node/hwkm.prom",
    )


@pytest.mark.parametrize(
    ("text", "mode"), [("0660", 0o660), ("666", 0o666), ("0600", 0o600), ("0777", 0o777)]
)
def test_modes_of_the_socket(text: str, mode: int) -> None:
    assert agent(f'mode = "{text}"\n').mode == mode


@pytest.mark.parametrize(
    "place",
    [
        "",
        "/x.prom",
        "unix:/run/hwkm/metrics",
        "http://127.0.0.1:9876",
        "http://[::1]:1",
        "http://localhost:65535",
    ],
)
def test_places_for_metrics(place: str) -> None:
    assert agent(f'metrics = "{place}"\n').metrics == place


def test_the_longest_path_of_a_socket() -> None:
    longest = "/" + "x" * 106
    assert agent(f'socket = "{longest}"\n').socket == Path(longest)
    said = refusal(f'{TOP}{TOKEN}[agent]\nsocket = "{longest}x"\n')
    assert "more than 107 bytes" in said
    deep = TOP.replace("/run/hwkm", "/" + "é" * 50)
    assert "more than 107 bytes" in refusal(deep + TOKEN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('socket = "agent.sock"', "agent.socket = 'agent.sock' is not an absolute path"),
        ('mode = "rw"', "agent.mode = 'rw' is no mode"),
        ('mode = "0o660"', "agent.mode = '0o660' is no mode"),
        ('mode = "4660"', "is no mode"),
        ('mode = "0668"', "is no mode"),
        ('mode = "0460"', "its owner has 6"),
        ('mode = ""', "is no mode"),
        ("mode = 432", "line 6: expected `str`"),
        ("getkey = []", "agent.getkey = [] does not say who may"),
        ('getkey = ["bacula", ""]', "does not say who may"),
        ('admin = ["@"]', "agent.admin = ['@'] does not say who may"),
        ('getkey = "bacula"', "line 6: expected `array"),
        ('users = ["bacula"]', "line 6: unknown key `users`"),
        ('metrics = "hwkm.prom"', "agent.metrics = 'hwkm.prom' is not understood"),
        ('metrics = "/var/lib/hwkm"', "is not understood"),
        ('metrics = "unix:metrics"', "is not understood"),
        ('metrics = "http://0.0.0.0:9876"', "is not understood"),
        ('metrics = "http://127.0.0.1.example.org:9876"', "is not understood"),
        ('metrics = "http://127.0.0.1:9876/x"', "is not understood"),
        ('metrics = "http://localhost:0"', "is not understood"),
        ('metrics = "http://localhost:65536"', "is not understood"),
    ],
)
def test_mistakes_about_the_agent(text: str, words: str) -> None:
    assert words in refusal(f"{TOP}{TOKEN}[agent]\n{text}\n")


# --- which rule a volume gets ---


def test_the_first_rule_that_matches_the_whole_name_decides() -> None:
    policy = parse(
        f"{TOP}{TOKEN}{SPARE}"
        '[[policy]]\nvolumes = "Tape-[0-9]+"\nrecipients = ["spare"]\n'
        '[[policy]]\nvolumes = "Tape.*"\nrecipients = ["main"]\n'
    ).policy
    chosen = {
        "Tape-1": "spare",
        "Tape-12": "spare",
        "Tape-12x": "main",
        "Tape": "main",
        "Tape\n": None,
        "Disk-Tape-1": None,
        "tape-1": None,
    }
    for volume, recipient in chosen.items():
        if recipient is not None:
            assert policy.rule_for(volume).recipients == (recipient,)
            continue
        with pytest.raises(PolicyError, match=r"no \[\[policy\]\] matches") as caught:
            policy.rule_for(volume)
        assert caught.value.exit_code == 7


# --- which module a URI means ---


def test_a_module_is_found_by_its_name() -> None:
    found = Path(locate_module(TokenUri(module_name="softhsm2")))
    assert found.resolve() == Path(softhsm.MODULE).resolve()
    assert locate_module(TokenUri(module_name="p11-kit-client")) == p11kit.MODULE


def test_a_path_is_taken_as_it_is() -> None:
    both = TokenUri(module_name="softhsm2", module_path="/elsewhere/module.so")
    assert locate_module(both) == "/elsewhere/module.so"


@pytest.mark.parametrize("name", ["no-such-module", "softhsm*", "soft?sm2", "[s]ofthsm2", "**"])
def test_a_name_that_no_module_has(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no PKCS#11 module .* is installed") as caught:
        locate_module(TokenUri(module_name=name))
    assert "module-path" in caught.value.hint
