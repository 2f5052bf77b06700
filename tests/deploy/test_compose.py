"""docker-compose.yml, the Dockerfile, the manifests and the unit: what must be in them, and what they must agree on."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from broadway_py.daemon.settings.settings import read_settings
from tests.deploy.dashboards import DASHBOARDS, DEPLOY

ROOT = DEPLOY.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
#: Seconds: what the drain has, and how much later the process has left at the latest.
DRAIN, LEAVES = 25, 2

#: The lists that the image is installed from.
LOCKED = ("requirements.txt", "requirements-build.txt")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def locked(name: str) -> list[tuple[NormalizedName, str, list[str]]]:
    """Package, version and hashes of each line of deploy/*name*."""
    text = (DEPLOY / name).read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [
        (canonicalize_name(head.partition("==")[0]), head.partition("==")[2], [one.partition(":")[2] for one in hashes])
        for head, *hashes in lines
    ]


def closure(of: str) -> set[str]:
    """The names of what *of* needs on the image's Python on Linux, itself included."""
    python = instructions("ARG")[0].removeprefix("PYTHON=").partition("-")[0]
    there = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
    }
    found: set[tuple[str, frozenset[str]]] = set()
    open_ones = [Requirement(of)]
    while open_ones:
        one = open_ones.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in found:
            continue
        found.add(key)
        for text in requires(one.name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({**there, "extra": extra}) for extra in ("", *one.extras)
            ):
                open_ones.append(needed)
    return {name for name, _ in found}


def instructions(name: str) -> list[str]:
    """What the Dockerfile gives to an instruction, each time, with its continuation lines."""
    joined = re.sub(r"\\\n\s*(#.*\n\s*)*", " ", DOCKERFILE)
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def manifests() -> list[dict[str, Any]]:
    files = [path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "settings.yaml"]
    return [one for path in files for one in yaml.safe_load_all(path.read_text())]


def test_the_system_is_complete() -> None:
    daemons, brokers = {"broadway", "windows", "generator"}, {"rabbitmq", "localstack"}
    assert set(SERVICES) == daemons | brokers | {"prometheus", "alertmanager", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_has_a_tag_that_stays(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image, name
    assert re.match(r"v?\d+\.\d+\.\d+", tag), f"{name}: {tag}"


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_says_whether_it_is_well(name: str) -> None:
    assert "healthcheck" in SERVICES[name] or (name == "generator" and instructions("HEALTHCHECK"))


def test_nobody_starts_before_what_it_needs_is_well() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert all(one == {"condition": "service_healthy"} for of in needs.values() for one in of.values())
    assert set(needs["broadway"]) == {"rabbitmq", "localstack"}
    assert set(needs["windows"]) == {"broadway", "rabbitmq", "localstack"}
    assert set(needs["generator"]) == {"broadway", "windows"}
    assert set(needs["grafana"]) == {"prometheus"}
    assert set(needs["prometheus"]) == {"alertmanager"}


@pytest.mark.parametrize("name", ["broadway", "windows", "generator"])
def test_a_daemon_has_time_to_drain_and_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN + LEAVES
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service, "the image has its own"


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_what_keeps_state_has_a_volume() -> None:
    assert set(COMPOSE["volumes"]) == set(SERVICES) - {"generator"}
    for name in COMPOSE["volumes"]:
        assert any(str(mount).startswith(f"{name}:/") for mount in SERVICES[name]["volumes"]), name


def test_what_is_mounted_from_this_folder_is_there_and_cannot_be_written() -> None:
    for name, service in SERVICES.items():
        for mount in service["volumes"]:
            source, _, rest = mount.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {mount}"
                assert rest.endswith(":ro"), f"{name}: {mount}"


def test_the_daemon_runs_the_settings_of_both_brokers() -> None:
    command = SERVICES["broadway"]["command"]
    files = [ROOT / "config" / Path(word).name for word in command if word.endswith(".yaml")]

    settings = read_settings(files, environ={"BROADWAY_HTTP__HOST": "0.0.0.0"})

    kinds = {name: section["producer"]["kind"] for name, section in settings.pipelines.items()}
    assert kinds == {"shipments": "rabbitmq", "shipments-sqs": "sqs"}
    assert settings.http is not None
    assert settings.http.host == "0.0.0.0"


def test_the_windows_of_both_brokers_have_their_state_on_the_volume() -> None:
    service = SERVICES["windows"]
    (file,) = [ROOT / "config" / Path(word).name for word in service["command"] if word.endswith(".yaml")]

    settings = read_settings([file], environ=service["environment"])

    kinds = {name: section["producer"]["kind"] for name, section in settings.pipelines.items()}
    assert kinds == {"arrivals": "rabbitmq", "arrivals-sqs": "sqs"}
    assert settings.workers == 1
    volume = Path(next(mount.partition(":")[2] for mount in service["volumes"] if mount.startswith("windows:")))
    paths = [Path(section["state"]["path"]) for section in settings.pipelines.values()]
    assert len(set(paths)) == 2
    assert {path.parent for path in paths} == {volume}


def test_the_generator_feeds_the_queues_of_these_pipelines() -> None:
    generator = yaml.safe_load((DEPLOY / "generator" / "generator.yaml").read_text())
    for section in generator["pipelines"].values():
        place = section["context"]
        settings = read_settings([ROOT / "config" / Path(place["settings"]).name], environ={})
        assert place["pipeline"] in settings.pipelines


def test_the_broker_has_the_exchange_that_partitions_need() -> None:
    assert "./deploy/rabbitmq/enabled_plugins:/etc/rabbitmq/enabled_plugins:ro" in SERVICES["rabbitmq"]["volumes"]
    plugins = (DEPLOY / "rabbitmq" / "enabled_plugins").read_text().strip().removeprefix("[").removesuffix("].")
    assert "rabbitmq_sharding" in plugins.split(",")


def test_prometheus_scrapes_services_that_exist() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            assert target.partition(":")[0] in SERVICES


def test_prometheus_sends_its_alerts_to_the_alertmanager() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (receiver,) = config["alerting"]["alertmanagers"]
    assert receiver == {"static_configs": [{"targets": ["alertmanager:9093"]}]}
    service = SERVICES["alertmanager"]
    assert service["ports"] == ["127.0.0.1:9093:9093"]
    assert "--config.file=/etc/alertmanager/alertmanager.yml" in service["command"]
    assert "./deploy/alertmanager:/etc/alertmanager:ro" in service["volumes"]
    assert service["read_only"] is True


def test_grafana_finds_its_data_source_and_the_dashboards() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "broadway.yml").read_text())["providers"]
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in SERVICES["grafana"]["volumes"])
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {path.name for path in DASHBOARDS}
    assert mounts["./docs"] == "/usr/share/grafana/public/docs", "where the links of the dashboards lead"


def test_the_image_is_built_in_two_stages_and_nothing_runs_as_root() -> None:
    (tag, digest) = instructions("ARG")
    assert re.fullmatch(r"PYTHON=\d+\.\d+\.\d+-slim-\w+", tag)
    assert digest == "PYTHON_DIGEST="
    image = "python:${PYTHON}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"
    assert instructions("FROM") == [f"{image} AS build", image]
    assert SERVICES["broadway"]["build"]["args"] == {"PYTHON_DIGEST": "${PYTHON_DIGEST:-}"}
    assert instructions("USER") == ["10001:10001"]
    assert instructions("ENTRYPOINT") == ['["broadway"]']
    assert "CMD [" in instructions("HEALTHCHECK")[0]
    assert "syntax=" not in DOCKERFILE.replace(" ", "")


def test_the_python_of_the_image_is_the_newest_that_the_package_names() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    newest = max(named, key=lambda version: int(version.partition(".")[2]))
    assert instructions("ARG")[0].startswith(f"PYTHON={newest}.")


def test_everything_that_is_installed_into_the_image_is_known_by_its_hash() -> None:
    installs = [
        one.strip() for run in instructions("RUN") for one in run.split("&&") if "install" in one and "pip" in one
    ]
    assert len(installs) == 3
    for one in installs:
        assert "--require-hashes" in one or "--no-index" in one, one
    assert "--no-build-isolation" in DOCKERFILE, "or pip would fetch what builds the wheel by itself, unknown"


@pytest.mark.parametrize("name", LOCKED)
def test_the_hashed_requirements_agree_with_the_constraints(name: str) -> None:
    for package, version, hashes in locked(name):
        assert PINS[package] == version, f"{package}: run sh deploy/renew_requirements.sh"
        assert len(hashes) >= 1, package
        assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in hashes)


def test_the_hashed_requirements_are_what_the_package_needs() -> None:
    """Through the requirements of what is installed here, which are those of the pins."""
    wanted = closure(f"{PROJECT['project']['name']}[all]") - {canonicalize_name(PROJECT["project"]["name"])}
    assert {package for package, _, _ in locked("requirements.txt")} == wanted


def test_the_hashed_requirements_of_the_build_have_its_backend() -> None:
    (backend,) = [Requirement(one) for one in PROJECT["build-system"]["requires"]]
    builds = {package: version for package, version, _ in locked("requirements-build.txt")}
    assert backend.specifier.contains(builds[canonicalize_name(backend.name)])


def test_pods_are_reached_by_prometheus_alone_and_reach_what_they_need() -> None:
    by_kind = {one["kind"]: one for one in manifests()}
    policy, deployment = by_kind["NetworkPolicy"]["spec"], by_kind["Deployment"]["spec"]
    assert policy["podSelector"]["matchLabels"] == deployment["selector"]["matchLabels"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (container,) = deployment["template"]["spec"]["containers"]
    (inward,) = policy["ingress"]
    assert [port["port"] for port in inward["ports"]] == [port["name"] for port in container["ports"]]
    assert all("from" in rule for rule in policy["ingress"])
    assert all(rule["to"] for rule in policy["egress"])
    reached = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert reached == {53, 5671, 5672}


def test_a_pod_has_time_to_drain_and_no_rights_that_it_does_not_need() -> None:
    (deployment,) = [one for one in manifests() if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > DRAIN + LEAVES
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == instructions("USER")[0].partition(":")[0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_the_manifests_speak_of_one_deployment() -> None:
    by_kind = {one["kind"]: one for one in manifests()}
    deployment = by_kind["Deployment"]
    chosen = deployment["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert by_kind["Service"]["spec"]["selector"] == chosen
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == chosen
    scaled = by_kind["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaled["triggers"][0]["authenticationRef"]["name"] == by_kind["TriggerAuthentication"]["metadata"]["name"]
    settings = read_settings([DEPLOY / "kubernetes" / "settings.yaml"], environ={})
    (section,) = settings.pipelines.values()
    assert scaled["triggers"][0]["metadata"]["queueName"] == section["producer"]["queue"]
    files = [DEPLOY / "kubernetes" / name for name in by_kind["Kustomization"]["resources"]]
    assert all(file.exists() for file in files)
