"""Identities: who can speak for whom."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Problem, Reason
from mesh.tokens import (
    SERVICE_TOKEN_SECONDS,
    Identity,
    Principal,
    TrustBundle,
    create_identities,
    create_private_key,
    load_private_key,
)

NAMES = ("identity", "payments", "ledger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Identities of three processes."""
    create_identities(tmp_path, NAMES)
    return tmp_path


@pytest.fixture
def bundle(folder: Path) -> TrustBundle:
    """Their public keys."""
    return TrustBundle(folder / "bundle.jwks")


def identity(folder: Path, name: str) -> Identity:
    """The private key of one."""
    return Identity.load(folder / f"{name}.jwk")


def signed(by: Identity, **claims: object) -> str:
    """A token with whatever claims."""
    now = int(time.time())
    payload = {"iss": by.subject, "sub": by.subject, "aud": "kente", "iat": now, "exp": now + 60, "tenant": "ten_1"}
    return jwt.encode(payload | claims, by._key, algorithm="EdDSA", headers={"kid": by.key_id})


def assert_refused(bundle: TrustBundle, token: str) -> None:
    """The token speaks for nobody, and the refusal does not repeat it."""
    with pytest.raises(Problem) as raised:
        bundle.verify(token)
    assert raised.value.reason == Reason.CREDENTIALS_INVALID
    assert len(token) < 8 or token not in str(raised.value)


def test_a_service_speaks_for_itself_and_for_the_tenant_of_its_call(folder: Path, bundle: TrustBundle) -> None:
    payments = identity(folder, "payments")

    for tenant_id in ("", "ten_1"):
        assert bundle.verify(payments.service_token(tenant_id)) == Principal(
            "spiffe://kente/payments", tenant_id, frozenset(), "service"
        )


def test_a_service_token_is_made_anew_before_it_ages(
    folder: Path, bundle: TrustBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments = identity(folder, "payments")
    first = payments.service_token("ten_1")
    assert payments.service_token("ten_1") == first
    later = time.monotonic() + SERVICE_TOKEN_SECONDS / 2
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert payments.service_token("ten_1") != first
    assert bundle.verify(first)


def test_a_verified_token_is_remembered_until_it_ends_and_no_longer(folder: Path, bundle: TrustBundle) -> None:
    ended = signed(identity(folder, "payments"), exp=int(time.time()) - 5)
    token = identity(folder, "payments").service_token("ten_1")
    end = jwt.decode(token, options={"verify_signature": False})["exp"]
    bundle.verify(token)
    bundle.verify(ended)

    assert bundle._verified[token][1] == end
    # Within what clocks may differ by it is good, but each time it is looked at anew.
    assert bundle._verified[ended][1] < time.time()


def test_the_identity_service_speaks_for_clients(folder: Path, bundle: TrustBundle) -> None:
    token = identity(folder, "identity").access_token("key_1", "ten_1", ["b", "a"], 60)

    assert bundle.verify(token) == Principal("key_1", "ten_1", frozenset({"a", "b"}), "client")


def test_no_other_service_speaks_for_clients(folder: Path, bundle: TrustBundle) -> None:
    assert_refused(bundle, identity(folder, "payments").access_token("key_1", "ten_1", ["a"], 60))


def test_a_client_without_a_tenant_is_nobody(folder: Path, bundle: TrustBundle) -> None:
    assert_refused(bundle, identity(folder, "identity").access_token("key_1", "", ["a"], 60))


def test_no_service_speaks_for_another(folder: Path, bundle: TrustBundle) -> None:
    payments, ledger = identity(folder, "payments"), identity(folder, "ledger")

    assert_refused(bundle, signed(payments, sub=ledger.subject))
    assert_refused(bundle, signed(payments, iss=ledger.subject, sub=ledger.subject))
    # Its own signature under the other's key id.
    forged = jwt.encode(
        jwt.decode(signed(ledger), options={"verify_signature": False}),
        payments._key,
        algorithm="EdDSA",
        headers={"kid": ledger.key_id},
    )
    assert_refused(bundle, forged)


def test_the_identity_service_makes_no_service_of_a_client(folder: Path, bundle: TrustBundle) -> None:
    token = signed(identity(folder, "identity"), sub="spiffe://kente/ledger", scope="")

    assert bundle.verify(token).kind == "client"


def test_a_key_outside_of_the_bundle_speaks_for_nobody(folder: Path, bundle: TrustBundle, tmp_path: Path) -> None:
    stranger = tmp_path / "elsewhere"
    create_identities(stranger, ["payments"])

    assert_refused(bundle, identity(stranger, "payments").service_token("ten_1"))
    assert bundle.verify(identity(folder, "payments").service_token("ten_1"))


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_no_other_algorithm_is_believed(folder: Path, bundle: TrustBundle, algorithm: str) -> None:
    payments = identity(folder, "payments")
    claims = jwt.decode(signed(payments), options={"verify_signature": False})
    # What is public is no secret to sign with, though it is a text like any other.
    public = bundle.public_keys(payments.subject)[0]["x"]

    token = jwt.encode(claims, public if algorithm == "HS256" else "", algorithm, headers={"kid": payments.key_id})
    assert_refused(bundle, token)


@pytest.mark.parametrize("kid", [None, "", "unknown", "../../etc/passwd"])
def test_a_token_that_names_no_key_of_the_bundle_is_refused(folder: Path, bundle: TrustBundle, kid: str | None) -> None:
    payments = identity(folder, "payments")
    claims = jwt.decode(signed(payments), options={"verify_signature": False})
    headers = {} if kid is None else {"kid": kid}

    assert_refused(bundle, jwt.encode(claims, payments._key, algorithm="EdDSA", headers=headers))


@given(text=st.text(max_size=80))
def test_any_text_is_no_token(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "one-folder-for-all-texts"
    create_identities(folder, NAMES)

    assert_refused(TrustBundle(folder / "bundle.jwks"), text)


def test_a_changed_token_is_refused(folder: Path, bundle: TrustBundle) -> None:
    token = identity(folder, "payments").service_token("ten_1")
    header, claims, signature = token.split(".")
    other = identity(folder, "payments").service_token("ten_2").split(".")

    assert_refused(bundle, f"{header}.{other[1]}.{signature}")
    assert_refused(bundle, f"{header}.{claims}.{other[2]}")


def test_a_new_key_is_believed_as_soon_as_the_bundle_has_it(folder: Path, bundle: TrustBundle) -> None:
    create_identities(folder, [*NAMES, "notifications"])

    assert bundle.verify(identity(folder, "notifications").service_token("")).subject == "spiffe://kente/notifications"


def test_a_rotated_key_is_no_longer_believed(
    folder: Path, bundle: TrustBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = identity(folder, "payments").service_token("ten_1")
    (folder / "payments.jwk").unlink()
    create_identities(folder, NAMES)
    later = time.monotonic() + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert_refused(bundle, old)
    assert bundle.verify(identity(folder, "payments").service_token("ten_1"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"keys": [{}]}', '{"keys": [{"kid": "a", "name": "b", "kty": "x"}]}']
)
def test_a_bundle_that_became_unreadable_changes_nothing(folder: Path, bundle: TrustBundle, text: str) -> None:
    token = identity(folder, "payments").service_token("ten_1")
    bundle.path.write_text(text)
    bundle.reload()

    assert bundle.verify(token)


def test_what_can_not_be_read_at_start_ends_the_process_with_one_line(folder: Path) -> None:
    (folder / "bad.jwk").write_text("{")
    public = json.loads((folder / "bundle.jwks").read_text())["keys"][0]
    (folder / "public.jwk").write_text(json.dumps(public))

    for path in (folder / "missing.jwk", folder / "bad.jwk", folder / "public.jwk"):
        with pytest.raises(SystemExit, match=r"^KENTE_IDENTITY_FILE: "):
            Identity.load(path)
    for path in (folder / "missing.jwks", folder / "bad.jwk"):
        with pytest.raises(SystemExit, match=r"^KENTE_TRUST_BUNDLE_FILE: "):
            TrustBundle(path)


def test_a_private_key_is_made_once_and_read_back_also_as_pem(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jwk"
    create_private_key(path)
    before = path.read_bytes()
    create_private_key(path)
    key = load_private_key(path, "KENTE_KEY")
    pem = tmp_path / "checkpoints.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_private_key(pem, "KENTE_KEY").private_bytes_raw() == key.private_bytes_raw()


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "-----BEGIN PRIVATE KEY-----\nAAAA"])
def test_a_key_that_can_not_be_read_ends_the_process_with_one_line(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "key.jwk"
    if text is not None:
        path.write_text(text)

    for named in (path, None):
        with pytest.raises(SystemExit, match=r"^KENTE_KEY: .*kente identities"):
            load_private_key(named, "KENTE_KEY")


def test_a_key_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.jwk"
    public.write_text(json.dumps(json.loads((folder / "bundle.jwks").read_text())["keys"][0]))
    other = tmp_path / "other.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    other.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    for path in (public, other):
        with pytest.raises(SystemExit, match=r"^KENTE_KEY: .* no private Ed25519 key"):
            load_private_key(path, "KENTE_KEY")


def test_private_keys_are_the_owners_and_are_made_once(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    create_identities(folder, NAMES)

    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.jwk")} == {0o600}
    assert '"d"' not in (folder / "bundle.jwks").read_text()


def test_published_keys_hold_no_private_part(bundle: TrustBundle) -> None:
    (key,) = bundle.public_keys("spiffe://kente/identity")

    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert bundle.public_keys("spiffe://kente/nobody") == []
