"""The Helm chart: what it makes for one gateway and for many, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import gateway
from gateway.settings.rows import SETTINGS
from tests.support.helm import ChartError, has_helm, render, render_by_helm

CHART = Path(__file__).parents[1] / "deploy" / "helm"
CLUSTER: dict[str, Any] = {"replicas": 3, "cluster": {"url": "valkey://valkey:6379/0"}}
VALUES: dict[str, dict[str, Any]] = {
    "one": {},
    "one without a file": {"archive": {"enabled": False}},
    "cluster": CLUSTER,
    "everything": {
        "replicas": 2,
        "cluster": {"urlFromSecret": True, "name": "house"},
        "secrets": {"GATEWAY_CLUSTER_URL": "valkey://:pass@valkey:6379/0", "GATEWAY_MQTT_PASSWORD": 'a"b: #c'},
        "existingSecret": "others",
        "settings": {"GATEWAY_MQTT_URL": "mqtts://broker:8883", "GATEWAY_FLUSH_INTERVAL": "1s"},
        "config": '[[archive.keep]]\ntopics = ["a/#"]\n\n[roles.all]\nsubscribe = ["#"]\n',
        "ingress": {"enabled": True, "host": "live.example.org", "className": "nginx", "tlsSecret": "live",
                    "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "podAnnotations": {"example.org/a": "b"},
    },
    "numbers": {"settings": {"GATEWAY_LIMIT_CONNECTIONS": 1_000_000, "GATEWAY_HISTORY_BYTES": 268_435_456,
                             "GATEWAY_FLUSH_INTERVAL": 0.005, "GATEWAY_MQTT_WEBSOCKET": True, "GATEWAY_PORT": 8000}},
}  # fmt: skip


def objects(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in render(CHART, values)}


def container(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    [only] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def environment(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(found)["env"]}


def test_one_gateway_has_its_file_and_is_never_two() -> None:
    found = objects({})
    assert set(found) == {"Deployment", "Service", "PersistentVolumeClaim"}
    spec = found["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["template"]["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "test-gateway"}}
    ]
    assert environment(found) == {
        "GATEWAY_MQTT_URL": "mqtt://mosquitto:1883",
        "GATEWAY_VIEW_TOPIC": "gateway/views",
    }
    assert container(found)["image"] == f"mqtt-browser-gateway:{gateway.__version__}"


def test_without_a_file_none_is_written() -> None:
    found = objects({"archive": {"enabled": False}})
    assert "PersistentVolumeClaim" not in found
    assert environment(found)["GATEWAY_ARCHIVE_FILE"] == ""


def test_the_pods_of_a_cluster_may_keep_files_of_their_own() -> None:
    found = objects({**CLUSTER, "archive": {"onNodes": True, "size": "3Gi"}})
    assert "PersistentVolumeClaim" not in found
    assert "GATEWAY_ARCHIVE_FILE" not in environment(found)
    [data] = [each for each in found["Deployment"]["spec"]["template"]["spec"]["volumes"] if each["name"] == "data"]
    assert data["emptyDir"] == {"sizeLimit": "3Gi"}


def test_a_cluster_rolls_and_keeps_one_more_than_it_needs() -> None:
    found = objects(CLUSTER)
    assert set(found) == {"Deployment", "Service", "PodDisruptionBudget"}
    spec = found["Deployment"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert environment(found) == {
        "GATEWAY_MQTT_URL": "mqtt://mosquitto:1883",
        "GATEWAY_VIEW_TOPIC": "gateway/views",
        "GATEWAY_CLUSTER_URL": "valkey://valkey:6379/0",
        "GATEWAY_CLUSTER_NAME": "test",
        "GATEWAY_CLUSTER_NODE": {"fieldRef": {"fieldPath": "metadata.name"}},
        "GATEWAY_ARCHIVE_FILE": "",  # the image names one
    }
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_many_without_a_shared_log_are_refused() -> None:
    with pytest.raises(ChartError, match=r"replicas: .* set cluster\.url"):
        render(CHART, {"replicas": 2})


def test_secrets_stay_out_of_the_deployment() -> None:
    values = VALUES["everything"]
    found = objects(values)
    assert found["Secret"]["stringData"] == values["secrets"]
    assert "pass" not in yaml.safe_dump(found["Deployment"])
    assert container(found)["envFrom"] == [
        {"secretRef": {"name": "test-gateway"}},
        {"secretRef": {"name": "others"}},
    ]
    assert found["ConfigMap"]["data"]["gateway.toml"] == values["config"]


def test_a_number_among_the_settings_stays_as_it_was_written() -> None:
    found = environment(objects(VALUES["numbers"]))
    assert {name: found[name] for name in VALUES["numbers"]["settings"]} == {
        "GATEWAY_LIMIT_CONNECTIONS": "1000000",
        "GATEWAY_HISTORY_BYTES": "268435456",
        "GATEWAY_FLUSH_INTERVAL": "0.005",
        "GATEWAY_MQTT_WEBSOCKET": "true",
        "GATEWAY_PORT": "8000",
    }


def test_a_secret_that_is_a_number_is_refused_before_it_is_another_one() -> None:
    for make in (render, *([render_by_helm] if has_helm() else [])):
        with pytest.raises(ChartError, match=r"secrets\.GATEWAY_MQTT_PASSWORD: is not a text: put it into quotes"):
            make(CHART, {"secrets": {"GATEWAY_MQTT_PASSWORD": 12345678}})


def test_other_settings_make_other_pods() -> None:
    def checksum(values: dict[str, Any]) -> str:
        annotations = objects(values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/settings"])

    assert checksum({}) == checksum({})
    assert checksum({}) != checksum({"config": "port = 9000"})
    assert checksum({}) != checksum({"secrets": {"GATEWAY_MQTT_PASSWORD": "x"}})


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_belongs_together_is_called_alike(values: dict[str, Any]) -> None:
    found = objects(values)
    pod = found["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    selectors = [found["Deployment"]["spec"]["selector"]["matchLabels"], found["Service"]["spec"]["selector"]]
    if "PodDisruptionBudget" in found:
        selectors.append(found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    assert all(selector.items() <= labels.items() for selector in selectors)
    if "ServiceMonitor" in found:
        chosen = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= found["Service"]["metadata"]["labels"].items()
    only = container(found)
    [port] = only["ports"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    mounts = {mount["name"] for mount in only["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert only["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    # a pod has time for its preStop and for the drain
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_variable_is_a_setting(values: dict[str, Any]) -> None:
    found = objects(values)
    known = {row.variable for row in SETTINGS.values()}
    assert set(environment(found)) | set(found.get("Secret", {}).get("stringData", {})) <= known


@pytest.mark.skipif(not has_helm(), reason="Helm is not installed")
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_makes_the_same(values: dict[str, Any]) -> None:
    def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for each in found:
            if each["kind"] == "Deployment":
                # Go writes JSON in its own way
                del each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        return sorted(found, key=lambda each: str(each["kind"]))

    assert plain(render_by_helm(CHART, values)) == plain(render(CHART, values))
