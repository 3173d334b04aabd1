"""Tokens: what verifies, what does not and with which code, for every kind of key; keys that change."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from gateway.access.grants import AccessError
from gateway.access.keys import Key, KeyFile, Keys, KeyUrl, PrivateKey, parse_keys, secret_key
from gateway.access.policy import Policy
from gateway.access.tokens import TokenError, Verifier, mint
from tests.support.sites import Quiet, served
from tests.support.tokens import verified

SECRET = "0123456789abcdef0123456789abcdef"
RSA_KEY = rsa.generate_private_key(65_537, 2_048)
OTHER_RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PrivateKey | ed448.Ed448PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def jwk(key: PrivateKey, kid: str, algorithm: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, "use": "sig", **more}


def jwks(*members: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(members)}).encode()


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode({"exp": int(time.time()) + 60, **claims}, key, algorithm=algorithm, headers=headers or None)


def code_of(verifier: Verifier, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        verified(verifier, token)
    assert token not in str(caught.value)
    return caught.value.code


HS = Verifier([Keys([secret_key(SECRET)])])


def segment(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# Signatures and algorithms


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (RSA_KEY, "RS256"),
        (RSA_KEY, "PS512"),
        (EC_KEY, "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ED_KEY, "EdDSA"),
    ],
)
def test_a_token_verifies_with_the_public_part_of_its_key(private: PrivateKey, algorithm: str) -> None:
    verifier = Verifier([Keys(parse_keys(public_pem(private)))])
    assert verified(verifier, signed({"sub": "alice"}, private, algorithm))["sub"] == "alice"


@pytest.mark.parametrize(
    "key", [secret_key(SECRET), *(parse_keys(private_pem(key))[0] for key in (RSA_KEY, EC_KEY, ED_KEY))]
)
def test_a_minted_token_verifies_and_holds_what_was_asked_for(key: Key) -> None:
    token = mint(
        key,
        ttl_seconds=60,
        subject="alice",
        subscribe=["sensors/#"],
        publish=["cmd/{sub}"],
        roles=["viewer"],
        audience="gateway",
        issuer="tests",
    )
    claims = verified(Verifier([Keys([key])], audience="gateway", issuer="tests"), token)
    assert claims["sub"] == "alice"
    assert claims["topics"] == {"subscribe": ["sensors/#"], "publish": ["cmd/{sub}"]}
    assert claims["roles"] == ["viewer"]
    assert claims["exp"] - claims["iat"] == 60


def test_minting_needs_a_private_key_and_a_time_to_live() -> None:
    with pytest.raises(AccessError, match="give the private key"):
        mint(parse_keys(public_pem(RSA_KEY))[0], ttl_seconds=60)
    with pytest.raises(AccessError, match="more than 0 seconds"):
        mint(secret_key(SECRET), ttl_seconds=0)


def test_another_secret_and_a_changed_token_are_refused() -> None:
    token = signed({"sub": "alice"})
    head, body, signature = token.split(".")
    assert code_of(HS, signed({}, "x" * 32)) == "bad_signature"
    assert code_of(HS, f"{head}.{segment({'sub': 'root', 'exp': 9_999_999_999})}.{signature}") == "bad_signature"
    assert code_of(HS, f"{head}.{body}.") == "bad_signature"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
def test_a_token_without_a_signature_is_refused(name: str) -> None:
    bare = f"{segment({'alg': name, 'typ': 'JWT'})}.{segment({'exp': 9_999_999_999})}."
    assert code_of(HS, bare) == "bad_algorithm"
    assert code_of(Verifier([Keys(parse_keys(public_pem(RSA_KEY)))]), bare) == "bad_algorithm"
    assert code_of(Verifier([Keys([secret_key(SECRET)])], algorithms=["none"]), bare) == "bad_algorithm"


@pytest.mark.parametrize("form", [lambda pem: pem, lambda pem: pem.strip(), lambda pem: pem.replace(b"\n", b"\r\n")])
def test_a_public_key_is_never_a_secret(form: Callable[[bytes], bytes]) -> None:
    """Key confusion: a token signed by HMAC with the public key, which everyone has, as the secret."""
    pem = public_pem(RSA_KEY)
    signing_input = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment({'exp': 9_999_999_999})}"
    signature = hmac.new(form(pem), signing_input.encode(), hashlib.sha256).digest()
    assert code_of(Verifier([Keys(parse_keys(pem))]), f"{signing_input}.{segment(signature)}") == "bad_algorithm"
    with pytest.raises(AccessError, match="give it as a key file"):
        secret_key(form(pem))


def test_the_keys_type_decides_even_where_several_keys_are_known() -> None:
    verifier = Verifier([Keys([secret_key(SECRET), *parse_keys(public_pem(RSA_KEY))])])
    assert verified(verifier, signed({}))
    assert verified(verifier, signed({}, RSA_KEY, "RS256"))
    assert code_of(verifier, signed({}, EC_KEY, "ES256")) == "bad_algorithm"


def test_algorithms_can_be_narrowed_but_not_widened() -> None:
    keys = Keys(parse_keys(public_pem(RSA_KEY)))
    assert code_of(Verifier([keys], algorithms=["PS256"]), signed({}, RSA_KEY, "RS256")) == "bad_algorithm"
    assert code_of(Verifier([keys], algorithms=["HS256"]), signed({}, "x" * 32)) == "bad_algorithm"


def test_a_token_cannot_bring_its_own_key() -> None:
    own = jwk(OTHER_RSA_KEY, "mine", "RS256")
    verifier = Verifier([Keys(parse_keys(public_pem(RSA_KEY)))])
    for header in ({"jwk": own}, {"jku": "https://evil.example/jwks.json"}, {"x5u": "https://evil.example/x.pem"}):
        assert code_of(verifier, signed({}, OTHER_RSA_KEY, "RS256", **header)) == "bad_signature"


def test_an_extension_that_must_be_understood_is_refused() -> None:
    assert code_of(HS, signed({}, crit=["exp"], exp=1)) == "malformed"
    assert code_of(HS, signed({}, crit=["x"], x=1)) == "malformed"


# Claims


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": int(time.time()) - 11}, "expired"),
        ({"nbf": int(time.time()) + 3_600}, "not_yet_valid"),
        ({"iat": int(time.time()) + 3_600}, "not_yet_valid"),
        ({"exp": None}, "missing_claim"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": [1]}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"nbf": "x"}, "malformed"),
        ({"aud": "other"}, "bad_audience"),
        ({"sub": 7}, "malformed"),
    ],
)
def test_each_claim_has_its_code(claims: dict[str, Any], code: str) -> None:
    everything = {"exp": int(time.time()) + 60, **claims}
    token = ".".join((segment({"alg": "HS256"}), segment(everything)))
    signature = hmac.new(SECRET.encode(), token.encode(), hashlib.sha256).digest()
    assert code_of(HS, f"{token}.{segment(signature)}") == code


def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time.time())
    assert verified(HS, signed({"exp": now - 5, "nbf": now + 5}))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({}, "missing_claim"),
        ({"aud": "gateway"}, "missing_claim"),
        ({"iss": "idp", "aud": "other"}, "bad_audience"),
        ({"iss": "idp", "aud": ["other", 1]}, "bad_audience"),
        ({"iss": "evil", "aud": "gateway"}, "bad_issuer"),
        ({"iss": ["idp"], "aud": "gateway"}, "bad_issuer"),
    ],
)
def test_audience_and_issuer_are_demanded_when_configured(claims: dict[str, Any], code: str) -> None:
    verifier = Verifier([Keys([secret_key(SECRET)])], audience=["gateway", "gateway-2"], issuer="idp")
    assert verified(verifier, jwt.encode({"exp": time.time() + 60, "iss": "idp", "aud": ["x", "gateway"]}, SECRET))
    token = f"{segment({'alg': 'HS256'})}.{segment({'exp': time.time() + 60, **claims})}"
    signature = hmac.new(SECRET.encode(), token.encode(), hashlib.sha256).digest()
    assert code_of(verifier, f"{token}.{segment(signature)}") == code


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b.c.d",
        "not a token",
        "é.é.é",
        "\ud800",
        "eyJ",
        f"{segment([])}.{segment({})}.x",
        f"{segment({})}.{segment({})}.{segment(b'x')}",
        f"{segment({'alg': 1})}.{segment({})}.{segment(b'x')}",
        f"{segment({'alg': 'HS256', 'kid': 1})}.{segment({})}.{segment(b'x')}",
        f"{segment(b'[' * 5_000)}.{segment({})}.{segment(b'x')}",
        f"{segment({'alg': 'HS256', 'b64': False, 'crit': ['b64']})}..{segment(b'x')}",
    ],
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    with pytest.raises(TokenError) as caught:
        verified(HS, token)
    assert caught.value.code == "malformed"
    assert len(str(caught.value)) < 250


def test_deep_claims_grant_nothing_even_when_signed() -> None:
    text = b'{"exp":9999999999,"topics":' + b"[" * 2_500 + b"]" * 2_500 + b"}"
    token = f"{segment({'alg': 'HS256'})}.{segment(text)}"
    signature = hmac.new(SECRET.encode(), token.encode(), hashlib.sha256).digest()
    # how deep Python's JSON reader goes depends on its version
    with pytest.raises((TokenError, AccessError)) as caught:
        Policy().principal(verified(HS, f"{token}.{segment(signature)}"))
    assert caught.value.code in ("malformed", "bad_claims")


def test_a_token_that_is_too_long_is_refused_unread() -> None:
    assert code_of(HS, "a" * 8_193) == "too_long"
    assert code_of(HS, signed({"sub": "a" * 9_000})) == "too_long"


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_a_token_error(token: str) -> None:
    with pytest.raises(TokenError):
        verified(HS, token)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "crit", "b64", "typ", "zip", "x"]),
        st.sampled_from(["HS256", "RS256", "none", "b64", ["b64"], None, 1, True, False, {}]),
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "jti"]), inner)
        ),
        max_leaves=6,
    ),
)
def test_no_header_and_no_claims_raise_anything_but_a_token_error(header: object, claims: object) -> None:
    token = f"{segment(header)}.{segment(claims)}"
    signature = hmac.new(SECRET.encode(), token.encode(), hashlib.sha256).digest()
    try:
        assert isinstance(verified(HS, f"{token}.{segment(signature)}"), dict)
    except TokenError:
        pass


# Keys


def test_a_secret_has_at_least_32_bytes() -> None:
    with pytest.raises(AccessError, match="has 31 bytes, at least 32 are needed") as caught:
        secret_key("x" * 31)
    assert caught.value.code == "bad_key"
    assert secret_key("0123456789abcdef" * 2).algorithms == ("HS256",)
    assert secret_key("0123456789abcdef" * 4).algorithms == ("HS256", "HS384", "HS512")


def test_weak_and_unusable_keys_are_refused() -> None:
    small = rsa.generate_private_key(65_537, 1_024)
    with pytest.raises(AccessError, match="RSA key of 1024 bits: at least 2048"):
        parse_keys(public_pem(small))
    with pytest.raises(AccessError, match="Ed448"):
        parse_keys(public_pem(ed448.Ed448PrivateKey.generate()))
    with pytest.raises(AccessError, match="type ECPublicKey secp256k1"):
        parse_keys(public_pem(ec.generate_private_key(ec.SECP256K1())))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"{", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[1,{"kty":"x"}]}', b"x" * 300_000]
)
def test_what_holds_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(AccessError) as caught:
        parse_keys(data)
    assert caught.value.code == "bad_key"


def test_a_damaged_key_is_refused_without_quoting_it() -> None:
    pem = private_pem(RSA_KEY).replace(b"A", b"B")
    with pytest.raises(AccessError) as caught:
        parse_keys(pem)
    assert not any(line.decode() in str(caught.value) for line in pem.splitlines())


def test_a_key_never_shows_itself() -> None:
    assert SECRET not in repr(secret_key(SECRET))
    assert repr(parse_keys(private_pem(EC_KEY))[0]) == "Key(ES256, kid=None)"


def test_a_certificate_gives_its_key() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, RSA_KEY.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(RSA_KEY, hashes.SHA256())
    )
    keys = parse_keys(certificate.public_bytes(serialization.Encoding.PEM))
    assert verified(Verifier([Keys(keys)]), signed({}, RSA_KEY, "RS256"))


def test_a_key_file_may_hold_the_old_and_the_new_key() -> None:
    verifier = Verifier([Keys(parse_keys(public_pem(RSA_KEY) + public_pem(OTHER_RSA_KEY)))])
    assert verified(verifier, signed({}, RSA_KEY, "RS256"))
    assert verified(verifier, signed({}, OTHER_RSA_KEY, "RS256"))


def test_a_key_set_chooses_by_key_id() -> None:
    verifier = Verifier([Keys(parse_keys(jwks(jwk(RSA_KEY, "one", "RS256"), jwk(EC_KEY, "two", "ES256"))))])
    assert verified(verifier, signed({}, RSA_KEY, "RS256", kid="one"))
    assert verified(verifier, signed({}, EC_KEY, "ES256", kid="two"))
    assert verified(verifier, signed({}, EC_KEY, "ES256"))
    assert code_of(verifier, signed({}, EC_KEY, "ES256", kid="one")) == "bad_algorithm"
    assert code_of(verifier, signed({}, EC_KEY, "ES256", kid="three")) == "unknown_key"


def test_the_recipe_for_two_keys_takes_tokens_of_both_until_the_old_one_is_taken_out() -> None:
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r'^```json\n(\{"keys".*?)^```', page, re.DOTALL | re.MULTILINE)
    new, old = json.loads(recipe)["keys"]

    def token(member: dict[str, Any]) -> str:
        secret = base64.urlsafe_b64decode(member["k"] + "=" * (-len(member["k"]) % 4))
        return signed({"sub": member["kid"]}, secret, member["alg"], kid=member["kid"])

    both = Verifier([Keys(parse_keys(recipe.encode()))])
    assert [verified(both, token(member))["sub"] for member in (new, old)] == [new["kid"], old["kid"]]
    later = Verifier([Keys(parse_keys(jwks(new)))])
    assert verified(later, token(new))
    assert code_of(later, token(old)) == "unknown_key"


def test_a_key_set_leaves_out_what_is_not_for_signatures() -> None:
    good = jwk(EC_KEY, "good", "ES256")
    keys = parse_keys(
        jwks(
            jwk(RSA_KEY, "encryption", "RS256", use="enc"),
            jwk(RSA_KEY, "other operations", "RS256", key_ops=["encrypt"]),
            jwk(RSA_KEY, "wrong algorithm", "RS256", alg="HS256"),
            {**jwk(RSA_KEY, "x", "RS256"), "kid": 7},
            {"kty": "oct", "k": segment(b"short"), "kid": "weak"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "tiny"},
            {"kty": "EC", "crv": "P-256", "x": "!!", "y": 1, "kid": "broken"},
            {"kty": ["RSA"], "kid": "list"},
            jwk(RSA_KEY, "ops", "RS256", key_ops=7),
            good,
        )
    )
    assert [key.kid for key in keys] == ["good"]


def test_a_key_sets_alg_narrows_the_key_to_it() -> None:
    keys = parse_keys(jwks(jwk(RSA_KEY, "one", "RS256", alg="PS256")))
    assert keys[0].algorithms == ("PS256",)


def test_a_key_set_file_may_hold_secrets_but_a_published_one_may_not() -> None:
    secret = {"kty": "oct", "k": segment(SECRET.encode()), "kid": "s"}
    assert verified(Verifier([Keys(parse_keys(jwks(secret)))]), signed({}, kid="s"))
    with pytest.raises(AccessError):
        parse_keys(jwks(secret), secrets_allowed=False)


# Files and URLs that change


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(RSA_KEY))
    verifier = Verifier([KeyFile(path, clock=clock)])
    assert verified(verifier, signed({}, RSA_KEY, "RS256"))
    path.write_bytes(public_pem(EC_KEY))
    clock.now += 2
    assert verified(verifier, signed({}, EC_KEY, "ES256"))
    assert code_of(verifier, signed({}, RSA_KEY, "RS256")) == "bad_algorithm"


def test_a_key_file_that_breaks_leaves_the_former_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(EC_KEY))
    source = KeyFile(path, clock=clock)
    path.write_bytes(b"half a fi")
    clock.now += 2
    assert len(source.keys()) == 1
    assert "the keys read before stay in use" in caplog.text
    path.unlink()
    clock.now += 2
    assert len(source.keys()) == 1


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"missing\.pem': No such file"):
        KeyFile(tmp_path / "missing.pem")


class Publisher:
    """A key set's server, in place of the network; counts what is fetched."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.fetched = 0
        self.fails = False
        self.thread: int | None = None

    def __call__(self, url: str, timeout_seconds: float) -> bytes:
        self.fetched += 1
        self.thread = threading.get_ident()
        if self.fails:
            raise AccessError("key set: unreachable", "keys_unavailable")
        return self.document


def published(publisher: Publisher, clock: Clock) -> Verifier:
    return Verifier([KeyUrl("https://idp.example/jwks.json", fetch=publisher, clock=clock)])


async def refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        await verifier.verify(token)
    return caught.value.code


def test_a_key_set_is_fetched_once_off_the_loops_thread() -> None:
    async def main() -> None:
        publisher = Publisher(jwks(jwk(EC_KEY, "one", "ES256")))
        verifier = published(publisher, Clock())
        token = signed({}, EC_KEY, "ES256", kid="one")
        await asyncio.gather(*(verifier.verify(token) for _ in range(10)))
        assert publisher.fetched == 1
        assert publisher.thread != threading.get_ident()

    asyncio.run(main())


def test_an_unknown_key_id_fetches_again_but_not_often() -> None:
    async def main() -> None:
        clock = Clock()
        publisher = Publisher(jwks(jwk(EC_KEY, "one", "ES256")))
        verifier = published(publisher, clock)
        await verifier.verify(signed({}, EC_KEY, "ES256", kid="one"))
        publisher.document = jwks(jwk(EC_KEY, "one", "ES256"), jwk(ED_KEY, "two", "EdDSA"))
        clock.now += 31
        assert await verifier.verify(signed({}, ED_KEY, "EdDSA", kid="two"))
        assert publisher.fetched == 2
        for name in "abcdefgh":
            assert await refused(verifier, signed({}, ED_KEY, "EdDSA", kid=name)) == "unknown_key"
        assert publisher.fetched == 2

    asyncio.run(main())


def test_a_key_that_was_withdrawn_stops_verifying() -> None:
    async def main() -> None:
        clock = Clock()
        publisher = Publisher(jwks(jwk(EC_KEY, "one", "ES256")))
        verifier = published(publisher, clock)
        token = signed({}, EC_KEY, "ES256", kid="one")
        assert await verifier.verify(token)
        publisher.document = jwks(jwk(ED_KEY, "two", "EdDSA"))
        clock.now += 3_601
        await verifier.verify(token)  # still with the old set: the new one is fetched in the background
        await verifier._sources[0].refresh()
        assert await refused(verifier, token) == "unknown_key"

    asyncio.run(main())


def test_while_the_key_set_cannot_be_had_the_last_one_serves_for_a_day(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        clock = Clock()
        publisher = Publisher(jwks(jwk(EC_KEY, "one", "ES256")))
        verifier = published(publisher, clock)
        token = signed({}, EC_KEY, "ES256", kid="one")
        await verifier.verify(token)
        publisher.fails = True
        clock.now += 80_000
        assert await verifier.verify(token)
        clock.now += 10_000
        assert await refused(verifier, token) == "keys_unavailable"
        assert "unreachable" in caplog.text

    asyncio.run(main())


def test_without_any_key_the_answer_is_to_come_back() -> None:
    publisher = Publisher(b"")
    publisher.fails = True
    assert asyncio.run(refused(published(publisher, Clock()), signed({}))) == "keys_unavailable"


@pytest.mark.parametrize("url", ["http://idp.example/x", "file:///etc/passwd", "ftp://a/b", "https://", "data:,{}"])
def test_a_key_set_comes_over_https_only(url: str) -> None:
    with pytest.raises(AccessError, match="must be an https URL"):
        KeyUrl(url)


@contextmanager
def web_server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server asks for
            answer(self)

    with served(Handler) as origin:
        yield f"{origin}/jwks.json"


def respond(status: int, body: bytes = b"", **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def test_a_key_set_is_read_over_http() -> None:
    with web_server(respond(200, jwks(jwk(EC_KEY, "one", "ES256")))) as url:
        verifier = Verifier([KeyUrl(url)])
        assert asyncio.run(verifier.verify(signed({"sub": "a"}, EC_KEY, "ES256", kid="one")))["sub"] == "a"


@pytest.mark.parametrize(
    "answer",
    [
        respond(302, Location="file:///etc/passwd"),
        respond(302, Location="http://127.0.0.1:1/"),
        respond(404),
        respond(200, b"x" * 300_000),
        respond(200, b"<html>"),
        respond(200, jwks({"kty": "oct", "k": segment(SECRET.encode())})),
    ],
)
def test_whatever_the_server_answers_only_keys_are_taken(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None],
) -> None:
    with web_server(answer) as url:
        assert asyncio.run(refused(Verifier([KeyUrl(url)]), signed({}))) == "keys_unavailable"


@pytest.mark.parametrize("secret", [" " * 32, "a" * 64, "abab" * 16, "\t \n" * 20])
def test_what_everybody_would_try_is_no_secret(secret: str) -> None:
    with pytest.raises(AccessError, match="different characters") as refused:
        secret_key(secret)
    assert refused.value.code == "bad_key"


def test_two_keys_of_a_set_verify_side_by_side_as_the_page_says() -> None:
    page = (Path(__file__).parents[1] / "docs/security.md").read_text(encoding="utf-8")
    [text] = re.findall(r"^```json\n(\{\"keys\".*?)^```", page, re.DOTALL | re.MULTILINE)
    new, old = parse_keys(text.encode())
    both, later = Verifier([Keys([new, old])]), Verifier([Keys([new])])
    for key in (new, old):
        assert verified(both, mint(key, ttl_seconds=60, subject="me"))["sub"] == "me"
    with pytest.raises(TokenError, match="not known here"):
        verified(later, mint(old, ttl_seconds=60))
