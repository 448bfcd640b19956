"""Runs on the Hub: a folder stands in for it, behind the signatures of the real client."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.launch import hub
from avsbench_harness.launch.execute import execute

NAME = "someone/tiny-s4"


class FakeApi:
    """Repositories as folders; calls must fit the real client's signatures."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits: list[str] = []
        self.downloads: list[str] = []

    def _bind(self, name: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        call = inspect.signature(getattr(HfApi, name)).bind(self, *arguments, **keywords)
        call.apply_defaults()
        return call.arguments

    def create_repo(self, *arguments: Any, **keywords: Any) -> str:
        call = self._bind("create_repo", *arguments, **keywords)
        (self.root / call["repo_id"]).mkdir(parents=True, exist_ok=call["exist_ok"])
        return f"https://hub.invalid/{call['repo_id']}"

    def create_commit(self, *arguments: Any, **keywords: Any) -> None:
        call = self._bind("create_commit", *arguments, **keywords)
        self.commits.append(call["commit_message"])
        for operation in call["operations"]:
            assert isinstance(operation, CommitOperationAdd)
            content = operation.path_or_fileobj
            data = content if isinstance(content, bytes) else Path(content).read_bytes()
            (self.root / call["repo_id"] / operation.path_in_repo).write_bytes(data)

    def model_info(self, *arguments: Any, **keywords: Any) -> SimpleNamespace:
        call = self._bind("model_info", *arguments, **keywords)
        assert call["files_metadata"]
        folder = self.root / call["repo_id"]
        if not folder.is_dir():
            raise RepositoryNotFoundError("404: not found\nlong explanation", response=SimpleNamespace(
                headers={}, status_code=404, request=None, text=""))  # fmt: skip
        files = [SimpleNamespace(rfilename=path.name, size=path.stat().st_size) for path in folder.iterdir()]
        return SimpleNamespace(sha="0123456789abcdef", siblings=files)

    def hf_hub_download(self, *arguments: Any, **keywords: Any) -> str:
        call = self._bind("hf_hub_download", *arguments, **keywords)
        assert call["revision"] == "0123456789abcdef"
        target = Path(call["local_dir"]) / call["filename"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / call["repo_id"] / call["filename"], target)
        (target.parent / ".cache").mkdir(exist_ok=True)
        self.downloads.append(call["filename"])
        return str(target)


@pytest.fixture
def api(tmp_path: Path) -> FakeApi:
    return FakeApi(tmp_path / "hub")


@pytest.fixture
def run(planned, tmp_path: Path) -> Run:
    found = planned(tmp_path / "mine", "iterations=2")
    execute(found)
    return found


def test_a_run_is_uploaded_and_downloaded(run: Run, api: FakeApi, tmp_path: Path, avsb, tiny: str) -> None:
    pushed = hub.push(run.folder, NAME, run.out / "results", licence="apache-2.0", api=api)
    assert pushed.url.endswith(NAME)
    assert api.commits == [run.id]
    uploaded = sorted(path.name for path in (api.root / NAME).iterdir())
    assert uploaded == ["README.md", "record.json", "spec.json", "weights.safetensors"]

    pulled = hub.pull(NAME, tmp_path / "theirs", api=api)
    assert pulled.folder == tmp_path / "theirs" / "someone--tiny-s4"
    assert pulled.spec == run.spec
    assert sorted(path.name for path in pulled.folder.iterdir()) == uploaded
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["someone--tiny-s4"]
    hub.pull(NAME, tmp_path / "theirs", api=api)  # again

    predicted = avsb(
        "run", "--method", tiny, "--backbone", "r50", "--data", run.dataset.root, "--weights", pulled.folder,
        "--out", tmp_path / "theirs", "--device", "cpu", "--set", "iterations=2", "--json",
    ).json  # fmt: skip
    record = json.loads((run.out / "results" / f"{run.id}.json").read_text())
    assert predicted["scores"][0]["metrics"] == record["scores"][0]["metrics"]


def test_the_model_card_has_the_scores_as_a_model_index(run: Run, api: FakeApi) -> None:
    hub.push(run.folder, NAME, run.out / "results", api=api)
    text = (api.root / NAME / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    record = json.loads((run.out / "results" / f"{run.id}.json").read_text())
    (index,) = front["model-index"]
    metrics = {metric["type"]: metric["value"] for metric in index["results"][0]["metrics"]}
    j = record["scores"][0]["metrics"]["J"]
    assert index["name"] == run.id
    assert metrics["J"] == round(100 * j, 2)
    assert f"| object/1 | J | {100 * j:.1f} |" in text
    assert "license" not in front
    assert f"avsb hub pull {NAME}" in text


def test_runs_without_scores_are_not_uploaded(run: Run, api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"has no scores of the run; `avsb score`"):
        hub.push(run.folder, NAME, tmp_path / "empty", api=api)
    with pytest.raises(MissingDataError, match="is not trained"):
        hub.push(tmp_path, NAME, run.out / "results", api=api)
    with pytest.raises(UsageError, match="A repository is named OWNER/NAME; got 'tiny'"):
        hub.push(run.folder, "tiny", run.out / "results", api=api)
    assert not api.root.exists()


def test_other_repositories_are_refused_before_weights_are_used(
    run: Run, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "theirs"
    with pytest.raises(AvsbError, match=f"The Hub refused the access to {NAME}: 404: not found"):
        hub.pull(NAME, out, api=api)
    hub.push(run.folder, NAME, run.out / "results", api=api)
    repository = api.root / NAME

    with monkeypatch.context() as patch:
        patch.setattr(hub, "FILES", {**hub.FILES, "spec.json": 10})
        with pytest.raises(UsageError, match="at most 10 are downloaded"):
            hub.pull(NAME, out, api=api)
    assert api.downloads == []

    spec = (repository / "spec.json").read_text()
    (repository / "spec.json").write_text(re.sub(r'"seed": ?0', '"seed": 1', spec))
    with pytest.raises(UsageError, match="do not belong together"):
        hub.pull(NAME, out, api=api)
    (repository / "spec.json").write_text(spec)
    weights = (repository / "weights.safetensors").read_bytes()
    (repository / "weights.safetensors").write_bytes(weights[:-1] + b"\x7f")
    with pytest.raises(UsageError, match="do not belong together"):
        hub.pull(NAME, out, api=api)
    (repository / "record.json").unlink()
    with pytest.raises(UsageError, match="has no record.json"):
        hub.pull(NAME, out, api=api)
    assert list(out.iterdir()) == []


def test_errors_of_the_client_are_one_sentence(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise HfHubHTTPError("401\nUnauthorized \x1b[31m", response=SimpleNamespace(
            headers={}, status_code=401, request=None, text=""))  # fmt: skip

    monkeypatch.setattr(api, "create_commit", refuse)
    with pytest.raises(AvsbError) as found:
        hub.push(run.folder, NAME, run.out / "results", api=api)
    assert "\n" not in str(found.value)
    assert "\x1b" not in str(found.value)


def test_a_folder_with_other_content_is_kept(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "someone--tiny-s4").mkdir()
    with pytest.raises(UsageError, match="exists and holds no run"):
        hub.pull(NAME, tmp_path, api=api)
