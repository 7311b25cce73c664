"""A run is on disk before it is in MLflow, arrives there once, and ends as what happened to it; on real stores."""

import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from matplotlib.image import imread, imsave
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from tests.mlflow_server import server
from tests.search.light_study import small_file_system

from isotrain.training import outbox
from isotrain.training import tracking as writing
from isotrain.training.outbox import pending, send, where
from isotrain.training.tracking import ABOUT, FIT, PendingRun, log_report, outbox_folder, project_root, tracked

FACTS = {"source": "simulated", "simulated": True, "rows": 9, "sha256": "ab" * 32, "target": "TGBT", "unit": "kW"}
OPEN_AND_WAIT = """
import sys, time
from isotrain.training.tracking import tracked
with tracked("study", sys.argv[1], "waiting", {}) as run:
    run.params({"p": 1})
    print("open", flush=True)
    time.sleep(60)
"""
OPEN_AND_SEND = """
import sys
from isotrain.training.outbox import send
from isotrain.training.tracking import tracked
with tracked("study", sys.argv[1], "short", {"seed": "1"}) as run:
    run.metrics({"val_mae": 1.0}, 3)
send()
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    outbox._said.clear()
    outbox._shown.clear()


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs: MLflow takes seconds to make one, so it is made once and copied."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def stored(uri: str) -> list[MlflowRun]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("study")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def statuses(uri: str) -> dict[str, str]:
    return {run.info.run_name: run.info.status for run in stored(uri)}


def start(code: str, uri: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True)


def waiting(uri: str) -> subprocess.Popen[str]:
    process = start(OPEN_AND_WAIT, uri)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def finished(uri: str, name: str = "fit", **metrics: float) -> None:
    """A fit that ended well."""
    with tracked("study", uri, name, {}) as run:
        run.metrics(metrics or {"val_mae": 1.0}, 1)


def test_a_run_ends_as_its_block_does(uri: str) -> None:
    with tracked("study", uri, "good", {}):
        pass
    with pytest.raises(ZeroDivisionError), tracked("study", uri, "bad", {}):
        1 / 0  # noqa: B018
    with pytest.raises(KeyboardInterrupt), tracked("study", uri, "stopped", {}):
        raise KeyboardInterrupt
    assert len(send()) == 3 and not pending()
    assert statuses(uri) == {"good": "FINISHED", "bad": "FAILED", "stopped": "KILLED"}


def test_a_terminated_process_closes_its_run(uri: str) -> None:
    process = waiting(uri)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    send()
    assert statuses(uri) == {"waiting": "KILLED"}


def test_the_run_of_a_process_killed_outright_is_closed_by_the_next(uri: str) -> None:
    dead, alive = waiting(uri), waiting(uri)
    dead.kill()
    dead.wait(20)
    with tracked("study", uri, "next", {}):
        assert len(send()) == 1
        [killed] = stored(uri)
        assert (killed.info.status, killed.data.params) == ("KILLED", {"p": "1"})
        still = {PendingRun.read(path).process["pid"] for path in pending()}  # type: ignore[index]
        assert still == {alive.pid, os.getpid()}
    alive.terminate()
    alive.wait(20)
    assert len(send()) == 2 and sorted(statuses(uri).values()) == ["FINISHED", "KILLED"]


@pytest.mark.slow
def test_several_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    processes = [start(OPEN_AND_SEND, uri) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0] * 3
    runs = stored(uri)
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert all(run.data.metrics["val_mae"] == 1.0 for run in runs)
    assert not pending()


def test_a_run_that_ends_while_another_process_sends_is_sent_by_that_one(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender has passed the open run by; the run ends, and its own process finds the turn taken."""
    deliver, ends = outbox._deliver, tracked("study", uri, "a-open", {})
    ends.__enter__()
    finished(uri, "b-done")

    def meanwhile(run: PendingRun, artifacts: Path) -> tuple[str, str]:
        if run.name == "b-done":
            ends.__exit__(None, None, None)
            assert send() == []
        return deliver(run, artifacts)

    monkeypatch.setattr(outbox, "_deliver", meanwhile)
    assert len(send()) == 2 and not pending()
    assert statuses(uri) == {"a-open": "FINISHED", "b-done": "FINISHED"}


def test_the_lock_on_new_stores_serves_a_second_user(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot write the lock file of the first user can still hold it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "isotrain-mlflow.lock").touch(0o444)
    asked: list[int] = []
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *rest, **named: _note(asked, path, flags, opened, rest, named))
    finished(uri)
    send()
    assert statuses(uri) == {"fit": "FINISHED"}
    assert asked and all(flags & os.O_ACCMODE == os.O_RDONLY or flags & os.O_EXCL for flags in asked)


def _note(asked: list[int], path: Any, flags: int, opened: Any, rest: Any, named: Any) -> int:
    if str(path).endswith("isotrain-mlflow.lock"):
        asked.append(flags)
    return int(opened(path, flags, *rest, **named))


def test_what_is_logged_can_be_read_back(uri: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    with tracked("study", uri, "run", {"method": "tuned"}) as run:
        run.params({f"training.p{n}": n for n in range(150)})
        run.metrics({"val_mae": 5.0}, 20)
        run.metrics({"val_mae": 4.0, "broken": float("nan")}, 40)
        run.history([{"step": 3, "share": 0.5, "word": "no number"}], "isolation")
        run.dataset(FACTS)
        run.artifacts(tmp_path / "out")
        run.artifacts(tmp_path / "out" / "result.json", "deep")
    (tmp_path / "out" / "result.json").write_text("of a later fit")
    [run_id] = send()
    client = MlflowClient(uri)
    found = client.get_run(run_id)
    assert found.data.params["training.p149"] == "149" and len(found.data.params) == 150
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "val_mae")] == [(20, 5.0), (40, 4.0)]
    assert found.data.metrics["broken"] != found.data.metrics["broken"] and found.data.metrics["isolation/share"] == 0.5
    assert found.data.tags["method"] == "tuned"
    assert found.inputs.dataset_inputs[0].dataset.name == "simulated"
    assert [file.path for file in client.list_artifacts(run_id)] == ["deep", "result.json"]
    assert Path(client.download_artifacts(run_id, "result.json")).read_text() == "{}", "as it was when the run ended"
    assert found.data.metrics["system/process_rss_mb"] > 1


def test_a_quote_in_the_name_of_a_column_is_carried_whole(uri: str) -> None:
    target = 'Puissance "TGBT" \\ é\n'
    with tracked("study", uri, "run", {}) as run:
        run.dataset({**FACTS, "target": target})
    send()
    [found] = stored(uri)
    profile = json.loads(found.inputs.dataset_inputs[0].dataset.profile)
    assert profile == {"rows": 9, "target": target, "unit": "kW"}


def test_the_environment_names_the_store_and_mlflow_run_its_run(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    with tracked("study", None, "first", {}):
        pass
    [first] = send()
    assert statuses(other) == {"first": "FINISHED"}
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    with tracked("study", None, "second", {}):
        pass
    assert send() == [first]
    assert statuses(other) == {"second": "FINISHED"}
    monkeypatch.setenv("DVC_STAGE", "train@0-tuned")  # a pipeline inside `mlflow run`: every fit has its own
    with tracked("study", None, "third", {}):
        pass
    assert send() != [first] and len(stored(other)) == 2
    with tracked("study", None, "report", {}, whole_pipeline=True):
        pass
    assert send() == [first]


def test_by_default_the_store_lies_beside_params_yaml(tmp_path: Path) -> None:
    with tracked("study", None, "run", {}):
        pass
    send()
    assert (tmp_path / "mlflow.db").exists()
    assert statuses(f"sqlite:///{tmp_path}/mlflow.db") == {"run": "FINISHED"}


def test_a_queued_experiment_logs_into_the_project_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "project" / ".dvc" / "tmp" / "exps" / "standalone" / "tmp123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert project_root() == (tmp_path / "project").resolve()
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path.resolve()


def test_writing_a_run_imports_no_mlflow(uri: str) -> None:
    code = (
        "import sys; from isotrain.training import tracking\nwith tracking.tracked('study', sys.argv[1], 'a', {}): pass"
    )
    ask = "print(sorted({'mlflow', 'torch', 'sqlalchemy', 'pandas', 'numpy'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{ask}", uri], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]" and len(pending()) == 1


@pytest.mark.slow
def test_a_server_that_is_down_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, the next call sends all; a run of another store is not held up."""
    caplog.set_level(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    finished(f"http://127.0.0.1:{port}", "first")
    finished(f"http://127.0.0.1:{port}", "second")
    finished(f"sqlite:///{tmp_path}/mlflow.db", "elsewhere")
    assert len(send()) == 1 and len(pending()) == 2
    assert send() == [] and caplog.text.count("takes no runs") == 1
    assert f"127.0.0.1:{port}" in caplog.text and str(outbox_folder()) in caplog.text
    with server(port, tmp_path) as uri:
        assert len(send()) == 2 and not pending() and send() == []
        assert statuses(uri) == {"first": "FINISHED", "second": "FINISHED"}


@pytest.mark.slow
def test_a_damaged_store_costs_no_run(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 1000)
    finished(uri, "first")
    finished(uri, "second")
    assert send() == [] and len(pending()) == 2
    assert caplog.text.count("takes no runs") == 1 and len(caplog.records) == 1
    (tmp_path / "mlflow.db").unlink()
    subprocess.run([sys.executable, "-c", "from isotrain.training.outbox import send; send()"], check=True)
    assert not pending()
    (tmp_path / "mlflow.db").rename(tmp_path / "mended.db")  # this process still holds the damaged one open
    assert statuses(f"sqlite:///{tmp_path}/mended.db") == {"first": "FINISHED", "second": "FINISHED"}


def test_a_full_store_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    try:
        with small_file_system(tmp_path / "small") as small:
            uri = f"sqlite:///{small}/mlflow.db"
            finished(uri, "before")
            assert len(send()) == 1
            with pytest.raises(OSError), (small / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            for n in range(40):
                finished(uri, f"fit-{n}", **{f"metric-{k}": 1.0 for k in range(100)})
            sent = len(send())
            assert "takes no runs" in caplog.text
            assert len(pending()) == 40 - sent > 0
            (small / "filler").unlink()
            assert len(send()) == 40 - sent and not pending()
            assert len(statuses(uri)) == len(stored(uri)) == 41
    except PermissionError as problem:
        pytest.skip(f"no small file system to fill: {problem}")


def test_a_damaged_pending_run_holds_up_no_other(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    finished(uri, "whole")
    finished(uri, "damaged")
    [damaged] = [path for path in pending() if path.name.startswith("damaged")]
    (damaged / "run.json").write_text('{"name": "damaged"')
    assert len(send()) == 1 and statuses(uri) == {"whole": "FINISHED"}
    assert str(damaged) in caplog.text and damaged.exists()


def test_what_was_sent_half_is_there_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender dies at each of its calls in turn."""
    (tmp_path / "note.txt").write_text("kept")
    with tracked("study", uri, "fit", {"method": "tuned"}) as run:
        run.params({"a": 1})
        run.metrics({"val_mae": 2.0}, 7)
        run.dataset(FACTS)
        run.artifacts(tmp_path / "note.txt")
    for call in ("create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(MlflowClient, call, _interrupted)
            send()
        assert len(pending()) == 1
    [run_id] = send()
    [found] = stored(uri)
    assert found.info.run_id == run_id and found.info.status == "FINISHED" and found.data.params == {"a": "1"}
    client = MlflowClient(uri)
    assert len(client.get_metric_history(run_id, "val_mae")) == len(client.list_artifacts(run_id)) == 1
    assert len(found.inputs.dataset_inputs) == 1


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_long_run_is_seen_while_it_runs(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracked("study", uri, "long", {}) as run:
        run.metrics({"val_mae": 3.0}, 1)
        assert send() == [] and not stored(uri), "it has just begun"
        monkeypatch.setattr(writing, "EVERY_SECONDS", -1.0)
        run.metrics({"val_mae": 2.0}, 2)
        assert send() == []
        [seen] = stored(uri)
        assert (seen.info.status, seen.data.metrics["val_mae"]) == ("RUNNING", 2.0)
        run.metrics({"val_mae": 1.0}, 3)
    assert send() == [seen.info.run_id]
    [ended] = stored(uri)
    assert (ended.info.status, ended.data.metrics["val_mae"]) == ("FINISHED", 1.0)
    assert len(MlflowClient(uri).get_metric_history(ended.info.run_id, "val_mae")) == 3


def test_an_open_run_of_another_machine_is_left_to_it(uri: str) -> None:
    elsewhere = PendingRun("there", "study", uri, {"isotrain.run": "1"}, began=1)
    replace(elsewhere, process={"host": "another", "pid": 1, "born": "never"}).write(outbox_folder())
    assert send() == [] and len(pending()) == 1


def fit_of(uri: str, method: str, key: str) -> None:
    with tracked("study", uri, f"{method}-0", {"kind": "fit", "method": method, FIT: key}) as run:
        run.metrics({"curve/val_mae": 5.0}, 20)
        run.once({"final/val_mae": 5.04321})


def report_of(uri: str, folder: Path, seconds: dict[str, float | None]) -> None:
    """A report on the fits ``seconds`` (method -> seconds to the target), whose key is the method's name."""
    (folder / "reports" / "figures").mkdir(parents=True, exist_ok=True)
    imsave(folder / "reports" / "figures" / "tradeoff.png", np.zeros((400, 1800)))
    (folder / "reports" / "tradeoff.html").write_text("the page")
    head = "# Title\n\n**The question.** Why?\n\n> **The answer.** Because.\n\n![A figure](figures/tradeoff.png)\n"
    (folder / "reports" / "tradeoff.md").write_text(f"{head}\n## The figures\n\nmany\n")
    rows = [{"method": name, "seed": 0, "seconds_to_target": found} for name, found in seconds.items()]
    facts = {"answer": "Because.", "data": {"simulated": True}, "runs": rows}
    (folder / "reports" / "tradeoff.json").write_text(json.dumps(facts))
    for name in seconds:
        (folder / "runs" / f"{name}-0").mkdir(parents=True, exist_ok=True)
        (folder / "runs" / f"{name}-0" / "result.json").write_text(json.dumps({"key": name}))
    (folder / "baselines.json").write_text(json.dumps({"baselines": [{"key": "ridge"}]}))
    with tracked("study", uri, "report", {"kind": "report"}) as run:
        log_report(run, folder / "reports" / "tradeoff.html", folder / "runs", folder)


def experiment_tags(uri: str) -> dict[str, str]:
    return dict(MlflowClient(uri).get_experiment_by_name("study").tags)


def test_what_a_run_has_once_is_at_step_0(uri: str) -> None:
    """MLflow draws a metric as bars only if none of the runs has it at a later step."""
    with tracked("study", uri, "fit", {}) as run:
        run.metrics({"curve/val_mae": 5.0}, 20)
        run.once({"final/val_mae": 5.04321, "final/parameters": 123456})
    [run_id] = send()
    client = MlflowClient(uri)
    names = client.get_run(run_id).data.metrics
    steps = {name: {m.step for m in client.get_metric_history(run_id, name)} for name in names}
    assert {name: at for name, at in steps.items() if not name.startswith("system/")} == {
        "curve/val_mae": {20},
        "final/val_mae": {0},
        "final/parameters": {0},
    }
    assert names["final/val_mae"] == 5.043 and names["final/parameters"] == 123456


def test_the_view_finds_the_report_and_the_fits_in_it_and_no_others(uri: str, tmp_path: Path) -> None:
    """The filter and the order of the view are asked of the store itself."""
    fit_of(uri, "old", "old")
    fit_of(uri, "tuned", "tuned")
    fit_of(uri, "missed", "missed")
    with tracked("study", uri, "ridge", {"kind": "baseline", FIT: "ridge"}):
        pass
    report_of(uri, tmp_path, {"tuned": 1.23456, "missed": None})
    send()
    state = json.loads(experiment_tags(uri)["mlflow.sharedViewState.report"])
    client = MlflowClient(uri)
    [experiment] = [run.info.experiment_id for run in stored(uri)[:1]]
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([experiment], state["searchFilter"], order_by=[order])
    assert found[0].info.run_name == "report"
    assert {run.info.run_name for run in found} == {"report", "tuned-0", "missed-0", "ridge"}
    seconds = {run.info.run_name: run.data.metrics.get("final/seconds_to_target") for run in found}
    assert seconds["tuned-0"] == 1.235 and math.isnan(seconds["missed-0"] or 0) and seconds["ridge"] is None


def test_a_later_report_takes_the_place_of_the_earlier(uri: str, tmp_path: Path) -> None:
    fit_of(uri, "tuned", "tuned")
    report_of(uri, tmp_path, {"tuned": 1.0})
    send()
    before = experiment_tags(uri)
    report_of(uri, tmp_path, {"tuned": None})
    send()
    after = experiment_tags(uri)
    assert {tag for tag in after if after[tag] != before[tag]} == {"mlflow.sharedViewState.report", ABOUT}
    [fit] = [run for run in stored(uri) if run.info.run_name == "tuned-0"]
    assert math.isnan(fit.data.metrics["final/seconds_to_target"]), "it misses the target of the later report"


def test_a_report_that_comes_before_its_fits_says_which_are_absent(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report_of(uri, tmp_path, {"tuned": 1.0})
    send()
    assert statuses(uri) == {"report": "FINISHED"} and "2 of the 2 fits of the report are not in MLflow" in caplog.text


def test_a_run_of_mlflow_run_in_another_experiment_says_where_the_runs_are(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mlflow run` opens its run in the experiment Default if it is asked for no other."""
    client = MlflowClient(uri)
    opened = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    finished(uri)
    [run_id] = send()
    assert run_id != opened and statuses(uri) == {"fit": "FINISHED"}
    assert f"#/experiments/{stored(uri)[0].info.experiment_id}/runs" in client.get_run(opened).data.tags[ABOUT]


def test_the_experiment_of_dvc_and_the_stage_are_tags(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "wider")
    monkeypatch.setenv("DVC_STAGE", "train")
    finished(uri)
    send()
    [experiment] = [run.info.experiment_id for run in stored(uri)]
    assert (
        len(MlflowClient(uri).search_runs([experiment], "tags.dvc_exp = 'wider' and tags.`dvc.stage` = 'train'")) == 1
    )


def test_an_experiment_of_an_earlier_version_gets_the_view(uri: str) -> None:
    MlflowClient(uri).create_experiment("study")
    finished(uri)
    send()
    assert outbox.EXPERIMENT_TAGS.items() <= experiment_tags(uri).items()


def test_the_link_needs_no_password_and_says_what_has_to_run(tmp_path: Path) -> None:
    page = "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=report"
    assert where("https://me:secret@host.example/mlflow/", "7", "report") == f"https://host.example/mlflow/{page}"
    own = where(f"sqlite:///{tmp_path.resolve()}/mlflow.db", "7", "report")
    assert own == f"http://127.0.0.1:5000/{page} (while `mlflow ui` runs)"
    assert "mlflow ui --backend-store-uri 'sqlite:////elsewhere.db'" in where("sqlite:////elsewhere.db", "7", "runs")


@pytest.mark.slow
def test_the_link_of_a_server_leads_to_the_view_and_the_note_to_the_artifacts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked as the browser asks: the tag that the link names, the picture and the page of the note."""
    caplog.set_level(logging.INFO, logger="isotrain")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with server(port, tmp_path) as uri:
        fit_of(uri, "tuned", "tuned")
        report_of(uri, tmp_path, {"tuned": 1.0})
        send()
        [link] = [record.args[0] for record in caplog.records if record.msg == "runs: %s"]  # type: ignore[index]
        page = urlsplit(urlsplit(str(link)).fragment)
        [name] = parse_qs(page.query)["viewStateShareKey"]
        asked = f"{uri}/ajax-api/2.0/mlflow/experiments/get?experiment_id={page.path.split('/')[2]}"
        with urllib.request.urlopen(asked) as answer:
            tags = {tag["key"]: tag["value"] for tag in json.load(answer)["experiment"]["tags"]}
        assert json.loads(tags[f"mlflow.sharedViewState.{name}"])["selectedColumns"]
        note = tags[ABOUT]
        assert note.startswith("**SIMULATED series.** **The answer.** Because.") and note.count("Because.") == 1
        [picture] = [part.split(")")[0] for part in note.split("](")[1:] if part.startswith("get-artifact")]
        with urllib.request.urlopen(f"{uri}/{picture}") as answer:
            assert imread(BytesIO(answer.read())).shape[:2] == (200, 900), "as wide as MLflow's page"
        assert "/artifacts/tradeoff.html?workflowType" in note
