"""The steps of a roll-out, each of which leaves a service that answers.

    rollout = Rollout(repository, ModelControl(url), DermaClient(url))
    rollout.start(lambda: export_bundle(..., into=CANDIDATE), trial)       # or share=20: a canary
    rollout.promote(); rollout.abort(); rollout.back()

A new version is first a model of its own, the candidate, which no client asks. Once it has loaded,
warmed up and been compared, it moves to the network's versions. Triton loads it beside the one before,
which answers until then. What fails, or is rolled back, is withdrawn: kept, where no server looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from derma_semantics import DermaClient
from derma_semantics.domain.contract import CANARY, CANDIDATE, CLASSIFIER, NETWORK, Model
from derma_semantics.domain.errors import DermaError
from derma_semantics.imaging.preprocess import resize_and_crop
from derma_semantics.imaging.synthetic import draw
from derma_semantics.wire.transport import ModelControl, Outputs
from derma_serving import router
from derma_serving import version_store as store
from derma_serving.repository import stated, withdrawn
from derma_serving.runtime.integrity import Tampered, check_version, read_manifest, versions
from derma_serving.runtime.lock import locked

Pictures = Callable[..., Outputs]


class RolloutFailed(RuntimeError):
    """The step was not taken; the message says why, and what serves."""


class Comparison(Protocol):
    """``trial.Trial``, of a version that it was made for."""

    def require(self, infer: Pictures) -> object: ...


class Rollout:
    """A repository and the server that serves it.

    Args:
        client: asks the public model, as everybody does.
        say: is told, a line at a time, what was done.
    """

    def __init__(
        self,
        repository: Path,
        control: ModelControl,
        client: DermaClient,
        *,
        say: Callable[[str], object] = print,
    ) -> None:
        self.repository = repository
        self.control = control
        self.client = client
        self.say = say

    def start(
        self, make: Callable[[], object], trial: Callable[[Path], Comparison], share: float | None = None
    ) -> None:
        """Make a candidate and try it; then let it serve, or a share of the images as a canary.

        Args:
            make: exports into the candidate's folder.
            trial: what its answers are compared with.
            share: percent, more than 0 and less than 100.

        Raises:
            RolloutFailed: the version before serves on.
            Exception: what ``make`` raises; nothing was changed.
        """
        with self._alone():
            self._require_own_repository()
            if (running := router.share(self.repository)) is not None:
                raise RolloutFailed(f"a canary of {running:g} % is under way: promote or abort it first")
            before = self._serving()
            self._end_candidate("left by a roll-out that ended early")
            try:
                make()
            except BaseException:
                self._end_candidate("its export ended early")
                raise
            (version,) = versions(self.repository / CANDIDATE.name)
            with self._undone(version, before, self._withdraw_candidate):
                expected = trial(version)
                self.control.load(CANDIDATE.name)
                self._compare(CANDIDATE, version, expected)
                self.say(f"tried  version {version.name} loads, warms up and answers as its graph does")
                if share is not None:
                    self._share(share)
            if share is not None:
                self.say(
                    f"canary version {version.name} answers {share:g} % of the images, {before.name} the rest"
                )
                return
            self._serve(version, before, expected)
            self._end_candidate("served")

    def promote(self) -> None:
        """Have the canary answer everything.

        Raises:
            RolloutFailed: there is none, or it failed; the version before serves, alone.
        """
        with self._alone():
            version, before = self._canary(), self._serving()
            self._serve(version, before)
            self._end_canary("served")

    def abort(self) -> None:
        """Have the version before answer everything, and withdraw the canary.

        Raises:
            RolloutFailed: there is none.
        """
        with self._alone():
            self._abort()

    def back(self, number: int | None = None) -> None:
        """Return to a version: the one before, or any that is there or was withdrawn. Ends a canary.

        Raises:
            RolloutFailed: there is no such version, or it failed; what served serves on.
        """
        with self._alone():
            if router.share(self.repository) is None:
                before = self._serving()
                self._serve(self._find(number, before), before)
            elif number is None:
                self._abort()
            else:
                raise RolloutFailed("a canary is under way: promote or abort it first")

    def lay_back(self, number: int | None = None) -> None:
        """As ``back``, where no server runs: its next start serves the version.

        Raises:
            RolloutFailed: there is no such version, or a canary is under way.
        """
        with self._alone():
            if router.share(self.repository) is not None:
                raise RolloutFailed("a canary is under way: it ends only with the service running")
            version = self._find(number, self._serving())
            store.put_in_service(self.repository, version, f"rolled back to version {version.name}")
            self.say(f"version {version.name} serves from the next start on")

    def _serve(self, version: Path, before: Path, expected: Comparison | None = None) -> None:
        """Put a version in the place of the one that serves, or leave that one."""
        name = version.name
        if name == before.name:
            raise RolloutFailed(f"version {name} serves already")
        target = store.put_in_service(self.repository, version, f"rolled back to version {name}")
        with self._undone(version, before, lambda reason: self._return_to(before, reason)):
            check_version(target, stated(self.repository))  # native backends load unchecked
            self.control.load(NETWORK.name)
            self._compare(NETWORK, target, expected)
        self.say(f"serves version {name}, {read_manifest(target)['bundle_name']}")

    def _return_to(self, before: Path, reason: str) -> None:
        places = (before, *withdrawn(self.repository))
        there = next(v for v in places if v.name == before.name and v.is_dir())
        store.put_in_service(self.repository, there, reason)
        self.control.load(NETWORK.name)

    def _compare(self, model: Model, version: Path, expected: Comparison | None) -> None:
        """Require answers with this version's digest; and, where given, as expected.

        Without a canary the public model is asked: where an audit log is kept, the network answers no other.
        """
        digest, image = read_manifest(version)["bundle_digest"], draw(0).image
        if model is NETWORK and router.share(self.repository) is None:
            asked, found = CLASSIFIER.name, self.client.classify(image).bundle.digest
        else:
            answer = self.control.infer(model, resize_and_crop(image)[None])
            asked, found = model.name, bytes(answer["BUNDLE"][0].tolist()).hex()
        if found != digest:
            raise RolloutFailed(f"{asked} answers with bundle {found[:12]}, not {digest[:12]}")
        if expected is not None:
            expected.require(lambda pixels: self.control.infer(model, pixels))

    def _share(self, share: float) -> None:
        router.add(self.repository, share)
        self.control.load(CANARY.name)
        # Asked for by name: else Triton would drop it with the last model that refers to it.
        self.control.load(NETWORK.name)
        router.ask(self.repository, True)
        self.control.load(CLASSIFIER.name)

    def _abort(self) -> None:
        version = self._canary()
        self._end_canary("canary aborted")
        self.say(f"serves version {self._serving().name}; the canary, version {version.name}, was withdrawn")

    def _end_canary(self, reason: str) -> None:
        router.ask(self.repository, False)
        self.control.load(CLASSIFIER.name)
        self._end_candidate(reason)

    def _end_candidate(self, reason: str) -> None:
        """Unload what a roll-out loaded, and clear its folders."""
        loaded = {row["name"] for row in self.control.index() if row["state"] == "READY"}
        for model in (CANARY, CANDIDATE):
            if model.name in loaded:
                self.control.unload(model.name)
        for version in store.clear_candidate(self.repository, reason):
            self.say(f"withdrawn version {version.name}: {reason}; it lies in {version}")
        router.remove(self.repository)

    def _withdraw_candidate(self, reason: str) -> None:
        with suppress(DermaError):
            self._end_canary(reason)

    @contextmanager
    def _undone(self, version: Path, before: Path, undo: Callable[[str], None]) -> Iterator[None]:
        """Undo a step that fails; ``undo`` is told why."""
        try:
            yield
        except BaseException as exc:
            why = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
            undo(f"refused: {why}")
            if not isinstance(exc, Exception):
                raise
            raise RolloutFailed(
                f"version {version.name} was refused; version {before.name} serves on: {why}"
            ) from exc

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with locked(self.repository / CLASSIFIER.name, wait=False):
                yield
        except BlockingIOError as exc:
            raise RolloutFailed("another roll-out is under way in this repository") from exc

    def _serving(self) -> Path:
        found = versions(self.repository / NETWORK.name)
        if not found:
            raise RolloutFailed(f"{self.repository} holds no version: `make export` writes the first")
        return found[-1]

    def _canary(self) -> Path:
        found = versions(self.repository / CANDIDATE.name)
        if router.share(self.repository) is None or not found:
            raise RolloutFailed("no canary is under way")
        self._require_own_repository()
        return found[-1]

    def _require_own_repository(self) -> None:
        """A candidate and a canary are steps of a public model that this server reads."""
        if self.control.audited():
            raise RolloutFailed(
                "this service keeps an audit log, so it serves a copy of the repository, made at its start: "
                "load a new version with `derma-export BUNDLE --load`; for a canary, restart without the log"
            )

    def _find(self, number: int | None, serving: Path) -> Path:
        """Folder of the version before, or of the one with this number."""
        lower = [v for v in versions(serving.parent) if int(v.name) < int(serving.name)]
        if number is None:
            if not lower:
                raise RolloutFailed(
                    f"version {serving.name} is the only one that can serve: there is none to return to"
                )
            return lower[-1]
        there = {int(v.name): v for v in (*versions(serving.parent), *withdrawn(self.repository))}
        if number not in there:
            known = ", ".join(map(str, sorted(there)))
            raise RolloutFailed(f"there is no version {number}; there are {known}")
        return there[number]


def listed(repository: Path) -> list[str]:
    """A line for each version: what it is, and whether it serves."""
    share = router.share(repository)
    serves = "serves" if share is None else f"serves {100 - share:g} %"
    canary = "candidate" if share is None else f"canary {share:g} %"
    own = versions(repository / NETWORK.name)
    return [
        *(_told(version, "kept") for version in own[:-1]),
        *(_told(version, serves) for version in own[-1:]),
        *(_told(version, canary) for version in versions(repository / CANDIDATE.name)),
        *(_told(version, f"withdrawn: {store.reason_of(version)}") for version in withdrawn(repository)),
    ]


def _told(version: Path, state: str) -> str:
    try:
        manifest = read_manifest(version)
    except Tampered as exc:
        return f"version {version.name}  {state}  {exc}"
    about = f"{manifest['bundle_name']} ({manifest['bundle_digest'][:12]}), {manifest['precision']}"
    return f"version {version.name}  {about}  {state}"
