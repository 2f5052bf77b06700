"""Manifests for Kubernetes: who renders them, and what its own schemas say of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from tests.support.daemon import ROOT

__all__ = ["NEWEST", "OLDEST", "Manifest", "check_manifests", "kustomized", "program", "run"]

Manifest = dict[str, Any]

#: The Kubernetes versions whose schemas are asked. The manifests need fields that are there since 1.27.
OLDEST: Final = "1.27"
NEWEST: Final = "1.37"

#: Kinds of KEDA and of the Prometheus operator, of which Kubernetes has no schema: the fields that they must have.
_NEEDED: Final = {
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "triggers"}),
    "TriggerAuthentication": ("keda.sh/v1alpha1", set[str]()),
}


def program(name: str) -> str:
    """Where *name* is; without it the test is skipped."""
    own = ROOT / ".cache" / "kubernetes" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: tests/support/get_kubernetes.sh gets it where it can")
    return found


def run(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run *command*; its exit code says whether it has succeeded."""
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


def kustomized(folder: Path) -> list[Manifest]:
    """What ``kubectl apply -k`` would send for *folder*."""
    done = run(program("kubectl"), "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one is not None]


def check_manifests(manifests: Iterable[Manifest]) -> None:
    """Check each manifest by the schema of its kind, and that they speak of each other."""
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    assert by_name
    for (kind, _), manifest in by_name.items():
        if kind in _NEEDED:
            version, fields = _NEEDED[kind]
            assert manifest["apiVersion"] == version
            assert fields <= set(manifest["spec"])
        else:
            for release in (OLDEST, NEWEST):
                kubernetes_validate.validate(manifest, release, strict=True)
    for (kind, name), manifest in by_name.items():
        if kind in ("Deployment", "StatefulSet"):
            _check_pod(manifest["spec"])
        assert set(_missing(kind, manifest, by_name)) == set(), f"{kind} {name}"


def _check_pod(workload: Manifest) -> None:
    claims = {claim["metadata"]["name"] for claim in workload.get("volumeClaimTemplates", [])}
    pod = workload["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert not volumes & claims, "a volume of this name hides the claim"
    for container in pod["containers"]:
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == volumes | claims
        places = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(places) == len(set(places))


def _missing(kind: str, manifest: Manifest, by_name: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    """What *manifest* names among the others, and what is not there."""
    spec = manifest.get("spec", {})
    workloads = [one for (of, _), one in by_name.items() if of in ("Deployment", "StatefulSet")]
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in workloads]
    chosen = spec.get("podSelector") or spec.get("selector") or {}
    labels = chosen.get("matchLabels", chosen)
    if chosen and not any(labels.items() <= pod.items() for pod in pods):
        yield f"pods with {labels}"
    if kind == "ScaledObject":
        if ("Deployment", spec["scaleTargetRef"]["name"]) not in by_name:
            yield f"Deployment {spec['scaleTargetRef']['name']}"
        for trigger in spec["triggers"]:
            if ("TriggerAuthentication", trigger["authenticationRef"]["name"]) not in by_name:
                yield f"TriggerAuthentication {trigger['authenticationRef']['name']}"
    if kind in ("Deployment", "StatefulSet"):
        for volume in spec["template"]["spec"]["volumes"]:
            if volume["name"] == "settings" and ("ConfigMap", volume["configMap"]["name"]) not in by_name:
                yield f"ConfigMap {volume['configMap']['name']}"
    if kind == "StatefulSet" and ("Service", spec["serviceName"]) not in by_name:
        yield f"Service {spec['serviceName']}"
