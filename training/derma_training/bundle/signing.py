"""Signatures of bundles, in minisign's format (https://jedisct1.github.io/minisign).

    make_key(Path("derma.key"), password="...")                   # derma.key and derma.key.pub
    sign(Bundle.open(folder), Path("derma.key"), ask=lambda: "...")
    require_signature(Bundle.open(folder), "derma.key.pub")

``bundle.json`` is what is signed; it holds the sha256 of every other file. The command
``minisign`` reads and writes the same files. Needs py-minisign: pip install 'derma-semantics[sign]'.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from derma_semantics.domain.integrity import MANIFEST, SIGNATURE, BundleError
from derma_training.bundle.bundle import Bundle


class SignatureError(BundleError):
    """The bundle is not signed, or not by the key that is required; or a key cannot be used."""


def make_key(path: Path, password: str | None) -> Path:
    """Write a new secret key, readable by its owner only, and beside it the public key.

    Args:
        password: encrypts the secret key; None leaves it as it is.

    Returns:
        The public key's file, ``<path>.pub``.

    Raises:
        SignatureError: one of the files exists.
    """
    pair, public = _minisign().KeyPair.generate(), path.with_name(f"{path.name}.pub")
    if password is not None:
        pair.secret_key.encrypt(password)
    for file, key, mode in ((path, pair.secret_key, 0o600), (public, pair.public_key, 0o644)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError as exc:
            raise SignatureError(f"{file} exists: keys are never overwritten") from exc
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(bytes(key) + b"\n")
    return public


def sign(bundle: Bundle, key: Path, ask: Callable[[], str]) -> Path:
    """Sign a bundle, in the place of an older signature.

    Args:
        ask: gives the password of an encrypted key.

    Raises:
        SignatureError: the key is none, or the password is wrong.
    """
    try:
        secret = _minisign().SecretKey.from_file(key)
        if secret.is_encrypted():
            secret.decrypt(ask())
        signature = secret.sign(_manifest(bundle))
    except ValueError as exc:
        raise SignatureError(f"{key} cannot sign {bundle.path}: {exc}") from exc
    path = bundle.path / SIGNATURE
    path.write_bytes(bytes(signature) + b"\n")
    return path


def require_signature(bundle: Bundle, public_key: str) -> str:
    """Refuse a bundle that this key did not sign.

    Args:
        public_key: a file of minisign's, or the key's one line itself.

    Returns:
        What the signer said under the signature (minisign's trusted comment).

    Raises:
        SignatureError: there is no signature, it is another's or of another content, or the key is none.
    """
    minisign, path = _minisign(), bundle.path / SIGNATURE
    read = minisign.PublicKey.from_file if Path(public_key).is_file() else minisign.PublicKey.from_base64
    try:
        key = read(public_key)
    except ValueError as exc:
        raise SignatureError(
            f"{public_key} is neither a file with a public key nor such a key: {exc}"
        ) from exc
    if not path.is_file():
        raise SignatureError(
            f"{bundle.path} is not signed: it has no {SIGNATURE}, and a signature is required"
        )
    try:
        signature = minisign.Signature.from_file(path)
        key.verify(_manifest(bundle), signature)
    except ValueError as exc:
        raise SignatureError(f"{path} is not the required signature: {exc}") from exc
    return str(signature.trusted_comment)


def _manifest(bundle: Bundle) -> bytes:
    """The bytes whose sha256 the opened bundle has."""
    raw = (bundle.path / MANIFEST).read_bytes()
    if hashlib.sha256(raw).hexdigest() != bundle.digest:
        raise SignatureError(f"{bundle.path / MANIFEST} was altered since it was opened")
    return raw


def _minisign() -> Any:
    try:
        return import_module("minisign")
    except ImportError as exc:
        raise SignatureError("signatures need one more package: pip install 'derma-semantics[sign]'") from exc
