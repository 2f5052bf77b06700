"""deploy/kubernetes/windows: what the manifests must have, and where they must agree with each other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from broadway_py.daemon.settings.settings import read_settings
from tests.deploy.dashboards import DEPLOY

FOLDER = DEPLOY / "kubernetes" / "windows"
#: Seconds: what the drain has, and how much later the process has left at the latest.
DRAIN, LEAVES = 25, 2
#: What scales a workload by itself.
SCALERS = {"ScaledObject", "HorizontalPodAutoscaler", "VerticalPodAutoscaler"}


def manifests() -> dict[str, dict[str, Any]]:
    files = [path for path in FOLDER.glob("*.yaml") if path.name != "settings.yaml"]
    return {one["kind"]: one for path in files for one in yaml.safe_load_all(path.read_text())}


@pytest.fixture
def stateful_set() -> dict[str, Any]:
    found: dict[str, Any] = manifests()["StatefulSet"]["spec"]
    return found


@pytest.fixture
def pipeline() -> dict[str, Any]:
    """The section of the only pipeline in the settings."""
    (section,) = read_settings([FOLDER / "settings.yaml"], environ={}).pipelines.values()
    return dict(section)


def test_each_partition_has_one_pod(stateful_set: dict[str, Any], pipeline: dict[str, Any]) -> None:
    assert pipeline["own"] == "ordinal"
    assert stateful_set["replicas"] == pipeline["producer"]["partitions"]


def test_nothing_changes_the_number_of_pods() -> None:
    assert not SCALERS & set(manifests())


def test_each_pod_has_a_volume_of_its_own_with_the_state_on_it(
    stateful_set: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    (claim,) = stateful_set["volumeClaimTemplates"]
    (container,) = stateful_set["template"]["spec"]["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert pipeline["state"]["path"].startswith(f"{places[claim['metadata']['name']]}/")
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_a_volume_outlives_its_pod(stateful_set: dict[str, Any]) -> None:
    assert stateful_set["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    pod = stateful_set["template"]["spec"]
    (claim,) = stateful_set["volumeClaimTemplates"]
    assert claim["metadata"]["name"] not in {volume["name"] for volume in pod["volumes"]}, "it would hide the claim"


def test_a_pod_that_is_not_ready_holds_up_no_other(stateful_set: dict[str, Any]) -> None:
    assert stateful_set["podManagementPolicy"] == "Parallel"
    budget = manifests()["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_each_pod_has_a_name_of_its_own(stateful_set: dict[str, Any]) -> None:
    service = manifests()["Service"]
    assert stateful_set["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"


def test_a_pod_has_time_to_drain_and_no_rights_that_it_does_not_need(stateful_set: dict[str, Any]) -> None:
    pod = stateful_set["template"]["spec"]
    (container,) = pod["containers"]
    (deployment,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    (other,) = deployment["spec"]["template"]["spec"]["containers"]
    assert pod["terminationGracePeriodSeconds"] > DRAIN + LEAVES
    assert container["securityContext"] == other["securityContext"]
    assert deployment["spec"]["template"]["spec"]["securityContext"].items() <= pod["securityContext"].items()
    assert pod["automountServiceAccountToken"] is False
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe] == other[probe]


def test_the_manifests_speak_of_one_stateful_set(stateful_set: dict[str, Any]) -> None:
    by_kind = manifests()
    chosen = stateful_set["selector"]["matchLabels"]
    assert chosen.items() <= stateful_set["template"]["metadata"]["labels"].items()
    assert by_kind["Service"]["spec"]["selector"] == chosen
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == chosen
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == chosen
    (spread,) = stateful_set["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == chosen
    (generated,) = by_kind["Kustomization"]["configMapGenerator"]
    volumes = {volume["name"]: volume for volume in stateful_set["template"]["spec"]["volumes"]}
    assert volumes["settings"]["configMap"]["name"] == generated["name"]
    named = [*by_kind["Kustomization"]["resources"], *generated["files"]]
    assert all((FOLDER / name).exists() for name in named)
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*named, "kustomization.yaml"}


def test_the_pods_may_talk_to_the_same_others_as_those_of_the_deployment() -> None:
    (other,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "networkpolicy.yaml").read_text())
    policy = manifests()["NetworkPolicy"]["spec"]
    assert {**policy, "podSelector": None} == {**other["spec"], "podSelector": None}
