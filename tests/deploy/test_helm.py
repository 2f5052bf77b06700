"""deploy/helm: what the real helm, of both versions that are in use, makes of the chart for five sets of values."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from broadway_py.daemon.settings.settings import read_settings
from tests.deploy.dashboards import DEPLOY
from tests.deploy.manifests import Manifest, check_manifests, kustomized, program, run
from tests.support.daemon import ROOT, daemon
from tests.support.eventually import eventually_sync

CHART = DEPLOY / "helm" / "broadway"
#: None: the values of the chart itself.
VALUES: dict[str, Path | None] = {
    "default": None,
    **{path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))},
}
each_set = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


@pytest.fixture(params=["helm-3", "helm-4"])
def helm(request: pytest.FixtureRequest) -> str:
    return program(request.param)


def arguments(values: Path | None, changes: dict[str, object] | None = None) -> list[str]:
    given = [] if values is None else ["-f", str(values)]
    for name, value in (changes or {}).items():
        given += ["--set-json", f"{name}={json.dumps(value)}"]
    return given


def rendered(helm: str, values: Path | None = None, /, **changes: object) -> list[Manifest]:
    done = run(helm, "template", "demo", str(CHART), "--namespace", "work", *arguments(values, changes))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one is not None]


def refused(helm: str, values: Path | None = None, /, **changes: object) -> str:
    """Why helm does not render this."""
    done = run(helm, "template", "demo", str(CHART), *arguments(values, changes))
    assert done.returncode == 1, done.stdout
    return done.stderr


def workload(manifests: list[Manifest]) -> Manifest:
    (found,) = [one for one in manifests if one["kind"] in ("Deployment", "StatefulSet")]
    return found


def pod(manifests: list[Manifest]) -> Manifest:
    found: Manifest = workload(manifests)["spec"]["template"]
    return found


def kinds(manifests: list[Manifest]) -> list[str]:
    return sorted(one["kind"] for one in manifests)


def pipeline(**section: object) -> str:
    return json.dumps({"pipelines": {"orders": {"class": "a:B", **section}}})


def test_there_are_five_sets_of_values() -> None:
    assert list(VALUES) == ["default", "locked-down", "rabbitmq", "sqs", "windows"]


@each_set
def test_helm_finds_nothing_wrong_with_the_chart(helm: str, values: Path | None) -> None:
    done = run(helm, "lint", "--strict", str(CHART), *arguments(values))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@each_set
def test_what_helm_makes_is_what_kubernetes_knows_and_the_manifests_speak_of_each_other(
    helm: str, values: Path | None
) -> None:
    check_manifests(rendered(helm, values))


def test_each_set_has_what_it_asks_for() -> None:
    helm = program("helm-4")
    always = ["ConfigMap", "PodDisruptionBudget", "Service"]
    assert {name: kinds(rendered(helm, values)) for name, values in VALUES.items()} == {
        "default": sorted([*always, "Deployment", "ServiceAccount"]),
        "rabbitmq": sorted(
            [*always, "Deployment", "PodMonitor", "ScaledObject", "ServiceAccount", "TriggerAuthentication"]
        ),
        "sqs": sorted([*always, "Deployment", "ScaledObject", "ServiceAccount", "TriggerAuthentication"]),
        "windows": sorted([*always, "ServiceAccount", "StatefulSet"]),
        "locked-down": sorted([*always, "Deployment", "NetworkPolicy", "PodMonitor"]),
    }


@each_set
def test_the_daemon_takes_the_settings_and_variables_of_the_pod(helm: str, values: Path | None, tmp_path: Path) -> None:
    manifests = rendered(helm, values)
    (config,) = [one for one in manifests if one["kind"] == "ConfigMap"]
    (container,) = pod(manifests)["spec"]["containers"]
    file = tmp_path / "settings.yaml"
    file.write_text(config["data"]["settings.yaml"])
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    settings = read_settings([file], environ=environ)
    assert settings.http is not None
    assert (settings.http.host, settings.http.port, settings.log.format) == ("0.0.0.0", 8080, "json")
    assert container["args"] == ["run", f"{container['volumeMounts'][0]['mountPath']}/{file.name}"]


@each_set
def test_broadway_check_finds_nothing_wrong_in_the_pod(values: Path | None, tmp_path: Path) -> None:
    """With the secrets where the chart mounts them; the folder of the test stands for the root of the pod."""
    manifests = rendered(program("helm-4"), values)
    (config,) = [one for one in manifests if one["kind"] == "ConfigMap"]
    (container,) = pod(manifests)["spec"]["containers"]
    text = config["data"]["settings.yaml"]
    for mount in container["volumeMounts"]:
        folder = tmp_path / mount["mountPath"].removeprefix("/")
        folder.mkdir(parents=True)
        scheme = "amqps" if "tls:" in text else "amqp"
        (folder / "amqp-url").write_text(f"{scheme}://user:password@rabbitmq/")
        (folder / "token").write_text("0123456789abcdef")
        text = text.replace(mount["mountPath"], str(folder))
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    environ = {one["name"]: one["value"].replace("/run/", f"{tmp_path}/run/") for one in container["env"]}
    done = subprocess.run(
        [sys.executable, "-m", "broadway_py", "check", str(file)],
        env={**os.environ, **environ, "HOSTNAME": f"{workload(manifests)['metadata']['name']}-0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: ")


@pytest.mark.integration
def test_the_example_of_the_chart_runs(tmp_path: Path) -> None:
    (config,) = [one for one in rendered(program("helm-4")) if one["kind"] == "ConfigMap"]
    file = tmp_path / "settings.yaml"
    file.write_text(config["data"]["settings.yaml"].replace("/var/lib/broadway", str(tmp_path)))
    with daemon(tmp_path, file) as running:
        running.until_ready()
        eventually_sync(
            lambda: running.total("broadway_messages_settled_total", pipeline="shipments", outcome="acked") > 0,
            what="a shipment was handled",
        )
        assert running.terminated()[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        "  pipelines: {orders: {class: 'a:B'}}\n",
        "pipelines:\n  orders:\n    class: 'a:B'  # {{ .Values.kind }}\n    context: {a: \"é\\t${X}\"}\n\n\n",
        "# %s\r\npipelines: {orders: {class: 'a:B'}}",
    ],
)
def test_the_text_of_the_settings_arrives_as_it_is(helm: str, text: str) -> None:
    (config,) = [one for one in rendered(helm, settings=text) if one["kind"] == "ConfigMap"]
    assert config["data"]["settings.yaml"].strip() == text.replace("\r", "").strip()


def test_other_settings_are_other_pods_and_other_values_are_not(helm: str) -> None:
    def annotations(**changes: object) -> Any:
        return pod(rendered(helm, None, **changes))["metadata"]["annotations"]

    assert annotations() == annotations(replicas=2)
    assert annotations() != annotations(settings=pipeline())


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(None, 30), (90, 95), ("90", 95), ("1m", 65), ("1.5m", 95), (" 2 h ", 7205), ("500ms", 6), (12.5, 18)],
)
def test_a_pod_has_five_seconds_more_than_its_longest_drain(helm: str, given: object, seconds: int) -> None:
    section = {} if given is None else {"shutdown_timeout": given}
    settings = {"pipelines": {"first": {"class": "a:B", **section}}}
    assert pod(rendered(helm, settings=json.dumps(settings)))["spec"]["terminationGracePeriodSeconds"] == seconds
    settings["pipelines"]["second"] = {"class": "a:B", "shutdown_timeout": 0.1}
    assert pod(rendered(helm, settings=json.dumps(settings)))["spec"]["terminationGracePeriodSeconds"] == seconds


def test_the_time_to_drain_can_be_given(helm: str) -> None:
    manifests = rendered(helm, settings=pipeline(shutdown_timeout="${DRAIN}"), terminationGracePeriodSeconds=100)
    assert pod(manifests)["spec"]["terminationGracePeriodSeconds"] == 100


def owning(own: str, partitions: int = 4) -> str:
    return pipeline(own=own, producer={"kind": "rabbitmq", "queue": "orders", "partitions": partitions})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"settings": "pipelines: ["},
            "settings: expected the text of a settings file in YAML: error converting YAML to JSON",
        ),
        (
            {"settings": "workers: 2"},
            "settings: expected at least one pipeline under `pipelines`; give the file by --set-file settings=FILE",
        ),
        ({"settings": "pipelines: {orders: 3}"}, "settings: pipelines.orders: expected a section"),
        (
            {"settings": pipeline(shutdown_timeout="${DRAIN}")},
            'pipelines.orders.shutdown_timeout: the chart cannot read "${DRAIN}"; set terminationGracePeriodSeconds',
        ),
        (
            {"settings": owning("ordinal"), "replicas": 4},
            'settings: pipelines.orders.own is "ordinal", which needs pods with numbers: set kind to StatefulSet',
        ),
        (
            {"settings": owning("ordinal"), "replicas": 3, "kind": "StatefulSet"},
            "settings: pipelines.orders has 4 partitions with own: ordinal, and replicas is 3; both must be the same",
        ),
        (
            {"settings": owning("ordinal of 4", 16), "replicas": 3, "kind": "StatefulSet"},
            'pipelines.orders.own is "ordinal of 4", and replicas is 3: some partitions would have no reader, or two',
        ),
        (
            {"kind": "StatefulSet", "keda.enabled": True},
            "keda.enabled: the number of pods of a StatefulSet must not change by itself",
        ),
        (
            {"kind": "StatefulSet", "replicas": None},
            "replicas: a StatefulSet needs a number, because it must not change by itself",
        ),
        ({"keda.enabled": True}, "keda.enabled: name at least one queue in keda.rabbitmq or keda.sqs"),
    ],
)
def test_values_that_contradict_each_other_are_refused(helm: str, changes: dict[str, object], sentence: str) -> None:
    assert sentence in refused(helm, None, **changes)


def test_partitions_that_all_have_a_reader_are_taken(helm: str) -> None:
    spec = workload(rendered(helm, settings=owning("ordinal of 4", 16), replicas=4, kind="StatefulSet"))["spec"]
    assert spec["replicas"] == 4


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": "2"}, "replicas"),
        ({"kind": "DaemonSet"}, "kind"),
        ({"token.secret": "a"}, "secret"),
        ({"secrets": [{"name": "a", "mountPath": "run"}]}, "mountPath"),
        ({"keda.rabbitmq": [{"queue": "orders", "messagesPerPod": 0}]}, "messagesPerPod"),
        ({"keda.sqs": [{"queueURL": "orders", "region": "a", "messagesPerPod": 1}]}, "queueURL"),
        ({"volume.accessModes": ["ReadWriteMany"]}, "accessModes"),
    ],
)
def test_values_that_the_chart_does_not_have_are_refused(helm: str, changes: dict[str, object], place: str) -> None:
    told = refused(helm, None, **changes)
    assert "values don't meet the specifications of the schema" in told
    assert place in told


def test_each_value_is_explained_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {*yaml.safe_load(text)} == {*schema["properties"]} - {"global"}
    # Names of Kubernetes, whose values go into the pod as they are.
    known = {"podAnnotations", "podLabels", "priorityClassName", "nodeSelector", "tolerations", "affinity"}
    known |= {"serviceAccount", "securityContext"}
    for name in yaml.safe_load(text):
        before = text[: re.search(rf"^{name}:", text, re.MULTILINE).start()]  # type: ignore[union-attr]  # it is there
        assert name in known or before.splitlines()[-1].startswith("#"), f"{name} has no comment"


def test_the_chart_has_the_version_of_the_package(helm: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
    (container,) = pod(rendered(helm))["spec"]["containers"]
    assert container["image"] == f"broadway-py:{version}"


def without(names: set[str], section: Manifest) -> Manifest:
    return {name: value for name, value in section.items() if name not in names}


@pytest.mark.parametrize(
    ("values", "folder"), [("rabbitmq", DEPLOY / "kubernetes"), ("windows", DEPLOY / "kubernetes" / "windows")]
)
def test_the_chart_and_the_kustomize_manifests_run_the_same_pod(values: str, folder: Path) -> None:
    """What differs on purpose: the names, the variables, and how much memory there is."""
    chart, other = workload(rendered(program("helm-4"), VALUES[values]))["spec"], workload(kustomized(folder))["spec"]
    (ours,), (theirs,) = chart["template"]["spec"]["containers"], other["template"]["spec"]["containers"]
    for name in ("startupProbe", "livenessProbe", "readinessProbe", "securityContext", "args", "ports"):
        assert ours[name] == theirs[name]
    assert {one["mountPath"] for one in ours["volumeMounts"]} == {one["mountPath"] for one in theirs["volumeMounts"]}
    contexts = [one["template"]["spec"]["securityContext"] for one in (other, chart)]
    assert contexts[0].items() <= contexts[1].items()
    for name in ("strategy", "podManagementPolicy", "persistentVolumeClaimRetentionPolicy"):
        assert chart.get(name) == other.get(name)
    for one in (chart, other):
        assert one["template"]["spec"]["automountServiceAccountToken"] is False


def test_with_an_autoscaler_nobody_else_sets_the_number_of_pods(helm: str) -> None:
    assert "replicas" not in workload(rendered(helm, VALUES["sqs"]))["spec"]
    assert "replicas" not in workload(rendered(helm, replicas=None))["spec"]
    assert workload(rendered(helm, replicas=0))["spec"]["replicas"] == 0
    assert workload(rendered(helm, VALUES["windows"]))["spec"]["replicas"] == 4


def test_a_name_is_short_enough_for_what_kubernetes_adds_to_it(helm: str) -> None:
    (service,) = [one for one in rendered(helm, fullnameOverride="x" * 51 + "-y") if one["kind"] == "Service"]
    assert service["metadata"]["name"] == "x" * 51


@pytest.mark.parametrize("empty", [[], None])
def test_a_policy_without_readers_lets_nobody_in(helm: str, empty: object) -> None:
    manifests = rendered(helm, VALUES["locked-down"], **{"networkPolicy.ingressFrom": empty or []})
    (policy,) = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    assert policy["spec"]["ingress"] == []


@each_set
def test_the_notes_name_the_pipelines(values: Path | None) -> None:
    helm = program("helm-4")  # helm 3 asks a cluster first
    done = run(helm, "install", "demo", str(CHART), "--dry-run=client", "--namespace", "work", *arguments(values))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.split("NOTES:\n")[1]
    named = {one["kind"]: one["metadata"]["name"] for one in rendered(helm, values)}
    kind = "StatefulSet" if values == VALUES["windows"] else "Deployment"
    assert notes.startswith(f"{kind} {named[kind]} runs these pipelines:\n  - ")
    assert "kubectl -n work " in notes
    assert ("Control over HTTP is refused" in notes) == (values != VALUES["locked-down"])
