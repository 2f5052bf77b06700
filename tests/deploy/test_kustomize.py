"""deploy/kubernetes: what kubectl makes of the folders is what Kubernetes knows."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.dashboards import DEPLOY
from tests.deploy.manifests import NEWEST, Manifest, check_manifests, kustomized

FOLDER = DEPLOY / "kubernetes"
#: The file with the pods in each folder.
WORKLOADS = {FOLDER: "Deployment", FOLDER / "windows": "StatefulSet"}


def with_components(folder: Path, base: Path, *components: str) -> Path:
    """A folder that adds *components* to *base*, as its user would."""
    folder.joinpath("kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [relative(base, folder)],
                "components": [relative(FOLDER / "components" / name, folder) for name in components],
            }
        )
    )
    return folder


def relative(path: Path, to: Path) -> str:
    """Kustomize takes relative paths only."""
    return "/".join([".."] * (len(to.resolve().parts) - 1)) + str(path.resolve())


@pytest.mark.parametrize("folder", WORKLOADS, ids=["pipeline", "windows"])
def test_the_manifests_are_what_kubernetes_knows_and_speak_of_each_other(folder: Path) -> None:
    check_manifests(kustomized(folder))


@pytest.mark.parametrize("folder", WORKLOADS, ids=["pipeline", "windows"])
def test_the_components_can_be_added(folder: Path, tmp_path: Path) -> None:
    plain = kustomized(folder)
    added = kustomized(with_components(tmp_path, folder, "podmonitor", "token"))
    check_manifests(added)
    assert [one["kind"] for one in added if one["kind"] not in {each["kind"] for each in plain}] == ["PodMonitor"]
    (workload,) = [one for one in added if one["kind"] == WORKLOADS[folder]]
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (variable,) = container["env"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "token"]
    assert variable == {"name": "BROADWAY_HTTP__TOKEN_FILE", "value": f"{mount['mountPath']}/token"}
    (volume,) = [one for one in pod["volumes"] if one["name"] == "token"]
    assert volume["secret"] == {"secretName": "broadway-token", "defaultMode": 0o440}


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    manifest: Manifest = next(one for one in kustomized(FOLDER) if one["kind"] == "Deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="'readynessProbe' was unexpected"):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_a_name_that_no_other_manifest_has_is_noticed() -> None:
    manifests = kustomized(FOLDER)
    (budget,) = [one for one in manifests if one["kind"] == "PodDisruptionBudget"]
    budget["spec"]["selector"]["matchLabels"] = {"app.kubernetes.io/name": "parcels"}
    with pytest.raises(AssertionError, match="PodDisruptionBudget shipments"):
        check_manifests(manifests)
